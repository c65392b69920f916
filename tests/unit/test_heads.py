from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from tiny_models import VIT, build, tiny_spec
from torch import Tensor, nn
from transformers import get_scheduler

from zerofit.config.errors import UserError
from zerofit.config.schema import Recipe
from zerofit.data.cache import Features
from zerofit.data.order import permutation
from zerofit.data.vectors import Vectors
from zerofit.measure.accuracy import Tally
from zerofit.plan.batch import make_batches
from zerofit.plan.spec import RunSpec
from zerofit.train.head_grid import choose, divide, first_weights, grid
from zerofit.train.heads import Probed, fitted, train_heads

CPU = torch.device("cpu")
SAMPLES, WIDTH, CLASSES, VIEWS = 100, 12, 5, 2
OPTIMIZERS = {
    "sgd": {"name": "sgd", "lr": 0.01, "momentum": 0.9, "weight_decay": 0.01},
    "clipped": {"name": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 0.01, "clip_grad": 0.3},
    "lars": {"name": "lars", "lr": 1.5, "momentum": 0.9, "weight_decay": 0.02},
    "adamw": {"name": "adamw", "lr": 0.02, "weight_decay": 0.1},
}


@pytest.fixture(autouse=True, scope="module")
def _world() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def planned(optimizer: str = "sgd", smoothing: float = 0.0, **probe: Any) -> RunSpec:
    plain = tiny_spec({"kind": "vit", "shape": VIT}, classes=CLASSES)
    recipe = Recipe.model_validate(
        {
            "task": "probe",
            "model": {"kind": "vit", "shape": VIT},
            "data": {"source": "digits"},
            "train": {"epochs": 9, "micro_batch": 16, "global_batch": 16, "seed": 3, "label_smoothing": smoothing},
            "optimizer": {"schedule": "cosine", "warmup": {"epochs": 2}, **OPTIMIZERS[optimizer]},
            "probe": {"features": "cached", "views": VIEWS, "head_std": 0.3, **probe},
        }
    )
    facts = plain.data.model_copy(update={"train": SAMPLES})
    return plain.model_copy(
        update={
            "recipe": recipe,
            "data": facts,
            "batches": make_batches(recipe, facts, 1),
            "lr": recipe.optimizer.lr,
        }
    )


@pytest.fixture
def features() -> Features:
    random = torch.Generator().manual_seed(0)
    centres = torch.randn(CLASSES, WIDTH, generator=random)
    labels = torch.randint(CLASSES, (2 * SAMPLES,), generator=random)
    vectors = 2 + centres[labels] + 1.5 * torch.randn(VIEWS, 2 * SAMPLES, WIDTH, generator=random)
    train, test = vectors.bfloat16()[:, :SAMPLES], vectors.bfloat16()[0, SAMPLES:]
    return Features(train, labels[:SAMPLES], test, labels[SAMPLES:], "test", Path("nowhere"), None)


def lars(parameters: list[nn.Parameter], buffers: list[Tensor], rate: float, momentum: float, decay: float) -> None:
    """A step as in MAE's util/lars.py."""
    for parameter, buffer in zip(parameters, buffers, strict=True):
        assert parameter.grad is not None
        step = parameter.grad
        if parameter.ndim > 1:
            step = step.add(parameter, alpha=decay)
            step = step * (0.001 * parameter.norm() / step.norm())
        buffer.mul_(momentum).add_(step)
        parameter.add_(buffer, alpha=-rate)


