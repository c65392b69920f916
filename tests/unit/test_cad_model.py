"""A CAD-MLLM: what stands in which place, what its loss counts, and what its parts begin with."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from tiny_cad_models import BOTH, DINOV2, POINTS, SHAPE, VISION, batch, built, cad_spec
from tiny_models import equal_weights
from torch import Tensor
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, CLIPConfig, CLIPModel

from zerofit.config.errors import UserError
from zerofit.config.model import Points
from zerofit.measure.flops import training_flops_per_sample
from zerofit.models.cad_mllm import CadMllm
from zerofit.models.point_encoder import PointEncoder, fourier_features

ENCODER = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "patch_size": 4,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "dinov2": {"model_type": "dinov2", **DINOV2},
    "registers": {"model_type": "dinov2_with_registers", **DINOV2, "num_register_tokens": 2},
    "vit": {"model_type": "vit", **ENCODER},
    "clip": {"model_type": "clip_vision_model", **ENCODER},
    "siglip": {"model_type": "siglip_vision_model", **ENCODER},
}


@pytest.fixture(scope="module")
def model() -> CadMllm:
    return built(cad_spec(**BOTH)).eval()


def test_places_are_filled_in_the_order_of_rows(model: CadMllm) -> None:
    given = batch()
    assert (model.point_tokens, model.image_tokens) == (3, 4)
    with torch.no_grad():
        tokens = model.embed(given["input_ids"], given["slots"], given["points"], given["images"])
        cloud = model.point_projector(model.points(given["points"]))
        # One at a time: their order in the batch plays no part. The first vector is the class token's.
        hidden = [model.vision(pixel_values=one[None]).last_hidden_state[:, 1:] for one in given["images"]]
        patches = [model.image_projector(one)[0] for one in hidden]
        text = model.language.get_input_embeddings()(given["input_ids"])
    close = {"rtol": 1e-5, "atol": 1e-6}
    torch.testing.assert_close(tokens[0, :3], cloud[0], **close)
    torch.testing.assert_close(tokens[0, 3:7], patches[0], **close)
    torch.testing.assert_close(tokens[1, 2:6], patches[1], **close)
    torch.testing.assert_close(tokens[1, 6:10], patches[2], **close)
    here = given["slots"] == 0
    assert torch.equal(tokens[here], text[here])
    assert not torch.allclose(patches[1], patches[2], atol=1e-3)


def test_each_image_of_a_row_counts_in_its_order_and_for_its_row_alone(model: CadMllm) -> None:
    given = {name: value for name, value in batch().items() if name != "labels"}
    first, second, third = given["images"]
    with torch.no_grad():
        right = model(**given)["logits"]
        another = model(**given | {"images": torch.stack([first, second, third.flip(2)])})["logits"]
        exchanged = model(**given | {"images": torch.stack([first, third, second])})["logits"]
    for other in (another, exchanged):
        assert torch.equal(other[0, :13], right[0, :13])
        assert not torch.allclose(other[1, -4:], right[1, -4:], atol=1e-3)


def test_what_stands_in_a_place_is_not_looked_at(model: CadMllm) -> None:
    given = batch()
    other = given | {"input_ids": torch.where(given["slots"] > 0, 7, given["input_ids"])}
    assert torch.equal(model(**given)["total"], model(**other)["total"])


def test_places_and_clouds_have_to_agree(model: CadMllm) -> None:
    given = batch()
    with pytest.raises(AssertionError, match="3 places for features"):
        model(**given | {"points": torch.zeros(2, 16, 6)})


def test_the_loss_is_of_targets_alone_each_after_what_is_before_it(model: CadMllm) -> None:
    given = batch()
    out = model(**given)
    logits = model(**{name: value for name, value in given.items() if name != "labels"})["logits"]
    assert logits.shape == (2, 14, 40)
    wanted = F.cross_entropy(logits[:, :-1].flatten(0, 1), given["labels"][:, 1:].flatten(), reduction="sum")
    torch.testing.assert_close(out["total"], wanted)
    assert out["targets"] == 7
    assert out["right"] == (logits[:, :-1].argmax(dim=2) == given["labels"][:, 1:]).sum()
    torch.testing.assert_close(out["loss"], wanted / 7)
    torch.testing.assert_close(model(**given, num_items_in_batch=50)["loss"], wanted / 50)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_padding_changes_nothing_with_a_mask_and_where_flash_attention_reads_none(precision: str) -> None:
    model = built(cad_spec(**BOTH).model_copy(update={"precision": precision})).eval()  # its weights are float32
    masks: list[Tensor | None] = []
    model.language.register_forward_pre_hook(
        lambda _, args, given: masks.append(given["attention_mask"]), with_kwargs=True
    )
    given = batch()
    alone = {name: given[name][:1, :13] for name in ("input_ids", "labels", "attention_mask", "slots")}
    longer = {name: F.pad(value, (0, 5), value=-100 if name == "labels" else 0) for name, value in alone.items()}
    shown = {"points": given["points"], "images": given["images"][:1]}
    torch.testing.assert_close(model(**alone, **shown)["total"], model(**longer, **shown)["total"])
    del alone["labels"], longer["labels"]  # to generate, rows are filled up on the left
    early = {name: F.pad(value, (5, 0)) for name, value in alone.items()}
    torch.testing.assert_close(model(**alone, **shown)["logits"], model(**early, **shown)["logits"][:, 5:])
    assert [mask is None for mask in masks] == [precision == "bf16"] * 2 + [False] * 2


def test_a_batch_without_targets_has_a_loss_of_zero(model: CadMllm) -> None:
    given = batch()
    out = model(**given | {"labels": torch.full_like(given["labels"], -100)})
    assert out["loss"] == out["total"] == out["targets"] == 0
    out["loss"].backward()
    model.zero_grad()


@pytest.mark.parametrize("frozen", [False, True])
def test_what_stands_in_for_nothing_adds_nothing_and_all_gradients_are_there(frozen: bool) -> None:
    rules = [{"pattern": r"^vision\.", "freeze": True}, "."] if frozen else None
    model, given = built(cad_spec(**BOTH, trainable=rules)), batch()
    text = {name: given[name] for name in ("input_ids", "labels", "attention_mask")}
    gradients = []
    for shown in ({}, {"points": torch.zeros(1, 5, 6), "images": torch.zeros(1, 3, 8, 8)}, {"images": given["images"]}):
        model.zero_grad()
        out = model(**text, **shown)
        plain = model.language(input_ids=text["input_ids"], attention_mask=text["attention_mask"]).logits
        wanted = F.cross_entropy(plain[:, :-1].flatten(0, 1), text["labels"][:, 1:].flatten(), reduction="sum")
        torch.testing.assert_close(out["total"], wanted)
        out["loss"].backward()
        gradients.append({name: one.grad for name, one in model.named_parameters() if one.requires_grad})
    for name, gradient in gradients[0].items():
        assert gradient is not None, name
        assert bool(gradient.any()) == name.startswith("language."), name
        assert all(torch.equal(other[name], gradient) for other in gradients), name
    assert any(name.startswith("vision.") for name in gradients[0]) != frozen


def test_recomputation_changes_no_gradient_where_the_embedding_is_frozen() -> None:
    def gradients(mode: str) -> dict[str, Tensor]:
        lora = {"rank": 2, "alpha": 4}
        model = built(cad_spec(**BOTH, lora=lora, strategy={"activation_checkpointing": mode}))
        model(**batch())["loss"].backward()
        return {name: one.grad for name, one in model.named_parameters() if one.grad is not None}

    plain, recomputed = gradients("none"), gradients("full")
    assert plain.keys() == recomputed.keys()
    assert any(".lora_" in name and one.any() for name, one in plain.items())
    for name, one in plain.items():
        torch.testing.assert_close(recomputed[name], one)


def test_fresh_weights_are_of_the_seed_and_the_name_alone() -> None:
    model = built(cad_spec(**BOTH))
    assert equal_weights(model, built(cad_spec(**BOTH)))
    assert not equal_weights(model, built(cad_spec(seed=1, **BOTH)))
    without = dict(built(cad_spec(points=POINTS)).named_parameters())
    assert all(torch.equal(model.get_parameter(name), value) for name, value in without.items())
    assert model.vision.encoder.layer[0].layer_scale1.lambda1.eq(1.0).all()  # as DINOv2 has it
    assert model.points.norm.weight.eq(1.0).all()
    assert not model.points.embedding.bias.any()
    assert 0.01 < model.points.latents.std() < 0.03


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("pool", [1, 2])
def test_encoders_of_several_families(family: str, pool: int) -> None:
    """What is trained of them has a gradient: DDP would wait for it."""
    model = built(cad_spec(vision={"shape": FAMILIES[family], "image_size": 16, "pool": pool}))
    assert model.image_tokens == 16 // pool**2
    ids = torch.randint(4, 40, (1, 20))
    slots = torch.tensor([[2] * model.image_tokens + [0] * (20 - model.image_tokens)])
    model(ids, labels=ids, slots=slots, images=torch.randn(1, 3, 16, 16))["loss"].backward()
    trained = [name for name, one in model.named_parameters() if one.requires_grad]
    assert [name for name in trained if model.get_parameter(name).grad is None] == []
    idle = {name for name, one in model.named_parameters() if not one.requires_grad}
    assert idle == model.idle
    assert all(name.startswith("vision.") for name in idle)
    assert any("layers.1" in name or "layer.1" in name for name in trained if name.startswith("vision."))


def test_pooled_tokens_are_means_of_neighbours() -> None:
    fine, coarse = (built(cad_spec(vision={**VISION, "image_size": 16, "pool": pool})) for pool in (1, 2))
    images = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    seen: list[Tensor] = []
    for model in (fine, coarse):
        model.image_projector.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
        slots = torch.full((1, model.image_tokens), 2)
        with torch.no_grad():
            model.embed(torch.zeros_like(slots), slots, images=images)
    squares = seen[0].unflatten(1, (2, 2, 2, 2)).mean(dim=(2, 4))  # rows, rows in a square, columns, ...
    torch.testing.assert_close(seen[1], squares.flatten(1, 2))


def test_adapters_are_of_the_language_model_and_the_image_encoder_stays_as_it_is() -> None:
    model = built(cad_spec(**BOTH, lora={"rank": 2}))
    trained = {name for name, one in model.named_parameters() if one.requires_grad}
    assert {name.split(".")[0] for name in trained} == {"language", "points", "image_projector", "point_projector"}
    assert all(".lora_" in name for name in trained if name.startswith("language."))
    assert not any(".lora_" in name for name, _ in model.named_parameters() if not name.startswith("language."))
    assert all(".lora_" in name for name in trained_of(cad_spec(lora={"rank": 2})))


def trained_of(spec: Any) -> set[str]:
    return {name for name, one in built(spec).named_parameters() if one.requires_grad}


def test_each_stack_of_blocks_is_a_unit() -> None:
    model = built(cad_spec(**BOTH))
    assert [len(stack) for stack in model.stacks] == [3, 2, 2]  # the first block of points is the one that crosses
    assert [len(stack) for stack in built(cad_spec()).stacks] == [2]
    assert model.depth_of("language.model.layers.1.mlp.up_proj.weight") == 2
    assert model.depth_of("language.model.embed_tokens.weight") == 0
    assert model.depth_of("vision.embeddings.cls_token") == model.depth_of("language.model.norm.weight") == 3


def test_flops_of_a_sample_are_not_told(model: CadMllm) -> None:
    assert training_flops_per_sample(model) is None


def test_points_in_any_order_give_the_same_and_their_bits_do_as_well() -> None:
    encoder, cloud = built(cad_spec(points=POINTS)).points, batch()["points"]
    with torch.no_grad():
        right = encoder(cloud)
        assert right.shape == (1, 3, 12)
        torch.testing.assert_close(encoder(cloud.flip(1)), right)
        assert torch.equal(encoder(cloud.view(torch.int32)), right)
        assert not torch.allclose(encoder(cloud.neg()), right, atol=1e-3)


def test_fourier_features_are_sines_and_cosines_of_octaves() -> None:
    point = [0.5, -0.25, 0.125, 0.0, 0.6, 0.8]
    found = fourier_features(torch.tensor([[point]]), 2)[0, 0].tolist()
    angles = [math.pi * 2**k * x for x in point[:3] for k in range(2)]
    assert found == pytest.approx([*point, *map(math.sin, angles), *map(math.cos, angles)], abs=1e-6)


def test_parts_come_from_where_the_recipe_says(tmp_path: Path) -> None:
    torch.manual_seed(3)
    encoder = AutoModel.from_config(AutoConfig.for_model("dinov2", **DINOV2, image_size=8))
    encoder.save_pretrained(tmp_path / "vision")
    points = PointEncoder(Points(**POINTS), torch.float32)
    torch.nn.init.normal_(points.latents)
    save_file(points.state_dict(), tmp_path / "points.safetensors")
    save_file({f"points.{name}": one for name, one in points.state_dict().items()}, tmp_path / "run.safetensors")
    language = AutoModelForCausalLM.from_config(AutoConfig.for_model(**SHAPE))
    language.save_pretrained(tmp_path / "language")
    for file in ("points.safetensors", "run.safetensors"):
        model = built(
            cad_spec(
                pretrained=str(tmp_path / "language"),
                vision={"pretrained": str(tmp_path / "vision"), "image_size": 8},
                points={**POINTS, "pretrained": str(tmp_path / file)},
            )
        )
        assert equal_weights(model.vision, encoder)
        assert equal_weights(model.points, points)
        assert equal_weights(model.language, language)


def test_the_image_encoder_of_a_published_clip(tmp_path: Path) -> None:
    """Its config.json and its weights are of text, too."""
    sizes = {**ENCODER, "image_size": 16}
    clip = CLIPModel(CLIPConfig(vision_config=sizes, text_config={"hidden_size": 16, "num_hidden_layers": 1}))
    clip.save_pretrained(tmp_path)
    model = built(cad_spec(vision={"pretrained": str(tmp_path)}))
    assert (model.image_size, model.image_tokens) == (16, 16)
    images = torch.randn(1, 3, 16, 16)
    with torch.no_grad():
        right = clip.vision_model(pixel_values=images).last_hidden_state
        assert torch.equal(model.vision(pixel_values=images).last_hidden_state, right)


def test_dinov2_sees_other_sizes_than_it_was_made_for(tmp_path: Path) -> None:
    AutoModel.from_config(AutoConfig.for_model("dinov2", **DINOV2, image_size=32)).save_pretrained(tmp_path / "dino")
    assert built(cad_spec(vision={"pretrained": str(tmp_path / "dino"), "image_size": 8})).image_tokens == 4
    AutoModel.from_config(AutoConfig.for_model(**FAMILIES["vit"], image_size=32)).save_pretrained(tmp_path / "vit")
    assert built(cad_spec(vision={"pretrained": str(tmp_path / "vit")})).image_tokens == 64
    with pytest.raises(UserError, match="makes no patches of images of 8 pixels"):
        built(cad_spec(vision={"pretrained": str(tmp_path / "vit"), "image_size": 8}))


def test_parts_that_do_not_fit_are_named(tmp_path: Path) -> None:
    points = PointEncoder(Points(**{**POINTS, "latents": 4}), torch.float32).state_dict()
    save_file(points, tmp_path / "four.safetensors")
    with pytest.raises(UserError, match=r"latents has shape \(4, 12\) there, but \(3, 12\)"):
        built(cad_spec(points={**POINTS, "pretrained": str(tmp_path / "four.safetensors")}))
    del points["norm.weight"]
    save_file(points, tmp_path / "less.safetensors")
    with pytest.raises(UserError, match=r"lacks norm\.weight"):
        built(cad_spec(points={**POINTS, "latents": 4, "pretrained": str(tmp_path / "less.safetensors")}))
    with pytest.raises(UserError, match="is no file"):
        built(cad_spec(points={**POINTS, "pretrained": str(tmp_path / "none.safetensors")}))
    with pytest.raises(UserError, match=r"model\.vision\.shape: hiden_size is no field"):
        built(cad_spec(vision={"shape": {**DINOV2, "hiden_size": 3}, "image_size": 8}))
    with pytest.raises(UserError, match=r"image_size is no field of a bert config"):
        built(cad_spec(vision={"shape": {"model_type": "bert", "hidden_size": 16, "patch_size": 4}, "image_size": 8}))


def test_a_stage_adds_encoders_to_what_an_earlier_one_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = built(cad_spec(points=POINTS, seed=5))
    save_file({name: one.clone() for name, one in first.state_dict().items()}, tmp_path / "model.safetensors")
    second = built(cad_spec(**BOTH).model_copy(update={"origin": tmp_path / "model.safetensors"}))
    assert equal_weights(second.language, first.language)
    assert equal_weights(second.points, first.points)
    assert "drawn fresh" in capsys.readouterr().out
    partly = {name: one.clone() for name, one in second.state_dict().items() if name != "vision.layernorm.weight"}
    save_file(partly, tmp_path / "partly.safetensors")
    with pytest.raises(UserError, match=r"lacks vision\.layernorm\.weight"):
        built(cad_spec(**BOTH).model_copy(update={"origin": tmp_path / "partly.safetensors"}))


def test_a_language_model_is_an_origin_as_well(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(4)
    language = AutoModelForCausalLM.from_config(AutoConfig.for_model(**SHAPE))
    language.save_pretrained(tmp_path / "language")
    encoder = AutoModel.from_config(AutoConfig.for_model("dinov2", **DINOV2, image_size=8))
    encoder.save_pretrained(tmp_path / "vision")
    spec = cad_spec(points=POINTS, vision={"pretrained": str(tmp_path / "vision"), "image_size": 8})
    model = built(spec.model_copy(update={"origin": tmp_path / "language"}))
    assert equal_weights(model.language, language)
    assert equal_weights(model.vision, encoder)
    assert "pretrained " in capsys.readouterr().out
