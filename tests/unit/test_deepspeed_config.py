from __future__ import annotations

import copy
import importlib
import itertools
import json
import warnings
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from deepspeed_configs import config_of, strategy
from plan_examples import CPU, FACTS, gpus, recipe
from strategy_files import PINNED_CPU, STAGE3_AUTO, hugging_face

from zerofit.config.load import load_recipe
from zerofit.config.strategy import ZERO_STAGE
from zerofit.plan.batch import make_batches
from zerofit.plan.decoder import decoder_of
from zerofit.plan.deepspeed import make_deepspeed
from zerofit.plan.deepspeed_user import NOT_GENERATED
from zerofit.plan.shapes import SHAPES
from zerofit.plan.strategy import resolve_strategy

CPU_OFF = {"optimizer": "cpu"}
ALL_OFF = {"optimizer": "cpu", "params": "cpu"}
NVME = {"optimizer": "nvme", "params": "nvme", "nvme_path": "/nvme"}
POSSIBLE = [
    *itertools.product(("zero1", "zero2"), ({}, CPU_OFF)),
    *itertools.product(("zero3", "zeropp"), ({}, CPU_OFF, ALL_OFF, NVME)),
]
LEFT_OUT = {
    # DeepSpeed 0.19.3 does not know them, and refuses what it does not know.
    "compute_grad_norm",
    "parameter_alignment",
    # Off unless given a mapping, or only told to other optimizers, or only about logging and debugging.
    "zenflow",
    "save_muon_momentum_buffer_in_memory",
    "log_trace_cache_warnings",
    "enable_sanity_checks",
    "leaf_module",
    "legacy_stage1",
    # Old names.
    "cpu_offload",
    "cpu_offload_param",
    "cpu_offload_use_pin_memory",
    "stage3_gather_fp16_weights_on_model_save",
}


def values(config: Any) -> Iterator[Any]:
    if isinstance(config, dict):
        for value in config.values():
            yield from values(value)
    else:
        yield config


@pytest.fixture(scope="module")
def deepspeed() -> ModuleType:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        importlib.import_module("deepspeed")
        return importlib.import_module("deepspeed.runtime.config")


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize(("name", "offload"), POSSIBLE)
def test_deepspeed_accepts_it_and_reads_what_the_recipe_says(
    deepspeed: ModuleType, name: str, offload: dict[str, Any], precision: str
) -> None:
    said = strategy(name, offload)
    config = config_of(said, precision, gpus(1))
    read = deepspeed.DeepSpeedConfig(copy.deepcopy(config))
    assert (read.train_batch_size, read.train_micro_batch_size_per_gpu, read.gradient_accumulation_steps) == (64, 16, 4)
    assert read.gradient_clipping == 0.0
    assert read.zero_config.stage == ZERO_STAGE[name]
    assert (read.bfloat16_config.enabled, read.float16_config.enabled) == (precision == "bf16", precision == "fp16")
    assert read.optimizer_name is read.scheduler_name is None
    assert read.zero_config.offload_optimizer.device == (offload.get("optimizer") or "none")
    assert read.zero_config.offload_param.device == (offload.get("params") or "none")
    assert not read.timers_config.enabled
    assert "auto" not in list(values(config))
    assert json.loads(json.dumps(config, allow_nan=False)) == config


def test_every_setting_of_deepspeed_is_either_written_or_left_out_knowingly(deepspeed: ModuleType) -> None:
    configs = [
        deepspeed.DeepSpeedConfig(config_of(strategy(name, offload), "bf16", gpus(1))) for name, offload in POSSIBLE
    ]
    zero = importlib.import_module("deepspeed.runtime.zero.config").DeepSpeedZeroConfig
    for part, missing in (
        ([config.zero_config for config in configs], LEFT_OUT),
        ([config.bfloat16_config for config in configs], set()),
        ([config.float16_config for config in configs], set()),
        ([config.timers_config for config in configs], set()),
        ([config.zero_config.offload_param for config in configs], set()),
        # How many cores super_offload, which is off, would take.
        ([config.zero_config.offload_optimizer for config in configs], {"cpuadam_cores_perc"}),
    ):
        written = set().union(*(read.model_fields_set for read in part))
        assert set(type(part[0]).model_fields) - written == missing
    assert set(zero.model_fields) >= LEFT_OUT