def plain_loop(spec: RunSpec, features: Features, norm: bool, scale: float = 1.0) -> tuple[list[float], nn.Module]:
    """One head, in plain PyTorch."""
    recipe = spec.recipe
    settings, sizes = recipe.optimizer, spec.batches
    head = nn.Linear(WIDTH, CLASSES)
    model = nn.Sequential(nn.BatchNorm1d(WIDTH, eps=1e-6, affine=False) if norm else nn.Identity(), head)
    nn.init.zeros_(head.bias)
    head.weight.data.copy_(first_weights(spec, WIDTH, CPU))
    options: dict[str, Any] = {"lr": spec.lr * scale, "weight_decay": settings.weight_decay}
    if settings.name == "adamw":
        optimizer: torch.optim.Optimizer = torch.optim.AdamW(head.parameters(), **options)
    else:
        optimizer = torch.optim.SGD(head.parameters(), momentum=settings.momentum, **options)
    scheduler = get_scheduler("cosine", optimizer, sizes.warmup_steps, sizes.total_steps)
    buffers = [torch.zeros_like(parameter) for parameter in head.parameters()]
    losses = []
    for step in range(sizes.total_steps):
        epoch, number = divmod(step, sizes.steps_per_epoch)
        order = permutation(SAMPLES, recipe.train.seed, epoch)[number * 16 : (number + 1) * 16]
        batch = features.train[epoch % VIEWS][torch.from_numpy(order)].float()
        loss = F.cross_entropy(model(batch), features.train_labels[order], label_smoothing=recipe.train.label_smoothing)
        optimizer.zero_grad()
        loss.backward()
        if settings.clip_grad is not None:
            nn.utils.clip_grad_norm_(head.parameters(), settings.clip_grad)
        if settings.name == "lars":
            with torch.no_grad():
                rate = optimizer.param_groups[0]["lr"]
                lars(list(head.parameters()), buffers, rate, settings.momentum, settings.weight_decay)
            optimizer.zero_grad()
            for parameter in head.parameters():
                parameter.grad = None
        optimizer.step()
        scheduler.step()
        losses.append(float(loss.detach()))
    return losses, model.eval()


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize(
    ("optimizer", "smoothing"), [("sgd", 0.0), ("sgd", 0.1), ("clipped", 0.0), ("lars", 0.0), ("adamw", 0.0)]
)
def test_a_head_is_what_a_plain_loop_trains(features: Features, optimizer: str, smoothing: float, norm: bool) -> None:
    spec = planned(optimizer, smoothing, batch_norm=norm)
    found = train_heads(features, spec, CPU)
    right, model = plain_loop(spec, features, norm)
    assert found.batches == spec.batches
    assert min(right) < 0.9 * right[0]  # it learns something
    assert found.losses[:, 0].tolist() == pytest.approx(right, rel=1e-6)

    names = {"0.": "head_norm.", "1.": "head."}
    state = {names[name[:2]] + name[2:]: value for name, value in model.state_dict().items()}
    assert found.state.keys() == state.keys()
    for name, value in state.items():
        torch.testing.assert_close(found.state[name], value, rtol=1e-4, atol=1e-6)
    tally = Tally(CLASSES)
    tally.add(model(features.test.float()), features.test_labels)
    figures = tally.result()
    assert found.test.pop("loss") == pytest.approx(figures.pop("loss"), rel=1e-5)
    assert found.test == figures


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_head_of_a_grid_is_that_head_alone(features: Features, optimizer: str) -> None:
    many = planned(optimizer, lr_scales=(0.1, 1.0, 3.0), batch_norms=(True, False))
    together = train_heads(features, many, CPU)
    used, held = divide(features.train_labels, many, 6)
    assert len(used) + len(held) == SAMPLES
    rest = Features(
        features.train[:, used], features.train_labels[used], features.test, features.test_labels, "test", Path(), None
    )
    for number, trial in enumerate(together.trials):
        alone = planned(optimizer, lr_scales=(trial.lr_scale,), batch_norm=trial.batch_norm)
        one = train_heads(rest, alone, CPU)
        assert one.losses[:, 0].tolist() == pytest.approx(together.losses[:, number].tolist(), rel=1e-6)
        if number == together.best:
            assert one.test["confusion"] == together.test["confusion"]


def held_out_top1(found: Probed, features: Features, held: np.ndarray) -> float:
    state = fitted(found.state, batch_norm=False)
    logits = F.linear(features.train[0][held].float(), state["head.weight"], state["head.bias"])
    return float((logits.argmax(dim=1) == features.train_labels[held]).double().mean())


def test_the_best_on_held_out_images_is_chosen_whatever_the_test_says(features: Features) -> None:
    spec = planned(lr_scales=(1e-6, 1.0), batch_norms=(False, True), held_out=0.3)
    _, held = divide(features.train_labels, spec, 4)
    assert len(held) == 30
    shares = np.bincount(features.train_labels[held]) / 30 - np.bincount(features.train_labels) / SAMPLES
    assert abs(shares).max() <= 1 / 30
    found = train_heads(features, spec, CPU)
    assert [(trial.lr_scale, trial.batch_norm) for trial in found.trials] == [
        (1e-6, False),
        (1.0, False),
        (1e-6, True),
        (1.0, True),
    ]
    top1 = [trial.top1 for trial in found.trials]
    assert top1[found.best] == max(top1) > 0.5
    assert held_out_top1(found, features, held) == top1[found.best]

    wrong = Features(**{**vars(features), "test_labels": (features.test_labels + 1) % CLASSES})
    assert train_heads(wrong, spec, CPU).best == found.best


