"""Whole predictions of memory: what each kind of run holds, and what was measured on GPUs."""

from __future__ import annotations

from typing import Any

import pytest
from fake_runs import BLOCKS, LORA, PATCHES, TEXT, VIT, images, planned, text
from plan_examples import CAD_FACTS, FACTS

from zerofit.config.load import load_job
from zerofit.launch.predicting import Timed, closest
from zerofit.models.frozen import trains_a_part
from zerofit.plan.closed_form import estimate_memory
from zerofit.plan.hardware import GIB
from zerofit.plan.slots import IMAGE
from zerofit.plan.spec import RunSpec
from zerofit.predict import watch
from zerofit.predict.batches import of_cad
from zerofit.predict.memory import predict_memory
from zerofit.predict.playing import play
from zerofit.predict.workspaces import multiplying

WHOLE = 3 * (4 * 128 * 129 + 256 * 129 + 128 * 257 + 4 * 128) + 128 * (48 + 1) + 128 * 18 + 2 * 128 + 10 * 129
"""Parameters of VIT: blocks, patch embedding, positions and class token, last norm, head."""
DDP = {"name": "ddp", "precision": "bf16"}


def about(elements: int) -> Any:
    """Bytes of so many float32 numbers; of a few tensors they are rounded up."""
    return pytest.approx(4 * elements, rel=0.01)


def split(spec: RunSpec, phase: str) -> dict[Any, int]:
    return play(spec).books.device.peaks[phase].split  # type: ignore[index]


def test_one_rank_holds_weights_gradients_and_two_moments() -> None:
    found = split(images(VIT), "step")
    assert found["weights"] == found["gradients"] == about(WHOLE)
    assert found["optimizer"] == about(2 * WHOLE)


def test_several_ranks_have_buckets_of_all_gradients_besides() -> None:
    assert "buckets" not in split(images(VIT), "step")
    assert split(images(VIT, ranks=2, strategy=DDP), "step")["buckets"] == about(WHOLE)


