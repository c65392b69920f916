"""Augmentation: right (against PIL and by hand), and a function of (seed, epoch, sample) alone."""

from __future__ import annotations

import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from zerofit.config.data import Augment
from zerofit.data.augment import Augmenter
from zerofit.data.draws import Purpose, philox, uniforms
from zerofit.data.geometry import CROP_DRAWS, crop_boxes, resized_crop
from zerofit.data.images import IGNORED
from zerofit.data.mixing import MIX_DRAWS, weights
from zerofit.data.placing import DRAWN
from zerofit.data.randaugment import OPERATIONS, rand_augment

SIZE, CLASSES = 16, 5
CPU = torch.device("cpu")
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.5)
EVERYTHING = Augment(crop_scale=(0.3, 1.0), flip=0.5, randaugment=(3, 20), mixup=0.4, cutmix=1.0)


def batch(count: int, partners: bool = True) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(0)
    images = smooth(count + 1)
    labels = torch.randint(CLASSES, (count + 1,), generator=random)
    index = torch.randperm(1000, generator=random)[: count + 1]
    made = {"images": images[:-1], "labels": labels[:-1], "index": index[:-1], "epoch": torch.full((count,), 2)}
    if partners:
        made |= {"partner_images": images[1:], "partner_labels": labels[1:].clone(), "partner_index": index[1:]}
    return made


def smooth(count: int, size: int = SIZE) -> Tensor:
    """uint8 images without sharp edges."""
    coarse = torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(1)) * 255
    return torch.nn.functional.interpolate(coarse, size=(size, size), mode="bicubic").clamp(0, 255).to(torch.uint8)


def augmenter(augment: Augment, label_smoothing: float = 0.0) -> Augmenter:
    return Augmenter(augment, SIZE, CLASSES, seed=5, mean=MEAN, std=STD, label_smoothing=label_smoothing)


def rows(batch: dict[str, Tensor], which: Tensor | slice) -> dict[str, Tensor]:
    return {name: value[which] for name, value in batch.items()}


