"""CAD models as samples: what a row sees, what it learns, that stages share what was made, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cad_directories import SIZE, caption, cloud, deepcad, omni_cad, part, picture, recipe, write_json
from hypothesis import given
from hypothesis import strategies as st

from zerofit.cad import text
from zerofit.config.errors import UserError
from zerofit.config.schema import Recipe
from zerofit.data.byte_tokenizer import byte_tokenizer
from zerofit.data.cad import describe, image_size_of, restore, slots_of
from zerofit.data.cad_clouds import open_clouds
from zerofit.data.cad_inputs import draw_inputs
from zerofit.data.cad_loader import CadCollator, Models
from zerofit.data.cad_order import CadKey
from zerofit.data.cad_samples import open_cad_samples
from zerofit.data.cad_views import open_views, standing_for
from zerofit.plan.slots import IMAGE, POINTS, TEXT

BYTES = byte_tokenizer()
EVERYTHING = {"text": 1, "text+points": 1, "text+points+image": 2}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ZEROFIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "samples"


def refused(asked: Recipe) -> str:
    with pytest.raises(UserError) as error:
        describe(asked)
    assert "\n" not in str(error.value)
    return str(error.value)


def ids(asked: Recipe, split: Any) -> list[str]:
    return [one.id for one in open_cad_samples(describe(asked), split)]


def collator(asked: Recipe) -> CadCollator:
    data = asked.cad
    return CadCollator(258, slots_of(asked), image_size_of(asked), data.mean, data.std)


def test_embedded_parts_become_captions_and_commands() -> None:
    facts = describe(recipe("parts"))
    assert (facts.train, facts.validation, facts.test, facts.validation_from) == (24, 6, 6, "test")
    assert (facts.clouds, facts.images, facts.clouds_in, facts.views_in) == (0.0, 0.0, None, None)
    samples = open_cad_samples(facts, "train")
    assert facts.tokens == sum(len(one.caption) + len(one.commands) for one in samples)
    assert facts.targets == sum(len(one.commands) for one in samples)
    for one in samples:
        assert BYTES.decode(one.caption).endswith("\n")
        written = BYTES.decode(one.commands)
        assert written.endswith("<|im_end|>")
        assert text.write(text.read(written.removesuffix("<|im_end|>"))) == written.removesuffix("<|im_end|>")


def test_stages_share_what_was_made_and_what_is_gone_is_made_again(cache: Path) -> None:
    first = describe(recipe("parts", mix={"text+points": 1}))
    kept = {path.name: path.stat().st_mtime_ns for path in cache.iterdir()}
    second = describe(recipe("parts", mix=EVERYTHING, views=2))
    assert second.clouds_in == first.clouds_in
    assert first.clouds_in is not None
    assert second.views_in is not None
    again = recipe("parts", mix={"text+points": 3, "points+image": 1}, views=2)
    assert describe(again).views_in == second.views_in
    assert set(kept) <= {path.name for path in cache.iterdir()}
    clouds, views = open_clouds(first.clouds_in, 64), open_views(second.views_in)
    assert clouds.shape == (30, 64, 6)
    assert np.abs(clouds[:, :, :3]).max() <= 1.0
    assert np.linalg.norm(clouds[:, :, 3:], axis=-1) == pytest.approx(1.0, abs=1e-5)
    assert len(views) == 30
    assert views.pixels(0, [0])[0].shape == (SIZE, SIZE, 3)
    assert any(not np.array_equal(*views.pixels(row, [0, 1])) for row in range(30))
    before = clouds.tobytes()
    shutil.rmtree(first.clouds_in)
    restore(recipe("parts", mix={"text+points": 1}), first)
    assert open_clouds(first.clouds_in, 64).tobytes() == before


def test_a_batch_has_places_for_what_rows_see_and_learns_the_commands_alone() -> None:
    asked = recipe("parts", mix=EVERYTHING, views=2, views_at_once=[1, 2])
    facts = describe(asked)
    models, slots = Models(asked.cad, facts, "train"), slots_of(asked)
    keys = [CadKey(0, 2, (0, 1)), CadKey(1, 0, (0, 1)), CadKey(2, 1, (0,)), CadKey(3, 2, (1,))]
    batch = collator(asked)([models[key] for key in keys])
    assert {name: value.dtype for name, value in batch.items()} == {
        "input_ids": torch.int64,
        "labels": torch.int64,
        "attention_mask": torch.int64,
        "slots": torch.int64,
        "points": torch.int32,
        "images": torch.float32,
    }
    sizes, shares = models.sizes(slots), asked.cad.shares
    lengths = [int(sizes.of(shares[key.share].inputs, len(key.views))[key.sample]) for key in keys]
    assert batch["attention_mask"].sum(dim=1).tolist() == lengths
    assert batch["input_ids"].shape == (4, max(lengths))
    counts = [[int((row == kind).sum()) for kind in (POINTS, IMAGE)] for row in batch["slots"]]
    assert counts == [[slots.points, 2 * slots.image], [0, 0], [slots.points, 0], [slots.points, slots.image]]
    for row, number in enumerate(range(4)):
        told = models.samples[number]
        learnt = batch["labels"][row] != -100
        assert batch["input_ids"][row][learnt].tolist() == told.commands.tolist()
        assert batch["labels"][row][learnt].tolist() == told.commands.tolist()
        there = batch["attention_mask"][row] == 1
        kinds = batch["slots"][row][there].tolist()
        assert kinds[: len(told.caption)] == [TEXT] * len(told.caption)
        assert batch["input_ids"][row][: len(told.caption)].tolist() == told.caption.tolist()
    clouds, views = open_clouds(facts.clouds_in, 64), open_views(facts.views_in)  # type: ignore[arg-type]
    rows = [models.samples[number].row for number in (0, 2, 3)]
    assert np.array_equal(batch["points"].numpy().view(np.float32), clouds[rows])
    right = [*views.pixels(rows[0], (0, 1)), *views.pixels(rows[2], (1,))]
    assert batch["images"].shape == (3, 3, SIZE, SIZE)
    for image, pixels in zip(batch["images"], right, strict=True):
        shown = (image.permute(1, 2, 0).numpy() * asked.cad.std + asked.cad.mean) * 255
        assert shown == pytest.approx(pixels.astype(float), abs=1e-3)


def test_lengths_are_planned_for_the_most_images_and_tokens_for_the_mean(tmp_path: Path) -> None:
    root = omni_cad(tmp_path / "omni")
    data: dict[str, Any] = {"path": str(root), "validation": 0.25, "mix": {"text": 1, "image": 3}, "views": 4}
    asked = recipe("omni_cad", **data, views_at_once=[1, 4])
    one, facts, image = describe(recipe("omni_cad", **data)), describe(asked), slots_of(asked).image
    assert facts.views_in == one.views_in
    assert (one.images, facts.images) == (0.75, 1.875)
    assert facts.tokens == pytest.approx(one.tokens + facts.train * 0.75 * 1.5 * image, abs=1)
    assert facts.targets == one.targets
    sizes = [open_cad_samples(facts, split).sizes(slots_of(asked)) for split in ("train", "validation")]
    assert facts.longest == max(found.of(share.inputs, 4).max() for found in sizes for share in asked.cad.shares)
    short = recipe("omni_cad", **data, views_at_once=[1, 4], max_length=facts.longest - 1)
    assert f"is short enough: the shortest has {facts.longest}" in refused(short)


@given(st.lists(st.integers(0, 3), min_size=1, unique=True).map(sorted), st.integers(1, 4))
def test_where_a_row_has_fewer_images_none_is_shown_twice_before_all_are(sides, images):
    found = standing_for(sides, images)
    assert len(found) == len(sides)
    assert set(found) <= set(range(images))
    assert len(set(found)) == min(len(sides), images)
    assert found == sorted(found)
    if images > max(sides):
        assert found == sides
    if len(sides) == 1:
        assert found == [sides[0] % images]


def test_models_with_fewer_images_than_rows_see_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = omni_cad(tmp_path / "omni")
    for view in range(2, 8):
        (root / "img" / "0000" / "00000003_00001" / f"00000003_00001_{view:03d}.png").unlink()
    data: dict[str, Any] = {"path": str(root), "validation": 0.25, "mix": {"image": 1}, "views": 4}
    describe(recipe("omni_cad", **data))
    assert not capsys.readouterr().out
    facts = describe(recipe("omni_cad", **data, views_at_once=3))
    said = "data: fewer than 3 images, some of which are shown twice: 00000003_00001 (2)"
    assert capsys.readouterr().out.strip() == said
    assert facts.views_in is not None
    views = open_views(facts.views_in)
    assert [int(one[0, 0, 0]) for one in views.pixels(3, (0, 1, 3))] == [0, 20, 20]
    assert [int(one[0, 0, 0]) for one in views.pixels(2, (0, 1, 3))] == [0, 40, 120]


def test_a_batch_without_clouds_images_or_any_row_has_zeros() -> None:
    asked = recipe("parts")
    models, collate = Models(asked.cad, describe(asked), "test"), collator(asked)
    for rows in ([models[CadKey(0, 0, ())]], [models[CadKey(0, 0, (), valid=False)]]):
        batch = collate(rows)
        assert batch["points"].shape == (1, 1, 6)
        assert batch["images"].shape == (1, 3, SIZE, SIZE)
        assert not batch["points"].any()
        assert not batch["images"].any()
        assert not batch["slots"].any()
    assert (batch["labels"] == -100).all()


def test_prompts_without_text_are_what_is_seen_alone() -> None:
    asked = recipe("parts", mix={"points": 1})
    models = Models(asked.cad, describe(asked), "train")
    batch = collator(asked)([models[CadKey(0, 0, ())]])
    assert batch["slots"][0].tolist() == [POINTS] * 4 + [TEXT] * len(models.samples[0].commands)


def test_both_layouts_are_read_and_files_are_taken_before_the_kernel(tmp_path: Path) -> None:
    root = omni_cad(tmp_path / "omni")
    asked = recipe("omni_cad", path=str(root), validation=0.25, mix=EVERYTHING, views=2, points=128)
    facts = describe(asked)
    assert (facts.train, facts.validation, facts.test, facts.validation_from) == (6, 2, 0, "train")
    assert facts.clouds_in is not None
    assert facts.views_in is not None
    found = open_clouds(facts.clouds_in, 128)
    low, high = found[:, :, :3].min(axis=1), found[:, :, :3].max(axis=1)
    assert high - low == pytest.approx(0.75, abs=0.05)
    assert (low + high) / 2 == pytest.approx(0.375, abs=0.05)
    assert not found[:, :, 3:].any()
    shown = open_views(facts.views_in).pixels(0, (0, 1))
    assert [int(one[0, 0, 0]) for one in shown] == [0, 80]  # of eight the first and the fifth

    of_deepcad = describe(recipe(path=str(deepcad(tmp_path / "deepcad")), validation=0.25))
    commands = {tuple(one.commands.tolist()) for one in open_cad_samples(facts, "train")}
    commands |= {tuple(one.commands.tolist()) for one in open_cad_samples(facts, "validation")}
    for one in open_cad_samples(of_deepcad, "train"):
        assert tuple(one.commands.tolist()) in commands


def test_splits_come_from_their_file_or_are_drawn(tmp_path: Path) -> None:
    root = deepcad(tmp_path / "deepcad")
    held = recipe(path=str(root), validation=0.25)
    train, validation = ids(held, "train"), ids(held, "validation")
    assert sorted(train + validation) == [f"{number:08d}" for number in range(8)]
    assert len(validation) == 2
    assert len(ids(recipe(path=str(root), validation=0.25, limit=3), "train")) == 3
    assert "neither a validation nor a test split" in refused(recipe(path=str(root)))
    splits = {"train": ["0000/00000000", "0000/00000001"], "validation": ["0000/00000003"], "test": ["0000/00000002"]}
    write_json(root / "train_val_test_split.json", splits)
    asked = recipe(path=str(root))
    assert [ids(asked, split) for split in ("train", "validation", "test")] == [
        ["00000000", "00000001"],
        ["00000003"],
        ["00000002"],
    ]
    assert describe(asked).validation_from == "split"


def test_rows_that_are_too_long_are_left_out_and_counted(capsys: pytest.CaptureFixture[str]) -> None:
    whole = describe(recipe("parts"))
    samples = open_cad_samples(whole, "train")
    lengths = sorted(len(one.caption) + len(one.commands) for one in samples)
    facts = describe(recipe("parts", max_length=lengths[11]))
    short = sum(length <= lengths[11] for length in lengths)
    assert (facts.train, facts.left_out, facts.rows) == (short, 24 - short, short)
    noted = [json.loads(line) for line in (facts.samples / "left_out.jsonl").read_text().splitlines()]
    assert len(noted) >= 24 - short
    assert all("max_length is" in one["reason"] for one in noted)
    wider = describe(recipe("parts", max_length=lengths[11], mix={"text": 3, "text+points+image": 1}))
    assert wider.train < short  # what a row may see counts, whatever it sees this time
    assert "is short enough: the shortest has" in refused(recipe("parts", max_length=9))


def spoilt(root: Path, how: str) -> None:
    """Break the third model in that way."""
    name = f"{2:08d}_00001"
    if how == "NaN":
        found = cloud(root / "pcd" / "0000" / f"{name}.npy", 200)
        found[7, 1] = np.nan
        np.save(root / "pcd" / "0000" / f"{name}.npy", found)
    elif how == "no cloud":
        (root / "pcd" / "0000" / f"{name}.npy").write_text("hello")
    elif how == "no points":
        cloud(root / "pcd" / "0000" / f"{name}.npy", 0)
    elif how == "no image":
        (root / "img" / "0000" / name / f"{name}_000.png").write_bytes(b"no picture")
    elif how == "no model":
        (root / "json" / "0000" / f"{name}.json").unlink()
    elif how == "no caption":
        rows = json.loads((root / "txt" / "0000.json").read_text())
        write_json(root / "txt" / "0000.json", [row for row in rows if not row["id"].endswith(name)])
    elif how == "no JSON":
        (root / "json" / "0000" / f"{name}.json").write_text("{")
    elif how == "no box":
        write_json(root / "json" / "0000" / f"{name}.json", {**part(2), "properties": {}})


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("NaN", "1 of 200 points are not finite, the first is number 7"),
        ("no cloud", "is no cloud of points"),
        ("no points", "holds no points"),
        ("no image", "00000002_00001_000.png is no readable image (of no known format)"),
        ("no model", "has a caption and no model"),
        ("no caption", "has no caption"),
        ("no JSON", "is no JSON"),
        ("no box", "states no bounding_box"),
    ],
)
def test_a_model_that_cannot_be_used_is_named_or_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], how: str, reason: str
) -> None:
    root = omni_cad(tmp_path / "omni")
    spoilt(root, how)
    asked: dict[str, Any] = {"path": str(root), "validation": 0.25, "mix": EVERYTHING, "points": 128}
    said = refused(recipe("omni_cad", **asked))
    assert said.startswith("data: 00000002_00001: ")
    assert reason in said
    assert said.endswith("mend or remove it, or set data.on_bad_item=skip")
    facts = describe(recipe("omni_cad", **asked, on_bad_item="skip"))
    assert facts.train + facts.validation == 7
    assert facts.left_out == 1
    line = capsys.readouterr().out.strip()
    assert line.startswith("data: 1 of 8 models are left out: 00000002_00001: ")
    (noted,) = (json.loads(one) for one in (facts.samples / "left_out.jsonl").read_text().splitlines())
    assert noted["id"] == "00000002_00001"
    assert reason in noted["reason"]


def test_a_solid_that_is_none_is_named(tmp_path: Path) -> None:
    root = deepcad(tmp_path / "deepcad")
    flat = part(2)
    flat["entities"]["E0"]["extent_one"]["distance"]["value"] = 0.0
    write_json(root / "cad_json" / "0000" / "00000002.json", flat)
    said = refused(recipe(path=str(root), validation=0.25, mix={"text+points": 1}))
    assert said.startswith("data: 00000002: ")


def test_clouds_with_fewer_points_are_stretched_with_a_word(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = omni_cad(tmp_path / "omni", models=4)
    cloud(root / "pcd" / "0000" / f"{1:08d}_00001.npy", 50)
    facts = describe(recipe("omni_cad", path=str(root), validation=0.25, mix={"text+points": 1}, points=128))
    said = "data: fewer than 128 points, some of which are taken twice: 00000001_00001 (50)"
    assert capsys.readouterr().out.strip() == said
    assert facts.clouds_in is not None
    found = open_clouds(facts.clouds_in, 128)
    assert len(np.unique(found[1], axis=0)) == 50
    assert len(np.unique(found[0], axis=0)) == 128


def test_what_a_directory_lacks_is_said(tmp_path: Path) -> None:
    assert "is no directory" in refused(recipe(path=str(tmp_path / "nowhere")))
    assert "neither json/ with .json files, nor vec/ with .h5 files" in refused(recipe(path=str(tmp_path)))
    root = deepcad(tmp_path / "deepcad", models=3)
    said = refused(recipe(path=str(root), caption="expert", validation=0.3))
    assert "data.caption: " in said
    assert "no text in 'expert'; its fields with text are cad_id, caption" in said
    write_json(root / "train_val_test_split.json", {"train": ["00000000", "0000/00000001"], "test": ["00000001"]})
    said = refused(recipe(path=str(root)))
    assert "00000001 is in two splits of" in said
    (root / "train_val_test_split.json").unlink()
    write_json(root / "cad_json" / "0001" / "00000001.json", part(1))
    assert "00000001 is there twice" in refused(recipe(path=str(root), validation=0.3))
    caption(root, {"text": "no id"})
    (root / "cad_json" / "0001" / "00000001.json").unlink()
    assert "captions.jsonl:1: a row of captions has a cad_id or an id" in refused(
        recipe(path=str(root), validation=0.3)
    )


def test_padding_is_small_on_the_embedded_parts() -> None:
    from test_cad_order import steps
    from test_order import batches

    asked = recipe("parts", parts=600, test_parts=20, mix={"text": 1})
    sizes = open_cad_samples(describe(asked), "train").sizes(slots_of(asked))
    padded = there = 0
    which = draw_inputs(asked.cad.shares, 0, 0, 600)
    lengths = sizes.drawn(asked.cad.shares, which, np.ones(600, dtype=np.int64))
    for step in steps(sizes, batches(600, 8, 1, 2), 0, 0, data=asked.cad):
        for micro in step:
            here = lengths[[key.sample for key in micro]]
            padded, there = padded + int(here.max()) * len(here), there + int(here.sum())
    assert 1 - there / padded <= 0.03


def test_images_may_be_named_by_id_alone(tmp_path: Path) -> None:
    root = deepcad(tmp_path / "deepcad", models=4)
    for number in range(4):
        picture(root / "images" / f"{number:08d}.png", 10 * number)
    facts = describe(recipe(path=str(root), validation=0.25, mix={"image": 1}))
    assert facts.views_in is not None
    found = [open_views(facts.views_in).pixels(row, (0,))[0] for row in range(4)]
    assert [int(one[0, 0, 0]) for one in found] == [0, 10, 20, 30]
