"""A strategy written for other programs and read again is the same one, down to DeepSpeed's settings."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from plan_examples import CPU, FACTS, gpus, recipe
from pydantic import ValidationError

from zerofit.config.errors import UserError
from zerofit.config.schema import Recipe
from zerofit.config.strategy import STRATEGIES, ZERO_STAGE, Strategy
from zerofit.plan.accelerate_write import accelerate_config, deepspeed_config, script_arguments
from zerofit.plan.build import make_plan
from zerofit.plan.spec import RunSpec
from zerofit.plan.strategy import resolve_strategy

EIGHT = gpus(8)
PLACES = st.sampled_from([None, "cpu", "nvme"])
CHANGED = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(autouse=True)
def _no_git(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plans are made by the hundred here."""
    monkeypatch.setattr("zerofit.plan.build.git_revision", lambda: None)
    monkeypatch.setattr("zerofit.plan.build.versions", lambda: {})


def _possible() -> Iterator[dict[str, Any]]:
    """Fields of every strategy that the schema takes."""
    for name, optimizer, params, pinned, precision, checkpointing, compiled in product(
        STRATEGIES,
        (None, "cpu", "nvme"),
        (None, "cpu", "nvme"),
        (True, False),
        ("auto", "bf16", "fp16", "fp32"),
        ("none", "full"),
        (True, False),
    ):
        offload: dict[str, Any] = {"optimizer": optimizer, "params": params}
        if "nvme" in (optimizer, params):
            offload["nvme_path"] = "/fast"
        if (optimizer, params) != (None, None):
            offload["pin_memory"] = pinned
        fields = {
            "name": name,
            "offload": offload,
            "precision": precision,
            "activation_checkpointing": checkpointing,
            "compile": compiled,
        }
        with suppress(ValidationError):
            Strategy.model_validate(fields)
            yield fields


POSSIBLE = list(_possible())
RANKS = st.sampled_from([1, 2, 4, 8])


def said(strategy: Any, **sections: Any) -> Recipe:
    train = {"micro_batch": 2, "global_batch": 64}
    return recipe(strategy=strategy, train=train, optimizer={"clip_grad": 0.5}, **sections)


def plan(made: Recipe, ranks: int) -> RunSpec:
    return make_plan(made, facts=FACTS, hardware=EIGHT, ranks=ranks, run_dir=Path("a"))


def same(original: RunSpec, again: RunSpec) -> None:
    """Whether the plans spread the work in the same way, and say the same to DeepSpeed."""
    asked = original.strategy.model_copy(update={"precision": original.precision})
    assert again.strategy.model_copy(update={"deepspeed": None}) == asked
    assert (again.precision, again.batches) == (original.precision, original.batches)
    assert again.deepspeed == original.deepspeed


def beside(spec: RunSpec) -> dict[str, Any]:
    """What a script, and so the recipe, says besides the file."""
    return {"compile": spec.strategy.compile, "activation_checkpointing": spec.strategy.activation_checkpointing}


@CHANGED
@given(fields=st.sampled_from(POSSIBLE), ranks=RANKS)
def test_an_accelerate_file_gives_the_strategy_back(tmp_path: Path, fields: dict[str, Any], ranks: int) -> None:
    original = plan(said(fields), 1 if fields["name"] == "single" else ranks)
    path, ds = tmp_path / "a.yaml", tmp_path / "a.json"
    unpinned = fields["name"] == "fsdp2" and fields["offload"].get("pin_memory") is False
    if unpinned:
        with pytest.raises(UserError, match=r"leave offload\.pin_memory true"):
            accelerate_config(original, str(ds))
        return
    path.write_text(yaml.safe_dump(accelerate_config(original, str(ds))))
    if original.deepspeed is not None:
        ds.write_text(json.dumps(deepspeed_config(original)))
    made = said({"accelerate": str(path), **beside(original)})
    found = resolve_strategy(made)
    assert found.ranks == original.batches.ranks
    same(original, plan(made, original.batches.ranks))


@CHANGED
@given(fields=st.sampled_from([one for one in POSSIBLE if one["name"] in ZERO_STAGE]), ranks=RANKS)
def test_a_deepspeed_file_gives_the_strategy_back(tmp_path: Path, fields: dict[str, Any], ranks: int) -> None:
    original = plan(said(fields), ranks)
    path = tmp_path / "a.json"
    path.write_text(json.dumps(deepspeed_config(original)))
    same(original, plan(said({"deepspeed": str(path), **beside(original)}), ranks))


