"""Both engines complete the same prompts alike, whatever the model's family."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig, inject_adapter_in_model
from tiny_causal_models import FAMILIES, PAD, PROMPTS, SEEDS, SHAPE, STOP, model_of
from tiny_models import VIT, tiny_spec
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from zerofit.config.errors import UserError
from zerofit.config.grpo import Sampling
from zerofit.generate import graph
from zerofit.generate.batches import batches_of
from zerofit.generate.cache import Place, fixed_cache
from zerofit.generate.completion import Completion, completion_of
from zerofit.generate.generator import make_generator
from zerofit.generate.step import Captured, Decoding
from zerofit.models.recompute import apply_checkpointing
from zerofit.train.strategy import engine_for

CPU = torch.device("cpu")


def complete(engine: str, model: PreTrainedModel, sampling: Sampling, batch: int | None = None) -> list[Completion]:
    return make_generator(engine, CPU, PAD, [STOP], batch)(model, PROMPTS, SEEDS, sampling)


def recomputed(model: PreTrainedModel, prompt: list[int], completion: Completion, temperature: float) -> torch.Tensor:
    """Log-probabilities of the completion's tokens by one forward over all of it."""
    row = torch.tensor([prompt + completion.tokens])
    with torch.no_grad():
        logits = model(input_ids=row).logits[0, len(prompt) - 1 : -1] / (temperature or 1.0)
    return logits.log_softmax(-1).gather(-1, torch.tensor(completion.tokens)[:, None])[:, 0]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_engines_agree(family: str, temperature: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph, "BUCKET", 8)
    model = model_of(family).eval()
    sampling = Sampling(temperature=temperature, max_tokens=24)
    found = complete("graph", model, sampling)
    plain = complete("hf", model, sampling)
    assert [one.tokens for one in found] == [one.tokens for one in plain]
    assert [one.stopped for one in found] == [one.stopped for one in plain]
    assert len({tuple(one.tokens) for one in found}) >= 3
    for prompt, one, other in zip(PROMPTS, found, plain, strict=True):
        whole = recomputed(model, prompt, one, temperature)
        torch.testing.assert_close(torch.tensor(one.logprobs), whole, rtol=0, atol=1e-5)
        torch.testing.assert_close(torch.tensor(other.logprobs), whole, rtol=0, atol=1e-5)


@pytest.mark.parametrize("engine", ["graph", "hf"])
@pytest.mark.parametrize("batch", [1, 2])
def test_a_completion_depends_on_no_companion(engine: str, batch: int) -> None:
    model = model_of("qwen3").eval()
    sampling = Sampling(max_tokens=20, top_p=0.9, top_k=30)
    together, apart = complete(engine, model, sampling), complete(engine, model, sampling, batch)
    assert [one.tokens for one in together] == [one.tokens for one in apart]
    assert together[0].tokens != together[3].tokens  # the same prompt, another seed
    for one, other in zip(together, apart, strict=True):
        np.testing.assert_allclose(one.logprobs, other.logprobs, atol=1e-5)


@pytest.mark.parametrize("engine", ["graph", "hf"])
def test_model_and_random_state_are_left_as_they_were(engine: str) -> None:
    model = model_of("llama").train()
    model.model.norm.eval()
    model.activation_checkpointing_enable()
    own, state = model.generation_config, torch.get_rng_state()
    complete(engine, model, Sampling(max_tokens=3))
    assert torch.equal(torch.get_rng_state(), state)
    assert {name for name, one in model.named_modules() if not one.training} == {"model.norm"}
    assert model.is_activation_checkpointing
    assert model.generation_config is own
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("engine", ["graph", "hf"])
def test_the_models_own_settings_do_not_count(engine: str) -> None:
    model = model_of("qwen2").eval()
    right = complete(engine, model, Sampling(max_tokens=12))
    model.generation_config.update(repetition_penalty=5.0, do_sample=True, top_k=1, eos_token_id=9)
    assert complete(engine, model, Sampling(max_tokens=12)) == right


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bit_weights_and_adapters(dtype: torch.dtype) -> None:
    model = model_of("qwen3", dtype)
    inject_adapter_in_model(
        LoraConfig(r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False), model.model.layers
    )
    model.eval()
    for one in complete("graph", model, Sampling(max_tokens=16)):
        assert np.isfinite(one.logprobs).all()
    found, plain = (complete(engine, model, Sampling(temperature=0, max_tokens=8)) for engine in ("graph", "hf"))
    # Rounding differs: rows may part where two tokens are nearly as likely.
    assert sum(one.tokens == other.tokens for one, other in zip(found, plain, strict=True)) >= 3


