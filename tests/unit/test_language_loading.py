"""Language models from directories: whole, or with their linear layers in 4 bits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM
from transformers.utils.logging import disable_progress_bar, is_progress_bar_enabled

from zerofit.config.errors import UserError
from zerofit.config.grpo import Sampling
from zerofit.data.byte_tokenizer import byte_tokenizer
from zerofit.evaluate.loading import find_model, load_model
from zerofit.generate.generator import make_generator

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    config = Qwen3Config(
        vocab_size=272,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=64,
        eos_token_id=257,
        initializer_range=0.3,
    )
    torch.manual_seed(0)
    disable_progress_bar()
    Qwen3ForCausalLM(config).save_pretrained(path)
    byte_tokenizer().save_pretrained(path)
    return path


def test_a_model_is_loaded_as_it_is(directory: Path) -> None:
    model = load_model(find_model(str(directory)), CPU, torch.bfloat16)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert not model.training
    assert not is_progress_bar_enabled()
    whole = Qwen3ForCausalLM.from_pretrained(directory, dtype=torch.bfloat16)
    for name, value in whole.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name


def test_linear_layers_in_4_bits_write_nearly_the_same(directory: Path) -> None:
    bitsandbytes = pytest.importorskip("bitsandbytes")
    model = load_model(directory, CPU, torch.float32, "nf4")
    held = [type(module).__name__ for name, module in model.named_modules() if name.endswith("_proj")]
    assert held == ["Linear4bit"] * 14
    assert isinstance(model.model.layers[0].mlp.up_proj.weight, bitsandbytes.nn.Params4bit)
    whole = load_model(directory, CPU, torch.float32)
    tokens = torch.arange(20)[None]
    with torch.no_grad():
        ours, theirs = model(tokens).logits, whole(tokens).logits
    assert torch.corrcoef(torch.stack([ours.flatten(), theirs.flatten()]))[0, 1] > 0.9
    sampling, prompts = Sampling(max_tokens=8), [[1, 2, 3], [4]]
    graph, hf = (make_generator(engine, CPU, 258, (257,), None)(model, prompts, [1, 2], sampling) for engine in ENGINES)
    assert [one.tokens for one in graph] == [one.tokens for one in hf]


ENGINES = ("graph", "hf")


def test_what_is_no_model_is_refused(directory: Path, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match="it holds adapters alone: merge them first"):
        find_model(str(tmp_path))
    (tmp_path / "config.json").write_text((directory / "config.json").read_text())
    with pytest.raises(UserError, match="has no tokenizer"):
        find_model(str(tmp_path))
    with pytest.raises(UserError, match="zerofit eval: the directory ./nowhere does not exist"):
        find_model("./nowhere")
