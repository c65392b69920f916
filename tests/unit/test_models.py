"""Building: shapes, pretrained weights, buffers, dtypes, placements, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import load_file, save_file
from tiny_models import CPU, GPT2, LLAMA, QWEN3, VIT, build, equal_weights, pixels, tiny_spec
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    PreTrainedModel,
    ViTForImageClassification,
    ViTModel,
)

from zerofit.config.errors import UserError
from zerofit.models.build import build_model
from zerofit.models.classifier import ImageClassifier
from zerofit.models.placement import WholePlacement
from zerofit.models.vit import resize_positions

MIXTRAL = {**LLAMA, "model_type": "mixtral", "num_local_experts": 3}
OPT = {
    "model_type": "opt",
    "hidden_size": 32,
    "word_embed_proj_dim": 16,
    "do_layer_norm_before": False,
    "ffn_dim": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 40,
    "max_position_embeddings": 64,
}
APERTUS = {name: value for name, value in LLAMA.items() if name != "max_position_embeddings"}
APERTUS |= {"model_type": "apertus"}  # stores buffers, and has parameters that transformers cannot initialise


def saved(directory: Path, model: PreTrainedModel, **options: Any) -> dict[str, Any]:
    model.save_pretrained(directory, **options)
    return {"pretrained": str(directory)}


def config_of(fields: dict[str, Any], **changes: Any) -> Any:
    return AutoConfig.for_model(**{**fields, **changes})


@pytest.mark.parametrize("pool", ["mean", "last", "cls"])
@pytest.mark.parametrize("mask", ["causal", "bidirectional"])
def test_patch_lm_gives_float32_logits(pool: str, mask: str) -> None:
    model = build({"kind": "patch_lm", "shape": QWEN3, "pool": pool, "attention_mask": mask})
    logits = model(pixels())
    assert logits.shape == (2, 5)
    assert logits.dtype == torch.float32
    assert (model.patches, model.tokens) == (16, 17 if pool == "cls" else 16)
    assert model.causal == (mask == "causal")
    assert not any("embed_tokens" in name or "lm_head" in name for name, _ in model.named_parameters())
    assert set(model.state_dict()) == {name for name, _ in model.named_parameters()}


def test_the_pooled_token_sees_every_patch_under_a_causal_mask() -> None:
    for pool in ("last", "cls"):
        images = pixels().requires_grad_()
        build({"kind": "patch_lm", "shape": QWEN3, "pool": pool})(images).sum().backward()
        assert images.grad is not None
        assert (images.grad.abs().amax(dim=1) > 0).all()


def test_vit_is_transformers_vit(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = config_of(VIT, image_size=8, id2label={0: "a", 1: "b"}, label2id={"a": 0, "b": 1})
    whole = ViTForImageClassification(config).eval()
    model = build({"kind": "vit", **saved(tmp_path, whole)}, classes=2).eval()
    with torch.no_grad():
        model.head.load_state_dict(whole.classifier.state_dict())
        torch.testing.assert_close(model(pixels()), whole(pixels()).logits)


def published_vit(directory: Path) -> dict[str, Any]:
    """A ViT whose files carry the names that published checkpoints have, whatever transformers calls them now."""
    model = ViTModel(config_of(VIT, image_size=8))
    saved(directory, model)
    names = list(load_file(directory / "model.safetensors"))
    assert any("encoder.layer.0.attention.attention.query" in name for name in names), names
    return {"pretrained": str(directory)}


def test_published_vit_names_are_understood(tmp_path: Path) -> None:
    origin = published_vit(tmp_path)
    model = build({"kind": "vit", **origin})
    reference = ViTModel.from_pretrained(tmp_path, add_pooling_layer=False)
    assert equal_weights(model.backbone, reference)


@pytest.mark.parametrize("headless", [False, True])
@pytest.mark.parametrize("shape", [QWEN3, GPT2, OPT, MIXTRAL, APERTUS], ids=lambda shape: shape["model_type"])
def test_pretrained_decoders_equal_from_pretrained(tmp_path: Path, shape: dict[str, Any], headless: bool) -> None:
    torch.manual_seed(1)
    auto = AutoModel if headless else AutoModelForCausalLM
    options = {"max_shard_size": "20KB"}  # several files and an index
    origin = saved(tmp_path, auto.from_config(config_of(shape, tie_word_embeddings=False)), **options)
    assert (tmp_path / "model.safetensors.index.json").exists()
    model = build({"kind": "patch_lm", **origin})
    reference = AutoModel.from_pretrained(tmp_path).eval()
    reference.config.use_cache = False
    own = {**dict(model.backbone.named_parameters()), **dict(model.backbone.named_buffers())}
    theirs = {**dict(reference.named_parameters()), **dict(reference.named_buffers())}
    theirs = {name: p for name, p in theirs.items() if p is not reference.get_input_embeddings().weight}
    assert own.keys() == theirs.keys()
    assert all(torch.equal(own[name], theirs[name]) for name in own)
    embeddings = torch.randn(1, 6, reference.get_input_embeddings().embedding_dim)
    with torch.no_grad():
        ours = model.eval().backbone(inputs_embeds=embeddings)
        torch.testing.assert_close(ours.last_hidden_state, reference(inputs_embeds=embeddings).last_hidden_state)
    assert ours.past_key_values is None


def test_pretrained_parts_do_not_depend_on_the_seed_and_fresh_parts_do(tmp_path: Path) -> None:
    origin = saved(tmp_path, AutoModel.from_config(config_of(QWEN3)))
    one, other = (build({"kind": "patch_lm", **origin, "pool": "cls"}, seed=seed) for seed in (1, 2))
    assert equal_weights(one.backbone, other.backbone)
    for name in ("head.weight", "patch_embedding.weight", "cls_token"):
        assert not torch.equal(one.get_parameter(name), other.get_parameter(name))


def test_positions_are_resampled_once_for_another_image_size(tmp_path: Path) -> None:
    origin = published_vit(tmp_path)
    model = build({"kind": "vit", "image_size": 12, **origin}, image_size=12).eval()
    reference = ViTModel.from_pretrained(tmp_path, add_pooling_layer=False).eval()
    with torch.no_grad():
        expected = reference(pixels(size=12), interpolate_pos_encoding=True).last_hidden_state[:, 0]
        torch.testing.assert_close(model.features(pixels(size=12)), expected)


def test_resampling_keeps_a_constant_grid_and_the_class_token() -> None:
    positions = torch.cat([torch.full((1, 1, 4), 7.0), torch.full((1, 9, 4), 2.0)], dim=1)
    resampled = resize_positions(positions, 25)
    torch.testing.assert_close(resampled[:, 1:], torch.full((1, 25, 4), 2.0))
    assert torch.equal(resampled[:, 0], positions[:, 0])


def test_dropout_sets_every_dropout() -> None:
    gpt2 = build({"kind": "patch_lm", "shape": GPT2, "dropout": 0.25})
    rates = {module.p for module in gpt2.modules() if isinstance(module, torch.nn.Dropout)}
    assert rates == {0.25}
    config = build({"kind": "vit", "shape": VIT, "dropout": 0.5}).config
    assert (config.hidden_dropout_prob, config.attention_probs_dropout_prob) == (0.5, 0.5)
    assert build({"kind": "patch_lm", "shape": GPT2}).config.resid_pdrop == 0.0


def test_attention_kernels_agree() -> None:
    for model in ({"kind": "vit", "shape": VIT}, {"kind": "patch_lm", "shape": QWEN3}):
        logits = {kernel: build({**model, "attention": kernel})(pixels()) for kernel in ("auto", "sdpa", "eager")}
        torch.testing.assert_close(logits["sdpa"], logits["eager"])
        assert torch.equal(logits["auto"], logits["sdpa"])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_weights_and_exact_rotary_frequencies(dtype: torch.dtype) -> None:
    spec = tiny_spec({"kind": "patch_lm", "shape": QWEN3})
    model = build_model(spec, WholePlacement(CPU, dtype), dtype)
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    exact = build({"kind": "patch_lm", "shape": QWEN3}).backbone.rotary_emb.inv_freq
    assert torch.equal(model.backbone.rotary_emb.inv_freq, exact)
    assert torch.equal(model.to(dtype).backbone.rotary_emb.inv_freq, exact)  # what DeepSpeed's engine does
    logits = model(pixels())
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, build({"kind": "patch_lm", "shape": QWEN3})(pixels()), rtol=0.1, atol=0.05)


@pytest.mark.parametrize("model", [{"kind": "vit", "shape": VIT}, {"kind": "patch_lm", "shape": QWEN3, "pool": "cls"}])
def test_float32_weights_under_autocast(model: dict[str, Any]) -> None:
    classifier = build_model(tiny_spec(model), WholePlacement(CPU, torch.float32), torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        logits = classifier(pixels())
    assert logits.dtype == torch.float32
    logits.sum().backward()
    assert all(parameter.grad is not None for parameter in classifier.parameters())


class MetaPlacement(WholePlacement):
    """Constructs everything, buffers included, on the meta device, and counts what is written."""

    def __init__(self) -> None:
        super().__init__(CPU, torch.float32)
        self.written: list[int] = []

    def building(self) -> AbstractContextManager[Any]:
        return torch.device("meta")

    def shard(self, model: ImageClassifier) -> None:
        assert all(parameter.is_meta for parameter in model.parameters())
        model.to_empty(device=CPU)

    def write(self, parameter: Tensor, value: Tensor) -> None:
        self.written.append(value.numel())
        super().write(parameter, value)


@pytest.mark.parametrize("origin", ["fresh", "pretrained"])
def test_a_meta_build_has_the_same_weights_and_buffers(tmp_path: Path, origin: str) -> None:
    model: dict[str, Any] = {"kind": "patch_lm", "shape": QWEN3, "pool": "cls"}
    if origin == "pretrained":
        model = {"kind": "patch_lm", "pool": "cls", **saved(tmp_path, AutoModel.from_config(config_of(QWEN3)))}
    placement = MetaPlacement()
    built = build_model(tiny_spec(model), placement, torch.float32)
    assert equal_weights(built, build(model))
    assert sorted(placement.written) == sorted(parameter.numel() for parameter in built.parameters())


def test_depths_grow_from_embeddings_to_head() -> None:
    model = build({"kind": "patch_lm", "shape": OPT, "pool": "cls"})
    depths = {name: model.depth_of(name) for name, _ in model.named_parameters()}
    expected = {
        "cls_token": 0,
        "patch_embedding.weight": 0,
        "backbone.decoder.embed_positions.weight": 0,
        "backbone.decoder.project_in.weight": 0,
        "backbone.decoder.layers.0.fc1.weight": 1,
        "backbone.decoder.layers.1.fc1.weight": 2,
        "backbone.decoder.project_out.weight": 3,
        "head.bias": 3,
    }
    assert expected.items() <= depths.items()
    gpt2 = build({"kind": "patch_lm", "shape": GPT2})
    assert [gpt2.depth_of(f"backbone.{name}.weight") for name in ("wpe", "h.0.ln_1", "h.1.mlp.c_fc", "ln_f")] == [
        0,
        1,
        2,
        3,
    ]


def refused(model: dict[str, Any], **plan: Any) -> str:
    with pytest.raises(UserError) as caught:
        build(model, **plan)
    message = str(caught.value)
    assert "\n" not in message
    return message


BROKEN_SHAPES: list[tuple[dict[str, Any], str]] = [
    ({"kind": "patch_lm", "shape": {**QWEN3, "hiden_size": 3}}, "hidden_size"),
    ({"kind": "patch_lm", "shape": {**QWEN3, "hidden_size": "wide"}}, "hidden_size"),
    ({"kind": "patch_lm", "shape": {"model_type": "qwen33"}}, "qwen33"),
    ({"kind": "patch_lm", "shape": {"model_type": "t5"}}, "no decoder language model"),
    ({"kind": "patch_lm", "shape": {"model_type": "bert"}}, "no decoder language model"),
    ({"kind": "patch_lm", "shape": {"model_type": "mpt"}}, "mpt"),
    ({"kind": "patch_lm", "shape": QWEN3, "patch_size": 3}, "does not divide"),
    ({"kind": "patch_lm", "shape": QWEN3, "patch_size": None}, "model.patch_size"),
    ({"kind": "patch_lm", "shape": {**QWEN3, "max_position_embeddings": 8}}, "8 positions"),
    ({"kind": "patch_lm", "shape": {**GPT2, "n_positions": 8}}, "8 positions"),
    ({"kind": "patch_lm", "shape": {"model_type": "bloom"}, "attention": "sdpa"}, "scaled_dot_product"),
    ({"kind": "patch_lm", "shape": QWEN3, "attention": "flash"}, "flash"),
    ({"kind": "patch_lm", "shape": APERTUS}, "no initial value"),
    ({"kind": "vit", "shape": VIT, "patch_size": 5}, "does not divide"),
    ({"kind": "vit", "shape": {**VIT, "num_channels": 1}}, "3 channels"),
]


@pytest.mark.parametrize(("model", "named"), BROKEN_SHAPES, ids=lambda value: value if isinstance(value, str) else "")
def test_impossible_models_are_refused_in_one_line(model: dict[str, Any], named: str) -> None:
    assert named in refused(model)


def test_bidirectional_is_refused_where_no_setting_reaches_the_mask() -> None:
    shape = {"model_type": "gpt_neo", "hidden_size": 32, "num_layers": 1, "attention_types": [[["global"], 1]]}
    assert "qwen3" in refused({"kind": "patch_lm", "shape": shape, "attention_mask": "bidirectional"})


def lacking_tensors(directory: Path) -> None:
    weights = load_file(directory / "model.safetensors")
    for name in ("norm.weight", "layers.1.mlp.up_proj.weight"):
        del weights[name]
    save_file(weights, directory / "model.safetensors")


def another_width(directory: Path) -> None:
    weights = load_file(directory / "model.safetensors")
    weights["norm.weight"] = torch.ones(7)
    save_file(weights, directory / "model.safetensors")


def pickled(directory: Path) -> None:
    (directory / "model.safetensors").rename(directory / "pytorch_model.bin")


def truncated(directory: Path) -> None:
    (directory / "model.safetensors").write_bytes((directory / "model.safetensors").read_bytes()[:-100])


def quantised(directory: Path) -> None:
    config = json.loads((directory / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "fp8"}
    (directory / "config.json").write_text(json.dumps(config))


def without_config(directory: Path) -> None:
    (directory / "config.json").unlink()


def of_unknown_type(directory: Path) -> None:
    (directory / "config.json").write_text('{"model_type": "unheard_of", "auto_map": {"AutoConfig": "x.Config"}}')


def half_index(directory: Path) -> None:
    index = {"weight_map": {"norm.weight": "model-00002-of-00002.safetensors"}}
    (directory / "model.safetensors").unlink()
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))


BROKEN_FILES: list[tuple[Callable[[Path], None], str]] = [
    (lacking_tensors, "layers.1.mlp.up_proj.weight, norm.weight"),
    (another_width, "norm.weight has shape (7,)"),
    (pickled, "pytorch_model.bin, a pickle"),
    (truncated, "broken"),
    (quantised, "quantised"),
    (without_config, "no config.json"),
    (of_unknown_type, "unheard_of"),
    (half_index, "model-00002-of-00002.safetensors is missing"),
]


@pytest.mark.parametrize(("damage", "named"), BROKEN_FILES, ids=lambda value: getattr(value, "__name__", ""))
def test_broken_pretrained_models_are_refused_in_one_line(
    tmp_path: Path, damage: Callable[[Path], None], named: str
) -> None:
    origin = saved(tmp_path, AutoModel.from_config(config_of(QWEN3)))
    damage(tmp_path)
    assert named in refused({"kind": "patch_lm", **origin})


def test_a_missing_directory_is_not_asked_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hub(*_: object, **__: object) -> str:
        raise AssertionError("the hub was asked")

    monkeypatch.setattr("huggingface_hub.snapshot_download", hub)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    (tmp_path / "weights.safetensors").touch()
    for name in ("./qwen3", "../qwen3", "~/nowhere", str(tmp_path / "gone"), "a/b/c", "models/qwen3"):
        assert "does not exist" in refused({"kind": "patch_lm", "pretrained": name})
    assert "is a file" in refused({"kind": "patch_lm", "pretrained": "weights.safetensors"})


def test_a_hub_that_does_not_answer_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def hub(*_: object, **__: object) -> str:
        raise LocalEntryNotFoundError("Got: ConnectError\nCheck your connection.")

    monkeypatch.setattr("huggingface_hub.snapshot_download", hub)
    assert "could not be had from the hub: Got: ConnectError" in refused(
        {"kind": "patch_lm", "pretrained": "some/model"}
    )


def test_a_vit_is_no_decoder_and_keeps_its_patch_size(tmp_path: Path) -> None:
    origin = published_vit(tmp_path)
    assert "no decoder" in refused({"kind": "patch_lm", **origin})
    assert "cannot change" in refused({"kind": "vit", "patch_size": 4, **origin})
    assert build({"kind": "vit", "patch_size": 2, **origin}).tokens == 17


def test_a_decoder_is_no_vit(tmp_path: Path) -> None:
    origin = saved(tmp_path, AutoModel.from_config(config_of(QWEN3)))
    assert "patch_lm" in refused({"kind": "vit", **origin})