def test_no_key_at_the_top_is_one_that_deepspeed_never_reads(deepspeed: ModuleType) -> None:
    constants = vars(importlib.import_module("deepspeed.runtime.constants")).values()
    known = {value for value in constants if isinstance(value, str)} | {"zero_optimization", "timers", "aio"}
    assert set(config_of(strategy("zero3", NVME))) <= known
    data_types = config_of(strategy("zero2"))["data_types"]
    assert set(data_types) <= known


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_transformers_finds_no_mismatch_and_fills_nothing_in(deepspeed: ModuleType, precision: str) -> None:
    from transformers.integrations.deepspeed import HfTrainerDeepSpeedConfig

    said = recipe(strategy="zero3+offload_all", optimizer={"clip_grad": 0.5})
    config = config_of(said, precision, gpus(2), ranks=2)
    seen = HfTrainerDeepSpeedConfig(config)
    arguments = SimpleNamespace(
        world_size=2,
        per_device_train_batch_size=16,
        gradient_accumulation_steps=2,
        max_grad_norm=0.5,
        learning_rate=1e-3,
        adam_beta1=0.9,
        adam_beta2=0.999,
        adam_epsilon=1e-8,
        weight_decay=0.05,
        save_on_each_node=False,
        fp16=precision == "fp16",
        fp16_full_eval=False,
        bf16=precision == "bf16",
        bf16_full_eval=False,
        get_warmup_steps=lambda total: 0,
    )
    seen.trainer_config_process(arguments)
    seen.trainer_config_finalize(arguments, None, 44)
    assert seen.mismatches == []
    assert seen.config == config
    assert seen.is_zero3()
    assert seen.is_offload()


def test_what_each_strategy_and_machine_changes() -> None:
    on_cpu = config_of(strategy("zero2", CPU_OFF), "bf16")
    on_gpu = config_of(strategy("zero2", CPU_OFF), "bf16", gpus(4), ranks=4)
    assert on_cpu["zero_optimization"]["offload_optimizer"]["pin_memory"] is False
    assert on_gpu["zero_optimization"]["offload_optimizer"]["pin_memory"] is True
    unpinned = strategy("zero2", CPU_OFF | {"pin_memory": False})
    assert config_of(unpinned, "bf16", gpus(1))["zero_optimization"]["offload_optimizer"]["pin_memory"] is False
    assert on_cpu["zero_optimization"]["overlap_comm"] is False
    assert on_gpu["zero_optimization"]["overlap_comm"] is True
    assert on_cpu["communication_data_type"] == "bf16"
    assert on_cpu["data_types"]["grad_accum_dtype"] == "fp32"  # four micro-batches are added up
    assert on_gpu["data_types"]["grad_accum_dtype"] == "bf16"  # there is one
    plusplus = config_of(strategy("zeropp"), "bf16", gpus(8), ranks=4)["zero_optimization"]
    assert plusplus["zero_hpz_partition_size"] == 4
    assert (plusplus["zero_quantized_weights"], plusplus["zero_quantized_gradients"]) == (True, False)
    plain = config_of(strategy("zero3"), "bf16", gpus(8), ranks=4)["zero_optimization"]
    assert plain["zero_hpz_partition_size"] == 1
    assert plain["zero_quantized_weights"] is plain["zero_quantized_gradients"] is False
    for name in ("single", "ddp", "fsdp2"):
        said = strategy(name)
        assert make_deepspeed(said, resolve_strategy(said), make_batches(said, FACTS, 1), "fp32", CPU) is None


@pytest.mark.parametrize(
    ("model", "bucket", "persistent"),
    [
        ({"shape": "vit-tiny"}, 1_000_000, 1920),
        ({"shape": "vit-huge"}, 19_660_800, 12_800),
        ({"kind": "patch_lm", "shape": "qwen3-8b"}, 192_937_984, 40_960),
        ({"shape": None, "pretrained": "google/vit-base-patch16-224"}, 7_077_888, 7680),
        ({"shape": None, "pretrained": "someone/some-vit"}, 200_000_000, 100_000),
    ],
)
def test_buckets_hold_about_one_block(model: dict[str, Any], bucket: int, persistent: int) -> None:
    zero = config_of(recipe(model=model, strategy="zero3"))["zero_optimization"]
    assert zero["reduce_bucket_size"] == zero["stage3_prefetch_bucket_size"] == bucket
    assert zero["stage3_param_persistence_threshold"] == persistent