def test_a_step_of_too_many_operations_is_left_to_formulas(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = images(VIT)
    monkeypatch.setattr(watch, "MOST", 50)
    found, timed = closest(spec), Timed()
    assert (found.peak_gib, found.exact) == (estimate_memory(spec).peak_gib, False)
    (why,) = found.not_modelled
    assert "more than 50 operations of a step, as without CUDA kernels of its own" in why
    assert timed.closest(spec) == found
    assert timed.speed(spec) is None


def test_gradients_are_there_in_the_second_micro_step_s_forward() -> None:
    once, twice = (split(images(VIT, accumulation=count), "forward") for count in (1, 2))
    assert "gradients" not in once
    assert twice["gradients"] == about(WHOLE)


def test_what_is_frozen_has_neither_gradients_nor_moments() -> None:
    spec = images(VIT, task="probe", probe={})
    assert trains_a_part(spec.recipe)
    found = split(spec, "step")
    assert found["weights"] == about(WHOLE)
    assert found["gradients"] == 10 * 128 * 4 + 512  # of the head


@pytest.mark.parametrize(("name", "decay", "times"), [("adamw", 0.1, 0), ("sgd", 0.1, 1), ("sgd", 0.0, 0)])
def test_sgd_s_step_takes_copies_of_its_largest_group_and_a_fused_one_none(name: str, decay: float, times: int) -> None:
    spec = images(VIT, optimizer={"name": name, "lr": 1e-3, "weight_decay": decay})
    taken = split(spec, "step").get("other", 0) - multiplying((9, 0))
    decayed = WHOLE - 3 * 128 * 12  # about: what has weight decay is one group
    assert taken == pytest.approx(4 * times * decayed, rel=0.02)


def test_evaluation_counts_where_its_batches_are_larger() -> None:
    small, large = (predict_memory(images(PATCHES, evaluate={"micro_batch": size})) for size in (4, 400))
    assert "evaluation" not in small.phases
    assert large.phase == "evaluation"


def test_cached_features_need_weights_and_a_forward_pass_alone() -> None:
    found = predict_memory(images(VIT, task="probe", probe={"features": "cached"}))
    assert found.phase == "evaluation"
    assert set(found.phases) == {"init", "evaluation"}
    assert found.not_modelled == ("the heads of a probe on cached features, trained once the backbone is gone",)


def test_completions_have_a_cache_and_a_reference() -> None:
    grpo = {"rewards": ["math_correct"], "num_generations": 2, "sampling": {"max_tokens": 64}}
    plain, measured = (
        predict_memory(text(task="grpo", grpo=grpo | {"beta": beta}, train=_batch(4))) for beta in (0.0, 0.1)
    )
    assert set(plain.phases) >= {"init", "rollout", "forward", "backward", "step", "evaluation"}
    reference = plain.phases["step"] + split(text(), "init")["weights"] / GIB
    assert measured.phases["step"] == pytest.approx(reference, rel=1e-3)
    assert any("rollouts" in what for what in plain.not_modelled)
    assert plain.exact == (plain.phase not in ("rollout", "evaluation"))
    many = text(task="grpo", grpo=grpo | {"num_generations": 64}, train=_batch(64) | {"micro_batch": 1})
    assert (predict_memory(many).phase, predict_memory(many).exact) == ("rollout", False)


@pytest.mark.parametrize("mix", ["text", "points", "text+points+image"])
def test_any_mix_of_inputs_is_played(mix: str) -> None:
    model = {
        **TEXT,
        "kind": "cad_mllm",
        "lora": LORA,
        "points": {"latents": 8, "width": 16, "heads": 2, "depth": 1},
        "vision": {"shape": {"model_type": "vit", "patch_size": 56} | BLOCKS},
        "trainable": [r"\.lora_", "^(points|point_projector|image_projector)"],
    }
    facts = CAD_FACTS.model_copy(update={"longest": 300, "train": 100, "tokens": 25_000, "targets": 5_000})
    fields = {"task": "cad", "model": model, "data": {"source": "parts", "mix": {mix: 1}}, "train": _batch(2)}
    spec = planned(fields | {"optimizer": {"lr": 1e-3}, "strategy": DDP | {"name": "single"}}, facts, 1)
    found = predict_memory(spec)
    assert found.phase == ("forward" if "image" in mix else "backward")  # a frozen encoder keeps nothing for backward
    assert found.split["logits"] > 0


def test_several_images_of_a_row_are_played_and_reckoned_with() -> None:
    """As many more bytes by formulas as in the played step, whose rows all have the most images."""
    vision = {"shape": {"model_type": "vit", "patch_size": 14} | BLOCKS, "image_size": 224, "pool": 4}
    facts = CAD_FACTS.model_copy(update={"longest": 300, "train": 100, "tokens": 25_000, "targets": 5_000})

    def spec(at_once: Any) -> RunSpec:
        data = {"source": "parts", "mix": {"image": 1}, "views": 4, "views_at_once": at_once}
        fields = {"task": "cad", "model": {**TEXT, "kind": "cad_mllm", "vision": vision}, "data": data}
        run = {"train": _batch(4), "optimizer": {"lr": 1e-3}, "strategy": DDP | {"name": "single"}}
        return planned(fields | run, facts, 1)

    one, several = spec(1), spec([1, 4])
    given = of_cad(several, 4)
    assert given["images"].shape[0] == 16
    assert (given["slots"] == IMAGE).sum(dim=1).tolist() == [4 * 16] * 4
    more = [
        predict(several).split["activations"] - predict(one).split["activations"]
        for predict in (predict_memory, estimate_memory)
    ]
    assert more[1] == pytest.approx(more[0], rel=0.15)


def test_compilation_is_left_out_and_said() -> None:
    compiled = predict_memory(images(VIT, strategy={"name": "single", "compile": True}))
    assert compiled.peak_gib == predict_memory(images(VIT, strategy={"name": "single"})).peak_gib
    assert any("torch.compile" in what for what in compiled.not_modelled)


def test_processes_take_host_memory() -> None:
    assert predict_memory(images(VIT, ranks=4, strategy=DDP)).host_gib == pytest.approx(4 * 2.4)


def _batch(rows: int) -> dict[str, int]:
    return {"micro_batch": rows, "global_batch": rows, "max_steps": 3}


def _sized(shape: str, strategy: str, micro: int, whole: int) -> list[str]:
    return [
        *("model.pretrained=null", f"model.shape={shape}", "strategy.precision=bf16", f"strategy={strategy}"),
        *(
            f"train.micro_batch={micro}",
            f"train.global_batch={whole}",
            "train.max_steps=16",
            "optimizer.warmup={steps: 4}",
        ),
    ]


@pytest.mark.parametrize(
    ("measured", "recipe", "ranks", "words"),
    [
        (36.2787, "vit-huge-food101", 2, _sized("vit-huge", "ddp", 64, 128)),
        (2.1066, "vit-base-cifar100-lora", 1, _sized("vit-base", "single", 128, 512)),
        (96.3911, "qwen3-8b-cifar100-probe", 1, ["init_from=null", *_sized("qwen3-8b", "zero2", 256, 256)]),
    ],
    ids=["ViT-Huge", "LoRA", "Qwen3-8B"],
)
def test_peaks_are_those_that_were_measured(measured: float, recipe: str, ranks: int, words: list[str]) -> None:
    """GiB allocated on H100 and H200 (docs/performance.jsonl)."""
    made = load_job(recipe, words).stages[0]
    classes = tuple(map(str, range(made.images.classes or 10)))
    size = made.image_model.image_size or 224
    facts = FACTS.model_copy(update={"classes": classes, "train": 50_000, "image_size": size})
    found = predict_memory(planned(made.model_dump(), facts, ranks))
    assert found.peak_gib == pytest.approx(measured, rel=0.008)