def normalised(images: Tensor) -> Tensor:
    return (images / 255 - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_known_answers(counter, key, expected):
    """Random123's kat_vectors, philox 4x32, 10 rounds."""
    words = philox(tuple(np.array([word], np.uint64) for word in counter), tuple(np.uint64(word) for word in key))
    assert tuple(int(word[0]) for word in words) == expected


def test_draws_are_uniform_and_separate():
    index = np.arange(4000)
    epoch = np.zeros(4000, np.int64)
    drawn = uniforms(3, epoch, index, Purpose.CROP, 5)
    assert drawn.shape == (4000, 5)
    assert 0 <= drawn.min() < drawn.max() < 1
    assert np.abs(drawn.mean(axis=0) - 0.5).max() < 0.02
    others = [
        uniforms(4, epoch, index, Purpose.CROP, 5),
        uniforms(3, epoch + 1, index, Purpose.CROP, 5),
        uniforms(3, epoch, index, Purpose.FLIP, 5),
        uniforms(3, epoch, index + 1, Purpose.CROP, 5),
        drawn[:, [1, 2, 3, 4, 0]],
    ]
    for other in others:
        assert abs(np.corrcoef(drawn.ravel(), other.ravel())[0, 1]) < 0.03
    assert (uniforms(3, epoch[7:9], index[7:9], Purpose.CROP, 2) == drawn[7:9, :2]).all()


fractions = st.floats(0.01, 1.0)
ratios = st.floats(0.1, 10.0)


@given(st.integers(1, 300), st.tuples(fractions, fractions), st.tuples(ratios, ratios))
def test_crop_boxes_lie_in_the_image(size, scale, ratio):
    drawn = uniforms(0, np.zeros(20, np.int64), np.arange(20), Purpose.CROP, CROP_DRAWS)
    left, top, width, height = crop_boxes(drawn, size, tuple(sorted(scale)), tuple(sorted(ratio))).T
    assert min(left.min(), top.min()) >= 0
    assert min(width.min(), height.min()) >= 1
    assert max((left + width).max(), (top + height).max()) <= size


def test_crop_boxes_obey_scale_and_ratio():
    drawn = uniforms(0, np.zeros(500, np.int64), np.arange(500), Purpose.CROP, CROP_DRAWS)
    _, _, width, height = crop_boxes(drawn, 200, (0.2, 0.6), (0.5, 2.0)).T.astype(float)
    area, ratio = width * height / 200**2, width / height
    assert 0.19 < area.min() < 0.22
    assert 0.58 < area.max() < 0.61
    assert 0.49 < ratio.min() < 0.55
    assert 1.8 < ratio.max() < 2.05
    assert crop_boxes(drawn, 200, (1.0, 1.0), (2.0, 3.0))[0].tolist() == [0, 50, 200, 100]  # nothing fits


def test_crop_enlarges_its_box():
    images = smooth(3).float() / 255
    boxes = np.array([[0, 0, SIZE, SIZE], [4, 2, 8, 8], [3, 5, 4, 8]])
    found = resized_crop(images, boxes)
    torch.testing.assert_close(found[0], images[0])
    for i, (left, top, width, height) in enumerate(boxes[1:], 1):
        box = images[i : i + 1, :, top : top + height, left : left + width]
        expected = torch.nn.functional.interpolate(box, size=(SIZE, SIZE), mode="bilinear")[0]
        inner = slice(2, -2)  # at its edge the box's neighbours count here
        torch.testing.assert_close(found[i][:, inner, inner], expected[:, inner, inner])


def test_flip_mirrors_its_share():
    made = batch(200, partners=False)
    pixels, targets = augmenter(Augment(flip=0.3))(made)
    straight, mirrored = normalised(made["images"]), normalised(made["images"].flip(-1))
    flipped = torch.tensor([torch.allclose(pixels[i], mirrored[i], atol=1e-6) for i in range(200)])
    torch.testing.assert_close(pixels, torch.where(flipped[:, None, None, None], mirrored, straight))
    assert 40 < flipped.sum() < 80
    assert torch.equal(targets, made["labels"])


def pil_affine(image: Image.Image, *coefficients: float) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR)


LEVEL, BIG = 15, 64  # of 30; pixels
PIL_OPERATIONS = {
    "identity": lambda image, sign: image,
    "shear_x": lambda image, sign: pil_affine(image, 1, 0.15 * sign, 0, 0, 1, 0),
    "shear_y": lambda image, sign: pil_affine(image, 1, 0, 0, 0.15 * sign, 1, 0),
    "translate_x": lambda image, sign: pil_affine(image, 1, 0, 14 * sign, 0, 1, 0),
    "translate_y": lambda image, sign: pil_affine(image, 1, 0, 0, 0, 1, 14 * sign),
    "rotate": lambda image, sign: image.rotate(15 * sign, Image.Resampling.BILINEAR),
    "brightness": lambda image, sign: ImageEnhance.Brightness(image).enhance(1 + 0.45 * sign),
    "colour": lambda image, sign: ImageEnhance.Color(image).enhance(1 + 0.45 * sign),
    "contrast": lambda image, sign: ImageEnhance.Contrast(image).enhance(1 + 0.45 * sign),
    "sharpness": lambda image, sign: ImageEnhance.Sharpness(image).enhance(1 + 0.45 * sign),
    "posterize": lambda image, sign: ImageOps.posterize(image, 6),
    "solarize": lambda image, sign: ImageOps.solarize(image, 128),
    "autocontrast": lambda image, sign: ImageOps.autocontrast(image),
    "equalize": lambda image, sign: ImageOps.equalize(image),
}
EXACT = {"identity", "posterize", "solarize", "equalize"}


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_agree_with_pil(name, sign):
    levels = smooth(2, BIG)
    levels[1] = torch.randint(256, (3, BIG, BIG), generator=torch.Generator().manual_seed(2)).to(torch.uint8)
    draw = (list(OPERATIONS).index(name) + 0.5) / len(OPERATIONS)
    drawn = np.tile([draw, 0.25 if sign > 0 else 0.75], (2, 1))
    found = (rand_augment(levels.float() / 255, drawn, LEVEL, fill=(0.0, 0.0, 0.0)) * 255).round().int()
    for i in range(2):
        image = Image.fromarray(levels[i].permute(1, 2, 0).numpy())
        expected = torch.from_numpy(np.array(PIL_OPERATIONS[name](image, sign))).permute(2, 0, 1).int()
        difference = (found[i] - expected).abs()
        if name in EXACT:
            assert difference.max() == 0
        else:  # PIL cuts fractions off, and computes where pixels go in fixed point; at edges, fill may mix in
            assert (difference <= 2).float().mean() > 0.97
            assert difference.float().mean() < 2