def test_the_cache_goes_with_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    caches: list[Any] = []

    def noted(*arguments: Any) -> Any:
        cache = fixed_cache(*arguments)
        caches.append(weakref.ref(cache.layers[0]))
        return cache

    monkeypatch.setattr(graph, "fixed_cache", noted)
    gc.disable()  # no cycle may hold it
    try:
        complete("graph", model_of("llama"), Sampling(max_tokens=4), batch=2)
        assert [cache() for cache in caches] == [None]
    finally:
        gc.enable()


def test_progress_counts_completions() -> None:
    model, seen = model_of("llama").eval(), list[int]()
    make_generator("graph", CPU, PAD, [STOP], 2)(model, PROMPTS, SEEDS, Sampling(max_tokens=40), seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == len(PROMPTS)


def test_rows_end_with_their_first_stop_token() -> None:
    assert completion_of([5, 3, 7, 3], [-1.0, -2.0, -3.0, -4.0], {3}) == Completion([5, 3], [-1.0, -2.0], True)
    assert completion_of([5, 6], [-1.0, -2.0], {3}) == Completion([5, 6], [-1.0, -2.0], False)
    assert make_generator("graph", CPU, PAD, [], None)(model_of("llama"), [], [], Sampling()) == []


def test_no_stop_token_at_all() -> None:
    for engine in ("graph", "hf"):
        found = make_generator(engine, CPU, PAD, [], None)(model_of("llama"), PROMPTS, SEEDS, Sampling(max_tokens=9))
        assert [len(one.tokens) for one in found] == [9] * len(PROMPTS)


@pytest.mark.parametrize("engine", ["graph", "hf"])
def test_a_context_too_short_is_refused(engine: str) -> None:
    with pytest.raises(UserError, match=r"prompt of 9 tokens .* context of 64 tokens; take max_tokens <= 55"):
        complete(engine, model_of("gpt2"), Sampling(max_tokens=56))


def test_layers_without_keys_and_values_are_refused() -> None:
    fields = SHAPE | {
        "model_type": "lfm2",
        "layer_types": ["conv", "full_attention"],
        "block_auto_adjust_ff_dim": False,
    }
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**fields))
    with pytest.raises(UserError, match=r"engine graph cannot decode Lfm2ForCausalLM: .* take the engine hf"):
        complete("graph", model, Sampling(max_tokens=4))


