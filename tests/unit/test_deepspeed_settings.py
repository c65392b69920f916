"""`strategy.deepspeed`: what a user sets of DeepSpeed is merged, or refused in one line."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from deepspeed_configs import config_of, strategy
from plan_examples import recipe
from strategy_files import PINNED_CPU, hugging_face

from zerofit.config.errors import UserError


def test_a_users_settings_are_merged_and_auto_takes_our_value(tmp_path: Path) -> None:
    settings = {
        "train_batch_size": "auto",
        "gradient_clipping": 0,
        "bf16": {"enabled": "auto"},
        "fp16": {"enabled": False, "initial_scale_power": 12},
        "zero_optimization": {
            "stage": 2,
            "reduce_bucket_size": 5e7,
            "round_robin_gradients": True,
            "offload_optimizer": {"device": "none"},
        },
        "communication_data_type": "fp32",
        "flops_profiler": {"enabled": True},
    }
    file = tmp_path / "settings.json"
    file.write_text(json.dumps(settings))
    plain = config_of(strategy("zero2"))
    config = config_of(strategy("zero2", deepspeed=settings))
    assert config == config_of(strategy("zero2", deepspeed=str(file)))
    expected = copy.deepcopy(plain)
    expected["fp16"]["initial_scale_power"] = 12
    expected["zero_optimization"] |= {"reduce_bucket_size": 5e7, "round_robin_gradients": True}
    expected |= {"communication_data_type": "fp32", "flops_profiler": {"enabled": True}}
    assert config == expected


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"train_batch_size": 32}, ["train_batch_size is 32", "it is 64", "change train.global_batch"]),
        ({"train_micro_batch_size_per_gpu": 1}, ["is 1", "it is 16", "train.micro_batch"]),
        ({"gradient_accumulation_steps": 8}, ["is 8", "it is 4", "train.global_batch"]),
        ({"gradient_clipping": 1.0}, ["is 1.0", "it is 0.0", "optimizer.clip_grad"]),
        ({"bf16": {"enabled": True}}, ["bf16.enabled is True", "False", "strategy.precision"]),
        ({"fp16": {"enabled": True}}, ["fp16.enabled is True", "strategy.precision"]),
        ({"torch_autocast": {"enabled": True}}, ["torch_autocast.enabled", "strategy.precision"]),
        ({"zero_optimization": {"stage": 3}}, ["zero_optimization.stage is 3", "it is 2", "strategy.name"]),
        (
            {"zero_optimization": {"offload_optimizer": {"device": "cpu"}}},
            ["offload_optimizer.device is 'cpu'", "it is 'none'", "strategy.offload.optimizer"],
        ),
        (
            {"zero_optimization": {"offload_param": {"device": "nvme"}}},
            ["offload_param.device is 'nvme'", "strategy.offload.params"],
        ),
        ({"zero_optimization": {"cpu_offload": True}}, ["cpu_offload", "strategy.offload.optimizer"]),
        ({"zero_optimization": True}, ["zero_optimization must be a mapping, not True"]),
        (
            {"optimizer": {"type": "AdamW"}},
            ["optimizer.params.weight_decay is left out, which is 0.0", "it is 0.05", "change optimizer"],
        ),
        ({"scheduler": {"type": "WarmupLR"}}, ["scheduler.type is 'WarmupLR'", "WarmupCosineLR", "optimizer.schedule"]),
        (
            {"optimizer": {"type": "AdamW", "params": {"lr": 3e-5, "betas": "auto"}}},
            ["optimizer.params.lr is 3e-05", "by the recipe it is 0.001", "change optimizer"],
        ),
        (
            {"optimizer": {"type": "Lion", "params": {"lr": "auto"}}},
            ["optimizer.type is 'Lion'", "it is AdamW or Adam"],
        ),
        (
            {"optimizer": {"type": "AdamW", "params": {"weight_decay": "auto", "betas": ["auto", 0.95]}}},
            ["optimizer.params.betas is ['auto', 0.95]", "it is [0.9, 0.999]"],
        ),
        ({"optimizer": {"type": "AdamW", "params": {"freeze_step": 9}}}, ["optimizer.params.freeze_step is nothing"]),
        (
            {"scheduler": {"type": "WarmupCosineLR", "params": {"total_num_steps": "auto", "warmup_num_steps": 500}}},
            ["scheduler.params.warmup_num_steps is 500", "it is 1", "optimizer.schedule and optimizer.warmup"],
        ),
        ({"activation_checkpointing": {"partition_activations": True}}, ["use strategy.activation_checkpointing"]),
        ({"tensor_parallel": {"autotp_size": 2}}, ["tensor_parallel: weights here are cut by ZeRO alone"]),
        ({"hybrid_engine": {"enabled": True}}, ["hybrid_engine: ", "leave it out"]),
        ({"scheduler": {"type": "OneCycle", "params": {"cycle_max_lr": "auto"}}}, ["scheduler.type is 'OneCycle'"]),
        ({"aio": "auto"}, ['aio is "auto"', "leave the key out"]),
        ({"aio": {"block_size": "auto"}}, ['aio.block_size is "auto"', "leave the key out"]),
        ({"activation_checkpointing": {"number_checkpoints": "auto"}}, ["activation_checkpointing.number_checkpoints"]),
        ({"data_efficiency": {"a": {"b": [1, "auto"]}}}, ['data_efficiency.a.b.1 is "auto"']),
        ({"wandb": {"tags": [{"name": "auto"}]}}, ['wandb.tags.0.name is "auto"']),
        ({"zero_optimization": {"sub_group_size": "auto"}}, ['zero_optimization.sub_group_size is "auto"']),
        ({"gradient_cliping": 1.0}, ["gradient_cliping is no setting", "did you mean gradient_clipping?"]),
        ({"flop_profiler": {}}, ["flop_profiler is no setting", "did you mean flops_profiler?"]),
        ({"optimiser": {}}, ["did you mean optimizer?"]),
        ({"elasticity": {"enabled": False}}, ["elasticity is no setting of DeepSpeed"]),
    ],
)
def test_a_contradiction_names_the_key_both_values_and_the_field(settings: dict[str, Any], said: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        config_of(strategy("zero2", deepspeed=settings))
    message = str(caught.value)
    assert message.startswith("strategy.deepspeed: ")
    assert "\n" not in message
    for part in said:
        assert part in message


def test_optimizer_and_scheduler_may_say_what_the_recipe_does() -> None:
    adamw = {"lr": 1e-3, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.05, "torch_adam": True}
    cosine = {"total_num_steps": 44, "warmup_num_steps": 3, "warmup_type": "linear", "cos_min_ratio": 0.0}
    settings = {
        "optimizer": {"type": "Adam", "params": adamw},
        "scheduler": {"type": "WarmupCosineLR", "params": cosine},
    }
    said = recipe(strategy={"name": "zero2", "deepspeed": settings}, optimizer={"warmup": {"steps": 3}})
    assert config_of(said) == config_of(strategy("zero2"))


def test_the_hugging_face_example_of_another_strategy_is_refused() -> None:
    with pytest.raises(UserError, match=r"zero_optimization\.stage is 3, but by the recipe it is 2"):
        config_of(strategy("zero2", deepspeed=hugging_face(3)))
    with pytest.raises(UserError, match=r"offload_optimizer\.device is 'cpu', .* change strategy\.offload\.optimizer"):
        config_of(strategy("zero2", deepspeed=hugging_face(2, offload_optimizer=PINNED_CPU)))


@pytest.mark.parametrize(
    ("said", "refused"),
    [
        ({"leaf_module": {"classes": ["Qwen3MLP"]}}, "leaf_module"),
        ({"stage3_module_granularity_threshold": 1e6}, "stage3_module_granularity_threshold"),
        ({"leaf_module": {"classes": []}, "stage3_module_granularity_threshold": 0}, None),
        ({"stage3_module_granularity_threshold": "auto"}, None),
    ],
)
def test_what_zero_3_gathers_at_once_is_not_for_a_file_to_say(said: dict[str, Any], refused: str | None) -> None:
    made = strategy("zero3", deepspeed={"zero_optimization": said})
    if refused is None:
        assert config_of(made)["zero_optimization"]["stage3_module_granularity_threshold"] == 0
    else:
        with pytest.raises(UserError, match=rf"zero_optimization\.{refused}: ZeRO-3 gathers whole transformer blocks"):
            config_of(made)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{\n  "aio": {} // see the manual\n}', "settings.json:2: not JSON: JSON has no comments"),
        ("# mine\n{}", "settings.json:1: not JSON: JSON has no comments"),
        ('{"aio": ', "settings.json:1: not JSON: Expecting value"),
        ("", "settings.json:1: not JSON: Expecting value"),
        ("{\n", "settings.json:2: not JSON: Expecting property name"),
        ("[1]", "settings.json must hold a JSON object, not list"),
        ('{"aio": {"a": 1, "a": 2}}', "settings.json: key given twice: a"),
        (b"\xff\xfe{}", "settings.json: it is not UTF-8 text"),
        (None, "settings.json: No such file or directory"),
        ('{"train_batch_size": 1}', "settings.json: train_batch_size is 1, but"),
    ],
)
def test_a_file_that_is_no_json_object_is_one_clear_error(tmp_path: Path, text: str | bytes | None, said: str) -> None:
    file = tmp_path / "settings.json"
    if text is not None:
        file.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(UserError) as caught:
        config_of(strategy("zero2", deepspeed=str(file)))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