def test_flat_images_survive_every_operation():
    for level in (0, 7, 255):
        flat = torch.full((len(OPERATIONS), 3, 8, 8), level / 255)
        drawn = np.stack([(np.arange(len(OPERATIONS)) + 0.5) / len(OPERATIONS), np.zeros(len(OPERATIONS))], axis=1)
        found = rand_augment(flat, drawn, 30, fill=(level / 255,) * 3)
        assert torch.isfinite(found).all()
        assert ((found >= 0) & (found <= 1)).all()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_nothing_but_the_sample_decides(smoothing):
    whole = batch(24)
    pixels, targets = augmenter(EVERYTHING, smoothing)(whole)
    assert (pixels.shape, pixels.dtype, targets.shape, targets.dtype) == (
        (24, 3, SIZE, SIZE),
        torch.float32,
        (24, CLASSES),
        torch.float32,
    )
    for part in (slice(0, 5), slice(5, 6), torch.tensor([23, 3, 11])):
        some, some_targets = augmenter(EVERYTHING, smoothing)(rows(whole, part))
        torch.testing.assert_close(some, pixels[part], rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(some_targets, targets[part])
    later, _ = augmenter(EVERYTHING, smoothing)(whole | {"epoch": whole["epoch"] + 1})
    assert not torch.allclose(later, pixels)


needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.gpu
@needs_cuda
def test_devices_agree_on_crops_flips_and_mixing():
    made = batch(64)
    augment = EVERYTHING.model_copy(update={"randaugment": None})
    pixels, targets = augmenter(augment, 0.1)(made)
    found, found_targets = augmenter(augment, 0.1)({name: value.cuda() for name, value in made.items()})
    torch.testing.assert_close(found_targets.cpu(), targets)
    torch.testing.assert_close(found.cpu(), pixels, rtol=1e-4, atol=1e-4)


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize("name", OPERATIONS)
def test_devices_agree_on_operations(name):
    """From the same 8-bit images: a result between two of the 256 levels may fall to either."""
    images = smooth(64).float() / 255
    draw = (list(OPERATIONS).index(name) + 0.5) / len(OPERATIONS)
    draws = np.stack([np.full(64, draw), np.arange(64) / 64], axis=1)
    right = rand_augment(images.clone(), draws, 20, MEAN) * 255
    apart = (rand_augment(images.cuda(), draws, 20, MEAN).cpu() * 255 - right).abs().round()
    print(name, "values apart", float((apart > 0).float().mean()), "levels", int(apart.max()))
    assert apart.max() <= 1
    assert (apart > 0).float().mean() < 0.03  # shearing by a fifth meets such borders often


@pytest.mark.gpu
@needs_cuda
def test_the_host_waits_for_nothing():
    made = {name: value if name in DRAWN else value.cuda() for name, value in batch(64).items()}
    augment = augmenter(EVERYTHING, 0.1)
    expected = augment(made)[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is a prototype
        torch.cuda.set_sync_debug_mode("error")
    try:
        found = augment(made)[0]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(found, expected)


def test_partners_are_augmented_as_themselves():
    made = batch(6)
    shared = Augment(crop_scale=(0.3, 1.0), flip=0.5, randaugment=(2, 9))
    own, _ = augmenter(shared)(made)
    partner, _ = augmenter(shared)(made | {name: made[f"partner_{name}"] for name in ("images", "labels", "index")})
    mixed, targets = augmenter(shared.model_copy(update={"mixup": 1.0}))(made)
    for i in range(6):
        share = float(((mixed[i] - partner[i]) / (own[i] - partner[i])).nanmedian())
        torch.testing.assert_close(mixed[i], share * own[i] + (1 - share) * partner[i], rtol=1e-4, atol=1e-4)
        expected = torch.zeros(CLASSES)
        expected[made["labels"][i]] += share
        expected[made["partner_labels"][i]] += 1 - share
        torch.testing.assert_close(targets[i], expected, rtol=1e-3, atol=1e-4)


@given(st.sampled_from([(0.2, 0.0), (0.0, 1.0), (0.8, 1.0), (0.01, 0.01)]), st.integers(1, 40), st.integers(0, 1000))
def test_mixing_weights_agree_with_label_shares(alphas, size, first):
    index = np.arange(first, first + 8)
    drawn = uniforms(1, np.zeros(8, np.int64), index, Purpose.MIX, MIX_DRAWS)
    own, share = weights(drawn, *alphas, size, CPU)
    assert own.shape == (8, 1, size, size)
    assert ((own >= 0) & (own <= 1)).all()
    torch.testing.assert_close(own.mean(dim=(1, 2, 3)), share)
    if alphas[0] == 0:
        assert set(own.unique().tolist()) <= {0.0, 1.0}


def test_shares_follow_beta():
    drawn = uniforms(1, np.zeros(4000, np.int64), np.arange(4000), Purpose.MIX, MIX_DRAWS)
    _, share = weights(drawn, 0.4, 0.0, 4, CPU)
    assert abs(float(share.mean()) - 0.5) < 0.02
    assert float(share.var()) == pytest.approx(1 / (4 * (2 * 0.4 + 1)), rel=0.03)
    both, _ = weights(drawn, 1.0, 1.0, 4, CPU)
    assert 0.4 < float((both.flatten(1).std(dim=1) > 0).float().mean()) < 0.55  # half of them cut


def test_left_out_samples():
    made = batch(4)
    made["labels"][1] = IGNORED
    made["partner_labels"][2] = IGNORED
    pixels, targets = augmenter(Augment(mixup=1.0, cutmix=1.0), 0.1)(made)
    assert targets.sum(dim=1).tolist() == pytest.approx([1, 0, 1, 1])
    torch.testing.assert_close(pixels[2], normalised(made["images"][2]))
    assert targets[2].argmax() == made["labels"][2]
    _, hard = augmenter(Augment())(made)
    assert torch.equal(hard, made["labels"])
    _, soft = augmenter(Augment(), 0.1)(made)
    assert soft[0, made["labels"][0]] == pytest.approx(0.9 + 0.1 / CLASSES)
    assert soft.sum(dim=1).tolist() == pytest.approx([1, 0, 1, 1])


def test_plain_is_normalisation_and_imports_no_kornia():
    images = smooth(2)
    torch.testing.assert_close(Augmenter.plain(MEAN, STD)(images), normalised(images))
    torch.testing.assert_close(augmenter(Augment())(batch(2, partners=False))[0], normalised(batch(2)["images"]))
    late = "{'kornia', 'datasets', 'sklearn'}"
    code = f"import sys, zerofit.data.augment, zerofit.data.loader; sys.exit(bool({late} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], check=True)