@given(st.lists(st.integers(1, 50), min_size=1, max_size=30), st.none() | st.integers(1, 12))
def test_batches_hold_every_row_once(lengths: list[int], batch: int | None) -> None:
    found = batches_of(lengths, batch)
    assert sorted(row for rows in found for row in rows) == list(range(len(lengths)))
    assert len(found) == (1 if batch is None else -(-len(lengths) // batch))
    assert max(map(len, found)) - min(map(len, found)) <= 1
    sizes = [lengths[row] for rows in found for row in rows]
    assert sizes == sorted(sizes, reverse=True)


class OnDevice(TorchDispatchMode):
    """Refuses what takes numbers from the host, which a graph cannot."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func is not torch.ops.aten.lift_fresh.default, "torch.tensor"
        if func is torch.ops.aten._to_copy.default:
            target = (kwargs or {}).get("device") or args[0].device
            assert args[0].device == torch.device(target), "a copy from the host"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("sampling", [Sampling(temperature=0), Sampling(top_k=5, top_p=0.9)])
def test_a_step_reads_nothing_back(family: str, sampling: Sampling) -> None:
    """Without values no step could look at one: what cannot be captured raises here."""
    nowhere = torch.device("meta")
    model = model_of(family, torch.bfloat16).eval().to(nowhere)
    place = Place(3, 64, nowhere)
    decoding = Decoding(model, fixed_cache(place, 2), place, sampling, PAD, [STOP, 4])
    with torch.no_grad(), OnDevice(), patch.object(torch, "tensor", None):  # on this device it is not dispatched
        decoding.step(16)
        decoding.step(64)
    with OnDevice(), pytest.raises(AssertionError, match=r"torch\.tensor"):
        torch.tensor([1]).to(nowhere)
    with OnDevice(), pytest.raises(RuntimeError, match="meta"):
        decoding.finished.all().item()


class Card:
    """Stands for torch.cuda: what is captured is not done, and each replay does it."""

    def __init__(self, step: Callable[[int], None]) -> None:
        self.step, self.graphs = step, list[Graph]()
        self.capturing: Graph | None = None

    def run(self, visible: int) -> None:
        """The step, as a card would see it."""
        if self.capturing is None:
            self.step(visible)
        else:
            self.capturing.visible = visible
            self.graphs.append(self.capturing)

    def CUDAGraph(self) -> Graph:
        return Graph(self.step)

    @contextmanager
    def graph(self, graph: Graph, **_: Any) -> Iterator[None]:
        self.capturing = graph
        yield
        self.capturing = None

    def Stream(self, *_: Any) -> Card:
        return self

    current_stream = Stream

    def stream(self, *_: Any) -> Any:
        return nullcontext()

    def wait_stream(self, *_: Any) -> None: ...

    def graph_pool_handle(self) -> None: ...


class Graph:
    def __init__(self, step: Callable[[int], None]) -> None:
        self.step, self.visible = step, 0

    def replay(self) -> None:
        self.step(self.visible)


def test_captured_steps_are_done_once_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a GPU: capturing leaves no token out and draws none twice, and later batches replay the same graphs."""
    monkeypatch.setattr(graph, "BUCKET", 8)
    model, sampling, cards = model_of("qwen3").eval(), Sampling(max_tokens=24), list[Card]()
    right = complete("graph", model, sampling, batch=2)

    def runner_on(device: torch.device, step: Callable[[int], None]) -> Captured:
        cards.append(Card(step))
        monkeypatch.setattr(torch, "cuda", cards[-1])
        return Captured(cards[-1].run, device)

    monkeypatch.setattr(graph, "runner_on", runner_on)
    assert complete("graph", model, sampling, batch=2) == right
    captured = [one.visible for one in cards[0].graphs]
    assert len(cards) == 1
    assert len(captured) == len(set(captured)) > 1


def test_a_rollout_computes_as_autocast_does() -> None:
    """Weights cast once are those that autocast casts for every token; then all is as it was."""
    spec = tiny_spec({"kind": "vit", "shape": VIT}, strategy={"name": "ddp"})
    engine = engine_for(spec.model_copy(update={"precision": "bf16"}), CPU)
    model = model_of("qwen3")
    inject_adapter_in_model(LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False), model.model.layers)
    model.blocks, model.stacks = model.model.layers, (model.model.layers,)
    apply_checkpointing(model, "full")  # type: ignore[arg-type]
    model.train()
    tokens = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        right = model.eval()(input_ids=tokens).logits
    model.train()
    forwards = [block.forward for block in model.blocks]
    weights = dict(model.named_parameters())
    with engine.rollout(model) as plain:
        assert plain.model.layers[0].mlp.up_proj.weight.dtype == torch.bfloat16
        assert torch.equal(plain(input_ids=tokens).logits, right)
        found, other = (complete(name, plain, Sampling(max_tokens=8)) for name in ("graph", "hf"))
    assert sum(one.tokens == two.tokens for one, two in zip(found, other, strict=True)) >= 3
    assert [block.forward for block in model.blocks] == forwards
    assert all(parameter is weights[name] for name, parameter in model.named_parameters())
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert all(module.training for module in model.modules())


def test_keys_are_kept_as_attention_reads_them() -> None:
    """A norm after the projection makes float32 of them under autocast."""
    model, place = model_of("qwen3").eval(), Place(2, 16, CPU)
    cache = fixed_cache(place, 2)
    decoding = Decoding(model, cache, place, Sampling(), PAD, [STOP])
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        decoding.step(16)
    assert {layer.keys.dtype for layer in cache.layers} == {layer.values.dtype for layer in cache.layers}
    assert cache.layers[0].keys.dtype == torch.bfloat16


def test_4_bit_weights() -> None:
    bnb = pytest.importorskip("bitsandbytes")
    model = model_of("qwen3").eval()
    for layer in model.model.layers:
        packed = bnb.nn.Linear4bit(32, 32, bias=False, compute_dtype=torch.float32, quant_type="nf4")
        packed.weight = bnb.nn.Params4bit(layer.self_attn.q_proj.weight.data, requires_grad=False, quant_type="nf4")
        packed.support_avx512bf16_for_cpu = False  # it would round the scales of these weights to bf16, for good
        layer.self_attn.q_proj = packed.to(CPU)
    found, plain = (complete(engine, model, Sampling(max_tokens=12)) for engine in ("graph", "hf"))
    assert [one.tokens for one in found] == [one.tokens for one in plain]