def test_zero3_takes_a_block_at_once_with_its_adapters_and_the_next() -> None:
    sizes = decoder_of(SHAPES["qwen3-8b"])
    assert sizes is not None
    gathered = 192_937_984 + 16 * sum(inputs + outputs for inputs, outputs in sizes.linears.values())
    images = recipe(model={"kind": "patch_lm", "shape": "qwen3-8b", "lora": {"rank": 16}}, strategy="zero3")
    words = [
        "model.pretrained=null",
        "model.shape=qwen3-8b",
        "model.tokenizer=bytes",
        "model.lora={rank: 16}",
        "strategy=zero3",
    ]
    text = load_recipe("qwen3-8b-sft", words)
    for made, head in ((images, 0), (text, 151_936 * 4096)):
        zero = config_of(made)["zero_optimization"]
        assert zero["stage3_prefetch_bucket_size"] == gathered
        assert zero["stage3_max_live_parameters"] == head + 5 * gathered // 2


def test_where_a_block_is_not_known_the_usual_limit_stays() -> None:
    experts = {**SHAPES["qwen3-8b"], "model_type": "qwen3_moe", "num_experts": 8}
    weights = {"offload": {"params": "nvme", "optimizer": "nvme", "nvme_path": "/nvme"}}
    for model, offload in (
        ({"kind": "patch_lm", "shape": experts}, {}),
        ({"shape": None, "pretrained": "someone/some-vit"}, {}),
        ({"shape": "vit-huge"}, weights),
    ):
        made = config_of(recipe(model=model, strategy={"name": "zero3", **offload}))
        assert made["zero_optimization"]["stage3_max_live_parameters"] == 1_000_000_000


@pytest.mark.parametrize(
    ("name", "offload", "settings"),
    [
        ("zero2", {}, hugging_face(2)),
        ("zero2", {}, hugging_face(2, **STAGE3_AUTO)),
        ("zero1", {}, hugging_face(2, **STAGE3_AUTO, stage="auto")),
        ("zero2", {}, hugging_face(2, offload_optimizer={"device": "auto", "pin_memory": "auto", "nvme_path": "auto"})),
        ("zero2", CPU_OFF, hugging_face(2, offload_optimizer=PINNED_CPU)),
        ("zero3", {}, hugging_face(3)),
        ("zero3", ALL_OFF, hugging_face(3, offload_optimizer=PINNED_CPU, offload_param=PINNED_CPU)),
        ("zero3", {}, hugging_face(3) | {"amp": {"enabled": "auto", "opt_level": "auto"}}),
        (
            "zero2",
            {},
            {"scheduler": {"type": "WarmupDecayLR", "params": {"total_num_steps": "auto", "warmup_min_lr": 0}}},
        ),
    ],
)
def test_the_hugging_face_examples_are_taken_and_no_auto_is_left(
    deepspeed: ModuleType, name: str, offload: dict[str, Any], settings: dict[str, Any]
) -> None:
    plain = config_of(strategy(name, offload), "bf16", gpus(1))
    config = config_of(strategy(name, offload, deepspeed=settings), "bf16", gpus(1))
    assert "auto" not in list(values(config))
    assert set(config) == set(plain)  # neither optimizer nor scheduler: the recipe's are used
    assert config["steps_per_print"] == settings.get("steps_per_print", plain["steps_per_print"])
    for section in ("bf16", "fp16", "train_batch_size", "train_micro_batch_size_per_gpu", "gradient_clipping"):
        assert config[section] == plain[section]
    deepspeed.DeepSpeedConfig(copy.deepcopy(config))


def test_blocks_are_dropped_after_forward_but_from_a_drive_modules_are_kept() -> None:
    def distance(**parts: str) -> int:
        return config_of(strategy("zero3", parts))["zero_optimization"]["stage3_max_reuse_distance"]

    assert distance() == distance(optimizer="cpu", params="cpu") == 0
    assert distance(optimizer="nvme", params="nvme", nvme_path="/scratch") == 10**9


def test_the_names_known_at_the_top_are_those_that_deepspeed_reads(deepspeed: ModuleType) -> None:
    read: set[str] = set()

    class Recorder(dict[str, Any]):
        def __contains__(self, key: object) -> bool:
            read.add(str(key))
            return super().__contains__(key)

        def get(self, key: str, default: Any = None) -> Any:
            read.add(key)
            return super().get(key, default)

        def keys(self) -> Any:
            return self  # for `key in settings.keys()`

    deepspeed.DeepSpeedConfig(Recorder(train_batch_size=1))
    taken = {*config_of(strategy("zero2")), *NOT_GENERATED, "optimizer", "scheduler", "bfloat16"}
    sequence_parallel = {"sequence_parallel_size", "data_parallel_size"}  # read elsewhere
    assert read - set(deepspeed._REMOVED_TOP_LEVEL_CONFIG_KEYS) == taken - sequence_parallel