def test_images_without_a_label_are_neither_trained_on_nor_judged(features: Features) -> None:
    gone = np.array([3, 17, 50, 51, 99])
    labels, test_labels = features.train_labels.clone(), features.test_labels.clone()
    labels[gone], test_labels[:10] = -100, -100
    holes = train_heads(
        Features(features.train, labels, features.test, test_labels, "test", Path(), None), planned(), CPU
    )
    left = np.setdiff1d(np.arange(SAMPLES), gone)
    without = train_heads(
        Features(features.train[:, left], labels[left], features.test[10:], test_labels[10:], "test", Path(), None),
        planned(),
        CPU,
    )
    assert torch.equal(holes.losses, without.losses)
    assert holes.test["confusion"] == without.test["confusion"]
    assert holes.batches.steps_per_epoch == 5  # of 95 images


def test_a_head_that_diverges_is_not_chosen_and_without_another_the_run_stops(features: Features) -> None:
    spec = planned(lr_scales=(1e38, 1.0))
    found = train_heads(features, spec, CPU)
    assert found.best == 1
    assert not np.isfinite(found.trials[0].loss)
    alone = planned(lr_scales=(1.0,))
    assert torch.isfinite(found.losses[:, 1]).all()
    with pytest.raises(UserError, match="the loss of every head is no finite number"):
        train_heads(features, alone.model_copy(update={"lr": 1e38}), CPU)


def test_too_few_images_for_a_batch_are_told(features: Features) -> None:
    few = Features(features.train[:, :17], features.train_labels[:17], *list(vars(features).values())[2:])
    with pytest.raises(UserError, match=r"train.global_batch 16 is more than the 12 training samples"):
        train_heads(few, planned(lr_scales=(1.0, 2.0), held_out=0.3), CPU)


def test_heads_begin_as_the_model_does() -> None:
    spec = planned()
    model = build({"kind": "vit", "shape": VIT}, classes=CLASSES)
    assert first_weights(spec, WIDTH, CPU).std() == pytest.approx(0.3, rel=0.2)
    from zerofit.models.build import build_model
    from zerofit.models.placement import WholePlacement

    probe = build_model(spec, WholePlacement(CPU, torch.float32), torch.float32)
    assert torch.equal(first_weights(spec, model.head.in_features, CPU), probe.head.weight)


@pytest.mark.parametrize("norm", [False, True])
def test_a_head_fits_a_model_with_or_without_batch_norm(features: Features, norm: bool) -> None:
    found = train_heads(features, planned(batch_norm=norm), CPU)
    other = fitted(found.state, batch_norm=not norm)
    logits = []
    for state in (found.state, other):
        model = nn.ModuleDict({"head": nn.Linear(WIDTH, CLASSES)})
        if "head_norm.running_mean" in state:
            model["head_norm"] = nn.BatchNorm1d(WIDTH, eps=1e-6, affine=False)
        model.load_state_dict(state)
        model.eval()
        vectors = features.test.float()
        logits.append(model["head"](model["head_norm"](vectors) if "head_norm" in model else vectors))
    torch.testing.assert_close(*logits, rtol=1e-5, atol=1e-5)
    assert fitted(found.state, norm) is found.state


def test_the_grid_has_each_head_once() -> None:
    assert len(grid(planned(lr_scales=(1.0, 2.0), batch_norms=(True, True)))) == 2
    trials = [trial for trial in grid(planned(lr_scales=(1.0, 2.0, 3.0)))]
    with pytest.raises(UserError):
        choose(trials)  # nothing was trained yet


@pytest.mark.gpu
def test_features_that_do_not_fit_are_read_ahead(features: Features, monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = torch.device("cuda")
    spec = planned(lr_scales=(0.5, 1.0), batch_norms=(True, False))

    def same_weights(spec: RunSpec, width: int, device: torch.device) -> Tensor:
        return first_weights(spec, width, CPU).to(device)  # GPUs draw other numbers

    monkeypatch.setattr("zerofit.train.heads.first_weights", same_weights)
    resident = train_heads(features, spec, cuda)
    monkeypatch.setattr("zerofit.data.vectors.RESIDENT", 0.0)
    assert Vectors(features.train, features.train_labels, cuda).streams
    streamed = train_heads(features, spec, cuda)
    assert torch.equal(resident.losses, streamed.losses)
    torch.testing.assert_close(resident.losses, train_heads(features, spec, CPU).losses, rtol=1e-4, atol=1e-5)
