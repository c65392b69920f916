from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from plan_examples import recipe
from transformers import AutoConfig, AutoModelForCausalLM, ViTModel
from transformers.pytorch_utils import Conv1D

from zerofit.config.errors import UserError
from zerofit.config.model import Model
from zerofit.plan.decoder import decoder_of
from zerofit.plan.published import PUBLISHED as PUBLISHED_IDS
from zerofit.plan.shapes import ENCODERS, SHAPES, block_elements, hidden_size, known_fields, resolve_shape

PUBLISHED = {  # parameters: ViTs without head and pooler, decoders with their (perhaps tied) language head
    "vit-tiny": 5_524_416,
    "vit-small": 21_665_664,
    "vit-base": 85_798_656,
    "vit-large": 303_301_632,
    "vit-huge": 630_764_800,
    "qwen3-0.6b": 596_049_920,
    "qwen3-1.7b": 1_720_574_976,
    "qwen3-4b": 4_022_468_096,
    "qwen3-8b": 8_190_735_360,
    "qwen3-14b": 14_768_307_200,
    "deepseek-r1-distill-qwen-1.5b": 1_777_088_000,
    "deepseek-r1-distill-qwen-7b": 7_615_616_512,
    "deepseek-r1-distill-qwen-14b": 14_770_033_664,
    "deepseek-r1-distill-qwen-32b": 32_763_876_352,
    "qwen3-32b": 32_762_123_264,
    "qwen2.5-0.5b": 494_032_768,
    "qwen2.5-1.5b": 1_543_714_304,
    "qwen2.5-3b": 3_085_938_688,
    "qwen2.5-7b": 7_615_616_512,
    "qwen2.5-14b": 14_770_033_664,
    "qwen2.5-32b": 32_763_876_352,
    "qwen2.5-72b": 72_706_203_648,
    "llama-3-8b": 8_030_261_248,
    "llama-3.1-8b": 8_030_261_248,
    "llama-3.1-70b": 70_553_706_496,
    "llama-3.2-1b": 1_235_814_400,
    "llama-3.2-3b": 3_212_749_824,
    "mistral-7b": 7_248_023_552,
    "mistral-7b-v0.1": 7_241_732_096,
    "mistral-nemo-12b": 12_247_782_400,
    "gemma-2-2b": 2_614_341_888,
    "gemma-2-9b": 9_241_705_984,
    "gpt2": 124_439_808,
}


def model(**fields: object) -> Model:
    whole = {"kind": "patch_lm", "shape": None, "patch_size": 2, **fields}
    return recipe(model=whole).model


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_is_the_published_model(name: str) -> None:
    fields = SHAPES[name]
    config = AutoConfig.for_model(**fields)
    for key, value in fields.items():
        assert getattr(config, key) == value, key
    with torch.device("meta"):
        built = ViTModel(config, add_pooling_layer=False) if name.startswith("vit") else None
        built = built or AutoModelForCausalLM.from_config(config)
    parameters = sum(parameter.numel() for parameter in built.parameters())
    if name == "qwen3-tiny":
        assert 0.9e6 < parameters < 1.2e6
    else:
        assert parameters == PUBLISHED[name]
    blocks = max((m for m in built.modules() if isinstance(m, torch.nn.ModuleList)), key=len)
    matrices = sum(p.numel() for p in blocks[0].parameters() if p.ndim == 2)
    assert block_elements(fields) == matrices
    assert hidden_size(fields) == config.hidden_size
    if not name.startswith("vit"):
        sizes = decoder_of(fields)
        assert sizes is not None
        assert (sizes.parameters, sizes.block_matrices) == (parameters, matrices)
        linears = [m for m in blocks[0].named_modules() if isinstance(m[1], (torch.nn.Linear, Conv1D))]
        found = {one: m.weight.shape if isinstance(m, Conv1D) else m.weight.shape[::-1] for one, m in linears}
        assert sizes.linears == {one: tuple(shape) for one, shape in found.items()}


@pytest.mark.parametrize(
    ("kind", "shape", "said"),
    [
        ("vit", "vit-bsae", ["'vit-bsae' is not known", "did you mean vit-base?"]),
        ("vit", "qwen3-8b", ["'qwen3-8b' is no shape of vit", "vit-huge"]),
        ("patch_lm", "qwen-8b", ["did you mean qwen3-8b?"]),
        ("patch_lm", "vit-base", ["is no shape of patch_lm"]),
        ("patch_lm", {"hidden_size": 64}, ["needs model_type"]),
        ("patch_lm", {"model_type": "vit"}, ["'vit' is no shape of patch_lm", "model.kind vit"]),
        ("vit", {"model_type": "llama"}, ["'llama' is no shape of vit", "model.kind patch_lm"]),
    ],
)
def test_a_wrong_shape_is_answered_with_a_right_one(kind: str, shape: object, said: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        resolve_shape(model(kind=kind, shape=shape))
    assert "\n" not in str(caught.value)
    for part in said:
        assert part in str(caught.value)


def test_mappings_are_taken_as_they_are_and_never_shared() -> None:
    given = {"hidden_size": 48, "num_attention_heads": 3}
    assert resolve_shape(model(kind="vit", shape=given)) == given | {"model_type": "vit"}
    first = resolve_shape(model(shape="qwen3-tiny"))
    assert first is not None
    first["rope_parameters"]["rope_theta"] = 1.0
    assert SHAPES["qwen3-tiny"]["rope_parameters"]["rope_theta"] == 1e6


def test_a_model_of_the_hub_is_known_by_its_id() -> None:
    for name, shape in PUBLISHED_IDS.items():
        assert shape in SHAPES or shape in ENCODERS, name
    fields = known_fields(model(pretrained="Qwen/Qwen3-8B"))
    assert fields == SHAPES["qwen3-8b"]
    assert fields is not SHAPES["qwen3-8b"]


def test_a_pretrained_models_fields_come_from_its_directory(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2", "n_embd": 96, "n_head": 4}))
    local = model(pretrained=str(tmp_path))
    assert resolve_shape(local) is None
    assert hidden_size(known_fields(local)) == 96
    assert block_elements(known_fields(local)) == 12 * 96 * 96
    for unknown in ("someone/some-model", str(tmp_path / "missing")):
        assert known_fields(model(pretrained=unknown)) is None
    assert block_elements({"model_type": "odd"}) is None