@pytest.mark.parametrize("name", [*STRATEGIES, "fsdp2+offload_all", "zero3+offload_all"])
def test_accelerate_itself_takes_what_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """What `accelerate launch` tells a script, and what the script's plugins make of it."""
    from accelerate import DeepSpeedPlugin, FullyShardedDataParallelPlugin
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils import launch
    from torch.distributed.fsdp import CPUOffloadPolicy

    name, plus, offload = name.partition("+")
    original = plan(said(name + plus + offload), 1 if name == "single" else 4)
    path, ds = tmp_path / "a.yaml", tmp_path / "a.json"
    path.write_text(yaml.safe_dump(accelerate_config(original, str(ds))))
    ds.write_text(json.dumps(original.deepspeed))
    words = ["--config_file", str(path), "--main_process_port", "0", "script.py"]
    arguments, defaults, _ = _validate_launch_command(launch_command_parser().parse_args(words))
    assert (arguments.num_processes, arguments.use_cpu) == (original.batches.ranks, False)
    kinds = (arguments.multi_gpu, arguments.use_fsdp, arguments.use_deepspeed)
    assert kinds == (name == "ddp", name == "fsdp2", name in ZERO_STAGE)
    if name in ZERO_STAGE:
        arguments.deepspeed_fields_from_accelerate_config = ",".join(defaults.deepspeed_config)
        _, environ = launch.prepare_deepspeed_cmd_env(arguments)
    elif name == "single":
        _, environ = launch.prepare_simple_launcher_cmd_env(arguments)
    else:
        environ = launch.prepare_multi_gpu_env(arguments)
    for key, value in environ.items():
        monkeypatch.setenv(key, value)
    if name in ZERO_STAGE:
        zero = DeepSpeedPlugin()
        wanted = {**original.deepspeed, "steps_per_print": float("inf")}  # as accelerate has it
        assert (zero.zero_stage, zero.deepspeed_config) == (ZERO_STAGE[name], wanted)
        assert zero.zero3_init_flag == (ZERO_STAGE[name] == 3)
        return
    assert environ["ACCELERATE_MIXED_PRECISION"] == "bf16"
    if name == "fsdp2":
        shards = FullyShardedDataParallelPlugin()
        assert (shards.fsdp_version, shards.reshard_after_forward, shards.activation_checkpointing) == (2, True, False)
        assert isinstance(shards.cpu_offload, CPUOffloadPolicy) == bool(offload)


def test_what_such_files_cannot_say_is_refused() -> None:
    half = plan(said({"name": "ddp", "activation_checkpointing": "selective"}), 2)
    with pytest.raises(UserError, match="activation_checkpointing selective, of every other block, is zerofit's own"):
        accelerate_config(half, "")
    on_cpu = make_plan(said("fsdp2"), facts=FACTS, hardware=CPU, ranks=2, run_dir=Path("a"))
    with pytest.raises(UserError, match="accelerate runs DDP where a file says FSDP and there is no GPU"):
        accelerate_config(on_cpu, "")
    with pytest.raises(UserError, match="strategy ddp is not DeepSpeed's"):
        deepspeed_config(plan(said("ddp"), 2))


def test_zero_init_is_not_asked_for_weights_in_four_bits() -> None:
    spec = plan(said("zero3"), 2)
    assert accelerate_config(spec, "a.json")["deepspeed_config"]["zero3_init_flag"]
    model = {"kind": "causal_lm", "shape": "qwen3-0.6b", "tokenizer": "bytes", "quantize": "nf4", "lora": {}}
    base = spec.recipe.model_dump(exclude={"model", "data"})
    quantized = Recipe.model_validate({**base, "task": "sft", "model": model, "data": {"source": "arithmetic"}})
    spec = spec.model_copy(update={"recipe": quantized})
    assert not accelerate_config(spec, "a.json")["deepspeed_config"]["zero3_init_flag"]


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing` is deprecated:FutureWarning")  # TRL has no newer name yet
def test_the_scripts_arguments_are_those_of_trainer() -> None:
    from transformers import HfArgumentParser, TrainingArguments

    made = said({"name": "ddp", "precision": "fp32", "activation_checkpointing": "full"})
    words = " ".join(script_arguments(plan(made, 4))).split()
    [read] = HfArgumentParser([TrainingArguments]).parse_args_into_dataclasses(words)  # type: ignore[list-item]
    assert (read.per_device_train_batch_size, read.gradient_accumulation_steps, read.max_grad_norm) == (2, 8, 0.5)
    assert (read.bf16, read.fp16, read.gradient_checkpointing) == (False, False, True)
    assert (read.learning_rate, read.weight_decay, read.adam_beta2) == (1e-3, 0.05, 0.999)
    assert (
        read.optim == "adamw_torch_fused"
    )  # on GPUs; of a loss scaler's steps Trainer's own says nothing of overflows
    assert "--optim adamw_torch" in script_arguments(plan(said({"name": "ddp", "precision": "fp16"}), 4))
