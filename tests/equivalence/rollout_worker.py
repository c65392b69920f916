"""One rank of a start: generates amid training, under each engine.

    python rollout_worker.py WORKS.json    # under `starts.run_script`

Each work is a strategy, `:lora` behind it where the model has adapters, `:nf4` where these are over weights in 4 bits,
and `:bf16`. All have the same tiny language model. It trains, once as it is and once generating before every step.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from cases import VIT, plan, recipe
from peft import LoraConfig, inject_adapter_in_model
from ranks import be_rank
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import Qwen3Config, Qwen3ForCausalLM
from transformers.initialization import no_init_weights

from zerofit.config.grpo import Sampling
from zerofit.generate.generator import make_generator
from zerofit.generate.mode import evaluating
from zerofit.launch.environment import World
from zerofit.models.quantised import linear_layers, pack, packed_layers
from zerofit.models.recompute import apply_checkpointing
from zerofit.train.placements import PackedPlacement

LIMIT = 300
STEPS = 2
CPU = torch.device("cpu")
SHAPE = {
    "vocab_size": 24,
    "hidden_size": 16,
    "intermediate_size": 33,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "tie_word_embeddings": True,
}
PROMPTS = [[5, 6, 7], [8], [9, 10, 11, 12, 13], [14, 15]]


class Tiny(Qwen3ForCausalLM):
    """What placements look at besides."""

    blocks_name, frozen_dtype = "model.layers", None

    @property
    def blocks(self) -> nn.ModuleList:
        return self.model.layers

    @property
    def stacks(self) -> tuple[nn.ModuleList, ...]:
        return (self.model.layers,)


class Collectives(TorchDispatchMode):
    """Counts what is sent."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func.namespace == "c10d"
        return func(*args, **(kwargs or {}))


def config() -> Qwen3Config:
    return Qwen3Config(**SHAPE, attn_implementation="sdpa", eos_token_id=None, bos_token_id=None)


def adapted(model: Tiny, kind: str) -> Tiny:
    """With adapters on all linear layers of the blocks, which then train alone."""
    if kind == "nf4":
        with torch.device("meta"):
            plain = Tiny(config())
        pack(model, linear_layers(plain), torch.float32)
    if kind:
        adapters = LoraConfig(r=2, target_modules=r".*_proj", init_lora_weights=False)
        inject_adapter_in_model(adapters, model.model.layers)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(".lora_" in name)
    return model


def right_weights(kind: str) -> dict[str, Tensor]:
    torch.manual_seed(0)
    weights = adapted(Tiny(config()), kind and "lora").state_dict()
    return {name: value * 6 if value.ndim > 1 else value for name, value in weights.items()}


def built(work: str) -> tuple[Any, Any, Any]:
    """The product's engine, what is trained, and its optimizer."""
    from zerofit.train.strategy import engine_for

    strategy, *kinds = work.split(":")
    how: Any = {"name": strategy, "precision": "bf16"} if "bf16" in kinds else strategy
    made = recipe(VIT, how, train={"micro_batch": 2, "global_batch": 4})
    engine: Any = engine_for(plan(made, dist.get_world_size(), Path("unused")), CPU)
    placement = engine.placement()
    adapters = next((kind for kind in kinds if kind in ("lora", "nf4")), "")
    if adapters == "nf4" and strategy.startswith("zero3"):
        placement = PackedPlacement(engine)
    values = right_weights(adapters)
    with no_init_weights(), placement.building():
        model = adapted(Tiny(config()), adapters)
    apply_checkpointing(model, "full")
    placement.shard(model)
    for name, buffer in Tiny(config()).named_buffers():
        owner, _, leaf = name.rpartition(".")
        model.get_submodule(owner)._buffers[leaf] = buffer
    packed = dict(packed_layers(model))
    for name, parameter in model.named_parameters():
        placement.write(parameter, packed[name].take(values[name]) if name in packed else values[name])
    model.train()
    optimizer = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], lr=1e-2)
    if strategy.startswith("zero"):
        import deepspeed

        wrapped = deepspeed.initialize(
            model=model, optimizer=optimizer, config=engine.spec.deepspeed, dist_init_required=False
        )[0]
        return engine, wrapped, wrapped
    if strategy == "ddp":
        return engine, nn.parallel.DistributedDataParallel(model), optimizer
    return engine, model, optimizer


def step(index: int, engine: Any, wrapped: Any, optimizer: Any) -> float:
    """One training step; this rank's loss."""
    tokens = torch.randint(24, (4, 9), generator=torch.Generator().manual_seed(index))
    own = tokens.chunk(dist.get_world_size())[dist.get_rank()]
    with engine.autocast():
        logits = wrapped(input_ids=own[:, :-1], use_cache=False).logits
    loss = nn.functional.cross_entropy(logits.float().flatten(0, 1), own[:, 1:].flatten())
    if optimizer is wrapped:
        wrapped.backward(loss)
        wrapped.step()
    else:
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return loss.item()


def generate(engine: Any, wrapped: Any, tokens: int, name: Any = "graph") -> tuple[list[Any], int]:
    """Completions of a rank's prompts, and how often the ranks have spoken."""
    generator = make_generator(name, CPU, pad=0, stops=[3], batch=2)
    rank = dist.get_rank()
    with Collectives() as spoken, engine.rollout(wrapped) as model:
        assert not model.training
        assert all(type(parameter.data) is Tensor for parameter in model.parameters())
        # A rank that is done early waits for nobody.
        found = generator(model, PROMPTS[rank:], range(len(PROMPTS))[rank:], Sampling(max_tokens=tokens))
    assert wrapped.training
    return [[one.tokens, one.logprobs] for one in found], spoken.count


def computes_the_same(engine: Any, wrapped: Any) -> None:
    """The model of a rollout is the one that trains, bit by bit, in its precision."""
    tokens = torch.tensor(PROMPTS[2:3])
    with evaluating(wrapped), engine.autocast():
        right = wrapped(input_ids=tokens, use_cache=False).logits.clone()
    engine.settle(wrapped)
    with engine.rollout(wrapped) as model:
        assert torch.equal(model(input_ids=tokens, use_cache=False).logits, right)


def train(work: str) -> dict[str, Any]:
    plain = built(work)
    losses = [step(index, *plain) for index in range(STEPS)]
    engine, wrapped, optimizer = built(work)
    completions, spoken, disturbed = [], [], []
    for index in range(STEPS):
        computes_the_same(engine, wrapped)
        found, count = generate(engine, wrapped, 20)
        completions.append(found)
        others, plainly = generate(engine, wrapped, 20, "hf")
        assert work.endswith(":bf16") or [tokens for tokens, _ in others] == [tokens for tokens, _ in found]
        spoken.append([generate(engine, wrapped, 3)[1], count, plainly])
        disturbed.append(step(index, engine, wrapped, optimizer))
    weights = [engine.whole_weights(one) for one in (plain[1], wrapped)]
    same = dist.get_rank() > 0 or all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    return {"losses": losses, "disturbed": disturbed, "same": same, "completions": completions, "spoken": spoken}


def main() -> None:
    path = Path(sys.argv[1])
    works = json.loads(path.read_text())

    def body(world: World) -> None:
        from zerofit.launch import workarounds

        workarounds.quiet()
        if any(work.startswith("zero") for work in works):
            workarounds.apply()
        outcomes = {work: train(work) for work in works}
        path.with_suffix(f".{world.rank}.json").write_text(json.dumps(outcomes))
        dist.barrier()

    be_rank(path.parent / "logs", body, LIMIT)


if __name__ == "__main__":
    main()
