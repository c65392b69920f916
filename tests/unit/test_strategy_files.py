"""Strategies that are files of other programs: what becomes of each key."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from plan_examples import CPU, FACTS, gpus, recipe
from strategy_files import ANY, TRAIN, WILD, chosen, refused, wild, write

from zerofit.config.errors import UserError
from zerofit.config.load import load_job, load_recipe
from zerofit.config.schema import Recipe
from zerofit.launch.dispatch import count_ranks
from zerofit.plan.accelerate_keys import DEEPSPEED, DYNAMO, FSDP, NOT_BESIDE_JSON, PARALLELISM, TOP
from zerofit.plan.build import make_plan
from zerofit.plan.spec import RunSpec
from zerofit.plan.strategy import resolve_strategy

DOCS = Path(__file__).parents[2] / "docs" / "interoperation.md"


def planned(said: Recipe, ranks: int = 8) -> RunSpec:
    return make_plan(said, facts=FACTS, hardware=gpus(8), ranks=ranks, run_dir=Path("a"))


@pytest.mark.parametrize(
    ("name", "strategy", "precision", "ranks"),
    [
        ("single_gpu", "single", "bf16", 1),
        ("multi_gpu", "ddp", "fp32", 8),
        ("deepspeed_zero1", "zero1", "bf16", 8),
        ("deepspeed_zero2", "zero2", "bf16", 8),
        ("deepspeed_zero3", "zero3", "bf16", 8),
        ("fsdp2", "fsdp2", "bf16", 8),
    ],
)
def test_files_from_the_wild_are_whole_strategies(
    tmp_path: Path, name: str, strategy: str, precision: str, ranks: int
) -> None:
    said = recipe(strategy={"accelerate": write(tmp_path, WILD[name])}, train=TRAIN)
    found = resolve_strategy(said)
    assert (found.strategy.name, found.strategy.precision) == (strategy, precision)
    assert (found.ranks, found.machines, found.cpu, found.gpus) == (ranks, 1, False, None)
    assert count_ranks(found, None, gpus(8), said.train) == ranks
    spec = planned(said, ranks)
    assert (spec.strategy, spec.precision) == (found.strategy, precision)
    assert spec.recipe.strategy == said.strategy  # nothing derived is written back
    assert (spec.deepspeed is not None) == name.startswith("deepspeed")


def test_the_files_that_trl_brings_with_it() -> None:
    shipped = Path(importlib.util.find_spec("trl").submodule_search_locations[0]) / "accelerate_configs"
    found = {}
    for path in sorted(shipped.glob("*.yaml")):
        try:
            strategy = chosen(str(path)).strategy
            found[path.stem] = (strategy.name, strategy.precision)
        except UserError as error:
            found[path.stem] = str(error).partition(path.name)[2]
    assert found == {
        "fsdp1": ":17: fsdp_config.fsdp_version is 1: zerofit runs FSDP2; "
        "`accelerate to-fsdp2 --config_file FILE --output_file NEW` converts it",
        "fsdp2": ("fsdp2", "bf16"),
        "multi_gpu": ("ddp", "bf16"),
        "single_gpu": ("single", "bf16"),
        "zero1": ("zero1", "bf16"),
        "zero2": ("zero2", "bf16"),
        "zero3": ("zero3", "bf16"),
    }


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("fsdp1", ["fsdp_config.fsdp_version is left out, which is 1", "accelerate to-fsdp2"]),
        ("context_parallel", ["parallelism_config_cp_size is 2", "differ in their samples alone"]),
    ],
)
def test_files_that_ask_for_what_there_is_not(tmp_path: Path, name: str, said: list[str]) -> None:
    path = write(tmp_path, WILD[name])
    message = refused(lambda: chosen(path))
    assert message.startswith(f"strategy.accelerate: {path}:")
    for part in said:
        assert part in message


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("multi_gpu", {"distributed_type": None}, "distributed_type is missing"),
        ("multi_gpu", {"distributed_type": "MEGATRON_LM"}, "distributed_type is 'MEGATRON_LM': zerofit has NO, MULTI"),
        ("multi_gpu", {"mixed_precision": "fp8"}, "mixed_precision is 'fp8': zerofit computes in no (float32)"),
        ("multi_gpu", {"compute_environment": "AMAZON_SAGEMAKER"}, "Amazon's are started by `accelerate launch`"),
        ("multi_gpu", {"num_process": 2}, "num_process is no key of accelerate 1.15; did you mean num_processes?"),
        ("multi_gpu", {"num_processes": 0}, "num_processes is 0: it takes a whole number, at least 1"),
        ("multi_gpu", {"machine_rank": 1}, "machine_rank is 1: with num_machines 1 it is below 1"),
        ("multi_gpu", {"num_machines": 3}, "num_processes is 8, which num_machines 3 does not divide"),
        ("multi_gpu", {"debug": True}, "debug is True: zerofit does not check each operation"),
        ("multi_gpu", {"enable_cpu_affinity": True}, "start it under numactl"),
        ("multi_gpu", {"tpu_use_cluster": True}, "not on TPUs"),
        ("multi_gpu", {"use_cpu": "maybe"}, "use_cpu is 'maybe': it takes true or false"),
        ("multi_gpu", {"dynamo_config": {"dynamo_backend": "EAGER"}}, "compiles with INDUCTOR, or not at all"),
        ("multi_gpu", {"dynamo_config": {"dynamo_mode": "max-autotune"}}, "zerofit compiles in the default mode"),
        ("multi_gpu", {"deepspeed_config": {"zero_stage": 2}}, "is not read with distributed_type MULTI_GPU"),
        ("deepspeed_zero2", {"deepspeed_config": {"zero_stage": 0}}, "DeepSpeed without ZeRO"),
        ("deepspeed_zero2", {"deepspeed_config": {"zero_stage": 4}}, "zero_stage is 4: it takes 1, 2 or 3"),
        ("deepspeed_zero2", {"deepspeed_config": {"offload_param_device": "cpu"}}, "use zero3+offload_all"),
        ("deepspeed_zero3", {"deepspeed_config": {"offload_param_device": "nvme"}}, "nvme needs nvme_path"),
        ("deepspeed_zero2", {"deepspeed_config": {"deepspeed_inclusion_filter": "a:0"}}, "num_machines above 1 alone"),
        (
            "deepspeed_zero2",
            {"deepspeed_config": {"deepspeed_moe_layer_cls_names": "A"}},
            "a mixture of experts as well",
        ),
        (
            "deepspeed_zero3",
            {
                "dynamo_backend": "INDUCTOR",
                "deepspeed_config": {
                    "offload_optimizer_device": "nvme",
                    "offload_optimizer_nvme_path": "/tmp",
                    "offload_param_device": "nvme",
                    "offload_param_nvme_path": "/tmp",
                },
            },
            "which a compiled one cannot: offload to cpu",
        ),
        ("fsdp2", {"fsdp_config": {"fsdp_version": 1}}, "fsdp_version is 1: zerofit runs FSDP2"),
        ("fsdp2", {"fsdp_config": {"fsdp_reshard_after_forward": False}}, "are what zero2 has"),
        ("fsdp2", {"fsdp_config": {"fsdp_auto_wrap_policy": "SIZE_BASED_WRAP"}}, "shards block by block"),
        ("fsdp2", {"fsdp_config": {"transformer_layer_cls_to_wrap": "LlamaDecoderLayer"}}, "the blocks of vit alone"),
        ("fsdp2", {"parallelism_config": {"parallelism_config_dp_shard_size": 4}}, "shards over all ranks"),
    ],
)
def test_a_key_that_cannot_be_honoured_is_named_with_the_reason(
    tmp_path: Path, name: str, changes: dict[str, Any], said: str
) -> None:
    path = write(tmp_path, wild(name, **changes))
    message = refused(lambda: chosen(path))
    assert message.startswith(f"strategy.accelerate: {path}")
    assert said in message


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"gradient_accumulation_steps": 4}, ["gradient_accumulation_steps is 4", "it is 1", "train.global_batch"]),
        ({"gradient_clipping": 1.0}, ["gradient_clipping is 1.0", "it is 0.0", "optimizer.clip_grad"]),
    ],
)
def test_what_contradicts_the_recipe_names_both_values(
    tmp_path: Path, changes: dict[str, Any], said: list[str]
) -> None:
    path = write(tmp_path, wild("deepspeed_zero2", deepspeed_config=changes))
    message = refused(lambda: planned(recipe(strategy={"accelerate": path}, train=TRAIN)))
    assert message.startswith(f"strategy.accelerate: {path}: ")
    for part in said:
        assert part in message


def test_fields_beside_a_file_fill_what_it_does_not_say(tmp_path: Path) -> None:
    path = write(tmp_path, wild("multi_gpu", mixed_precision=None))
    found = chosen(path, precision="bf16", activation_checkpointing="full", compile=True).strategy
    assert (found.precision, found.activation_checkpointing, found.compile) == ("bf16", "full", True)
    path = write(tmp_path, WILD["fsdp2"], "other.yaml")
    assert chosen(path, precision="bf16").strategy.precision == "bf16"
    assert "mixed_precision is 'bf16', but strategy.precision is 'fp16'" in refused(
        lambda: chosen(path, precision="fp16")
    )
    assert "but strategy.activation_checkpointing is 'full'" in refused(
        lambda: chosen(path, activation_checkpointing="full")
    )


def test_offload_compiling_and_older_spellings(tmp_path: Path) -> None:
    offload = {"offload_optimizer_device": "nvme", "offload_param_device": "nvme"}
    paths = {"offload_optimizer_nvme_path": "/fast", "offload_param_nvme_path": "/fast"}
    found = chosen(write(tmp_path, wild("deepspeed_zero3", deepspeed_config={**offload, **paths}))).strategy
    assert (found.offload.optimizer, found.offload.params, found.offload.nvme_path) == ("nvme", "nvme", "/fast")
    found = chosen(write(tmp_path, wild("fsdp2", fsdp_config={"fsdp_offload_params": True}))).strategy
    assert (found.offload.optimizer, found.offload.params) == ("cpu", "cpu")
    found = chosen(write(tmp_path, wild("multi_gpu", dynamo_config={"dynamo_backend": "INDUCTOR"}))).strategy
    assert found.compile
    older = wild("multi_gpu", mixed_precision=None, fp16=True, dynamo_backend="NO", deepspeed_config={}, fsdp_config={})
    found = chosen(write(tmp_path, older)).strategy
    assert (found.precision, found.compile) == ("fp16", False)
    Path(tmp_path / "file.yaml").write_text("distributed_type: NO\nmixed_precision: no\n")  # as YAML 1.1 misreads it
    found = chosen(str(tmp_path / "file.yaml")).strategy
    assert (found.name, found.precision) == ("single", "fp32")


def test_the_machine_has_to_be_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train = recipe(train=TRAIN).train
    file = chosen(write(tmp_path, WILD["multi_gpu"]))
    assert count_ranks(file, 8, gpus(8), train) == 8
    assert "asks for 8 ranks (num_processes), and --nproc says 4" in refused(
        lambda: count_ranks(file, 4, gpus(8), train)
    )
    assert count_ranks(chosen(write(tmp_path, wild("multi_gpu", num_processes=-1))), None, gpus(4), train) == 4
    on_cpu = chosen(write(tmp_path, wild("multi_gpu", use_cpu=True, num_processes=2)))
    assert count_ranks(on_cpu, None, CPU, train) == 2
    assert "says use_cpu, and this machine has GPUs" in refused(lambda: count_ranks(on_cpu, None, gpus(2), train))
    some = chosen(write(tmp_path, wild("multi_gpu", gpu_ids="2, 3", num_processes=2)))
    assert "set CUDA_VISIBLE_DEVICES=2,3" in refused(lambda: count_ranks(some, None, gpus(2), train))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    assert count_ranks(some, None, gpus(2), train) == 2
    many = chosen(write(tmp_path, WILD["two_machines"]))
    assert (many.ranks, many.machines) == (16, 2)
    message = refused(lambda: count_ranks(many, None, gpus(8), train))
    assert "wants ranks on 2 machines (by pdsh, hostfile /job/hostfile)" in message
    around = {"RANK": "0", "WORLD_SIZE": "16", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "8"}
    for name, value in {**around, "MASTER_ADDR": "a", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    assert count_ranks(many, 16, gpus(16), train) == 16
    assert "the outer launcher has started 8" in refused(lambda: count_ranks(many, 8, gpus(16), train))


QUANTIZED = {
    "task": "sft",
    "model": {"kind": "causal_lm", "shape": "qwen3-0.6b", "tokenizer": "bytes", "quantize": "nf4", "lora": {}},
    "data": {"source": "arithmetic"},
    "train": {"max_steps": 1, **TRAIN},
    "optimizer": {"lr": 1e-3},
}


def test_zero_init_is_nothing_for_weights_in_four_bits(tmp_path: Path) -> None:
    path = write(tmp_path, WILD["deepspeed_zero3"])
    said = Recipe.model_validate({**QUANTIZED, "strategy": {"accelerate": path}})
    message = refused(lambda: resolve_strategy(said))
    assert "zero3_init_flag is true, and weights in 4 bits (model.quantize) cannot be made by zero.Init" in message
    write(tmp_path, wild("deepspeed_zero3", deepspeed_config={"zero3_init_flag": False}))
    assert resolve_strategy(said).strategy.name == "zero3"
    write(tmp_path, wild("deepspeed_zero2", deepspeed_config={"zero3_init_flag": True}))  # says nothing there
    assert resolve_strategy(said).strategy.name == "zero2"


def test_a_deepspeed_file_is_a_whole_strategy(tmp_path: Path) -> None:
    zero = {
        "stage": 3,
        "overlap_comm": False,
        "sub_group_size": 1e6,
        "offload_optimizer": {"device": "cpu", "pin_memory": False},
        "offload_param": {"device": "cpu"},
    }
    auto = {"train_batch_size": "auto", "gradient_clipping": "auto", "fp16": {"enabled": "auto"}}
    settings = {"zero_optimization": zero, "bf16": {"enabled": True}, **auto}
    path = write(tmp_path, settings, "ds.json")
    spec = planned(recipe(strategy={"deepspeed": path}, train=TRAIN))
    assert (spec.strategy.name, spec.precision) == ("zero3", "bf16")
    assert (spec.strategy.offload.optimizer, spec.strategy.offload.params) == ("cpu", "cpu")
    assert not spec.strategy.offload.pin_memory
    assert spec.deepspeed is not None
    assert spec.deepspeed["train_batch_size"] == 64
    assert spec.deepspeed["zero_optimization"]["sub_group_size"] == 1e6
    Path(path).unlink()  # a worker, and whoever goes on with the run, needs no file
    assert RunSpec.model_validate(spec.model_dump(mode="json")).strategy == spec.strategy
    write(tmp_path, {"zero_optimization": {"stage": 3, "zero_quantized_weights": True}}, "ds.json")
    assert planned(recipe(strategy={"deepspeed": path}, train=TRAIN)).strategy.name == "zeropp"
    beside = write(tmp_path, wild("deepspeed_zero2", mixed_precision=None, deepspeed_config=None))
    Path(beside).write_text(Path(beside).read_text() + f"deepspeed_config: {{deepspeed_config_file: {path}}}\n")
    assert planned(recipe(strategy={"accelerate": beside}, train=TRAIN)).strategy.name == "zeropp"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"zero_optimization": {"stage": 0}}, "zerofit runs that as plain ddp; use strategy: ddp"),
        ({"train_batch_size": 64}, "zero_optimization must be a mapping with stage 1, 2 or 3, not None"),
        ({"zero_optimization": {"stage": "auto"}}, "stage is 'auto': it takes 1, 2 or 3"),
        (
            {"zero_optimization": {"stage": 2}, "train_batch_size": 32},
            "train_batch_size is 32, but by the recipe it is 64",
        ),
        (
            {"zero_optimization": {"stage": 2}, "bf16": {"enabled": True}},
            "bf16.enabled is True, but strategy.precision",
        ),
        ({"zero_optimization": {"stage": 2, "offload_param": {"device": "cpu"}}}, "use zero3+offload_all"),
        ({"zero_optimization": {"stage": 3, "offload_param": {"device": "disk"}}}, "device is 'disk': it takes none"),
    ],
)
def test_a_deepspeed_file_that_cannot_be(tmp_path: Path, settings: dict[str, Any], said: str) -> None:
    path = write(tmp_path, settings, "ds.json")
    made = recipe(strategy={"deepspeed": path, "precision": "fp16"}, train=TRAIN)
    message = refused(lambda: planned(made))
    assert message.startswith(f"strategy.deepspeed: {path}: ")
    assert said in message


def test_what_is_not_taken_beside_a_json(tmp_path: Path) -> None:
    ds = write(tmp_path, {"zero_optimization": {"stage": 2}}, "ds.json")
    only = {"deepspeed_config_file": ds, "zero3_init_flag": False}
    base = {key: value for key, value in ANY.items() if key != "mixed_precision"}
    made = {**base, "distributed_type": "DEEPSPEED", "deepspeed_config": only}
    assert chosen(write(tmp_path, made)).strategy.name == "zero2"
    for key in NOT_BESIDE_JSON:
        path = write(tmp_path, {**made, "deepspeed_config": {**only, key: 1}})
        assert f"deepspeed_config.{key} is not taken beside" in refused(lambda path=path: chosen(path))
    path = write(tmp_path, {**made, "mixed_precision": "no"})
    assert "mixed_precision is not taken beside deepspeed_config_file" in refused(lambda: chosen(path))


@pytest.mark.parametrize(
    ("strategy", "said"),
    [
        ("{name: ddp, accelerate: a.yaml}", "accelerate names a file that is the whole strategy, and name is ddp"),
        ("{deepspeed: a.json, accelerate: a.yaml}", "each the whole strategy"),
        ("{accelerate: a.yaml, offload: {optimizer: cpu}}", "offload is what the file says: leave it out"),
        ("{name: null}", "name is null, and no file says what the strategy is"),
    ],
)
def test_a_strategy_is_said_once(tmp_path: Path, strategy: str, said: str) -> None:
    assert said in refused(lambda: load_recipe("digits", [f"strategy={strategy}"]))


def test_an_override_of_a_name_or_a_file_drops_the_other(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    text = "model: {kind: vit, shape: vit-tiny}\ndata: {source: digits}\noptimizer: {lr: 1}\n"
    path.write_text(text + "train: {epochs: 1, micro_batch: 1, global_batch: 2}\nstrategy: zero2+offload_optimizer\n")

    def after(*overrides: str) -> Any:
        return load_recipe(str(path), overrides).strategy

    assert (after("strategy.accelerate=a.yaml").name, after("strategy.accelerate=a.yaml").accelerate) == (
        None,
        "a.yaml",
    )
    assert after("strategy.deepspeed=a.json").name == "zero2"  # laid over the named one, as ever
    assert after("strategy={deepspeed: a.json}").name is None
    whole = after("strategy.name=null", "strategy.offload={}", "strategy.deepspeed=a.json")
    assert (whole.name, whole.deepspeed) == (None, "a.json")
    path.write_text(text + "train: {epochs: 1, micro_batch: 1, global_batch: 2}\nstrategy: {accelerate: a.yaml}\n")
    assert (after("strategy=zero3").name, after("strategy=zero3").accelerate) == ("zero3", None)
    assert (after("strategy.name=ddp").name, after("strategy.name=ddp").accelerate) == ("ddp", None)
    path.write_text(text + "train: {epochs: 1, micro_batch: 1, global_batch: 2}\nstrategy: {deepspeed: a.json}\n")
    assert (after("strategy=zero3").name, after("strategy=zero3").deepspeed) == ("zero3", None)


def test_a_stage_may_have_a_file_where_the_others_have_a_name(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    text = "model: {kind: vit, shape: vit-tiny}\ndata: {source: digits}\noptimizer: {lr: 1}\n"
    text += "train: {epochs: 1, micro_batch: 1, global_batch: 2}\nstrategy: zero2\nstages:\n"
    path.write_text(text + "- {name: a}\n- {name: b, strategy: {accelerate: f.yaml}}\n- {name: c, strategy: ddp}\n")
    said = [(stage.strategy.name, stage.strategy.accelerate) for stage in load_job(str(path)).stages]
    assert said == [("zero2", None), (None, "f.yaml"), ("ddp", None)]


def test_every_key_that_accelerate_reads_is_known_and_documented() -> None:
    from accelerate.commands.config.config_args import ClusterConfig
    from accelerate.commands.launch import launch_command_parser

    legacy = {"fp16", "dynamo_backend"}
    assert set(ClusterConfig.__dataclass_fields__) == set(TOP) - legacy
    options = {action.dest for action in launch_command_parser()._actions}
    assert {name for name in options if name.startswith("fsdp_")} == set(FSDP) - {"fsdp_ignored_modules"}
    assert {name for name in options if name.startswith("dynamo_")} == set(DYNAMO)
    assert {name for name in options if name.startswith("parallelism_config_")} == set(PARALLELISM)
    ours = {
        "zero_stage",
        "zero3_init_flag",
        "zero3_save_16bit_model",
        "gradient_clipping",
        "gradient_accumulation_steps",
    }
    of_deepspeed = {name for name in options if name.startswith(("deepspeed_", "offload_"))} | (ours & options)
    assert of_deepspeed == set(DEEPSPEED)
    text = DOCS.read_text(encoding="utf-8")
    for key in (*TOP, *DEEPSPEED, *FSDP, *DYNAMO):
        assert f"`{key}`" in text, key
