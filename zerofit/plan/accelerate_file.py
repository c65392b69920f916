"""A file of `accelerate config` that is a whole strategy: read, checked key by key, and said in a strategy's fields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from zerofit.config.errors import UserError, did_you_mean
from zerofit.config.limited import read_limited
from zerofit.config.model import CausalLM, Model
from zerofit.config.yaml_lines import Document, parse
from zerofit.plan.accelerate_keys import NOT_BESIDE_JSON, SECTIONS, TOP, Only, Rules
from zerofit.plan.deepspeed_file import read_deepspeed, whole_strategy
from zerofit.plan.file_words import Said, Word, is_count, plain
from zerofit.plan.shapes import known_fields

Config = dict[str, Any]

TYPES = {"no": "single", "multi_gpu": "ddp", "multi_cpu": "ddp", "deepspeed": "deepspeed", "fsdp": "fsdp2"}
PRECISIONS = {"no": "fp32", "fp16": "fp16", "bf16": "bf16"}
STANDARD = "standard"


@dataclass(frozen=True)
class AccelerateFile:
    """What a file says."""

    where: str
    """How messages on it begin."""
    settings: str
    """How messages on its DeepSpeed settings begin."""
    fields: Said
    """Of the strategy."""
    deepspeed: Config | None = None
    """Settings for DeepSpeed, to be laid over the generated ones."""
    ranks: int | None = None
    machines: int = 1
    starter: str | None = None
    cpu: bool = False
    gpus: str | None = None


class Reader:
    """A file's sections, without keys that say nothing, each checked against its rules."""

    def __init__(self, path: str) -> None:
        self.where = f"strategy.accelerate: {path}"
        try:
            text = read_limited(Path(path).expanduser()).decode("utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise UserError(f"strategy.accelerate: cannot read {path}: {reason}") from None
        self.document: Document = parse(text, self.where)
        if not isinstance(self.document.value, dict):
            raise UserError(
                f"{self.where}: is no file of `accelerate config`, which is a mapping with distributed_type"
            )
        self.top = self._checked(self.document.value, TOP, ())

    def section(self, name: str) -> Config:
        """A section by accelerate's own names of its keys; empty where there is none. Raises UserError."""
        given = self.top.get(name, {})
        if not isinstance(given, dict):
            raise self.error((name,), f"must be a mapping, not {given!r}")
        prefix, rules = SECTIONS[name]
        return self._checked(given, rules, (name,), prefix)

    def _checked(self, given: Mapping[str, Any], rules: Rules, above: tuple[str, ...], prefix: str = "") -> Config:
        found: Config = {}
        for written, value in given.items():
            key = written if written.startswith(prefix) else f"{prefix}{written}"
            place = (*above, written)
            if key not in rules:
                raise self.error(place, f"is no key of accelerate 1.15{did_you_mean(key, rules)}")
            if value is None or value in ("", [], {}, [""]) or plain(value) == "none":
                continue
            rule = rules[key]
            if isinstance(rule, Only) and plain(value) not in rule.values:
                raise self.error(place, f"is {value!r}: {rule.reason}")
            found[key] = value
        return found

    def error(self, place: tuple[str, ...], reason: str) -> UserError:
        """With the line where `place` stands."""
        line = self.document.line(place)
        return UserError(f"{self.where}{'' if line is None else f':{line}'}: {'.'.join(place)} {reason}")

    def true(self, section: Config, *place: str) -> bool:
        """A key that is true or false; false where it is left out. Raises UserError."""
        value = plain(section.get(place[-1], False))
        if not isinstance(value, bool):
            raise self.error(place, f"is {section[place[-1]]!r}: it takes true or false")
        return value

    def count(self, key: str, least: int) -> int | None:
        """A whole number at the top; null where it is left out. Raises UserError."""
        value = self.top.get(key)
        if value is not None and not is_count(value, least):
            raise self.error((key,), f"is {value!r}: it takes a whole number, at least {least}")
        return value


def read_accelerate(path: str, model: Model) -> AccelerateFile:
    """What the file says of the strategy and the machine. Raises UserError, one line, with the key and its line.

    `model` is what is to be trained: it decides which blocks can be named, and whether zero.Init can be used.
    """
    reader = Reader(path)
    top = reader.top
    if "distributed_type" not in top:
        raise UserError(f"{reader.where}: distributed_type is missing: NO, MULTI_GPU, MULTI_CPU, DEEPSPEED or FSDP")
    kind = "no" if plain(top["distributed_type"]) is False else plain(top["distributed_type"])
    if not isinstance(kind, str) or kind not in TYPES:
        reason = f"is {top['distributed_type']!r}: zerofit has NO, MULTI_GPU, MULTI_CPU, DEEPSPEED and FSDP"
        raise reader.error(("distributed_type",), reason)
    where = f"{reader.where}: "
    file = AccelerateFile(where, where, {"name": Word("distributed_type", top["distributed_type"], TYPES[kind])})
    file = _machine(reader, kind, file)
    precision = _precision(reader)
    for section, owner in (("deepspeed_config", "deepspeed"), ("fsdp_config", "fsdp"), ("parallelism_config", "fsdp")):
        if kind != owner and reader.section(section):
            reason = f"is not read with distributed_type {top['distributed_type']}: leave it out"
            raise reader.error((section,), reason)
    if kind == "deepspeed":
        file = _deepspeed(reader, file, model, precision)
    elif kind == "fsdp":
        file = replace(file, fields=file.fields | _fsdp(reader, model, file.ranks))
    said = {"precision": precision, "compile": _compiled(reader)}
    return replace(file, fields=file.fields | {field: word for field, word in said.items() if word is not None})


def _machine(reader: Reader, kind: str, file: AccelerateFile) -> AccelerateFile:
    top = reader.top
    ranks, machines, place = top.get("num_processes"), reader.count("num_machines", 1) or 1, top.get("machine_rank", 0)
    ranks = None if ranks == -1 else reader.count("num_processes", 1)
    if not is_count(place) or place >= machines:
        raise reader.error(("machine_rank",), f"is {place!r}: with num_machines {machines} it is below {machines}")
    if ranks is not None and ranks % machines:
        raise reader.error(("num_processes",), f"is {ranks}, which num_machines {machines} does not divide")
    gpus = str(top["gpu_ids"]).replace(" ", "") if "gpu_ids" in top else "all"
    if kind == "no":
        ranks = 1  # `accelerate launch` starts one then, whatever num_processes says
    return replace(
        file,
        ranks=ranks,
        machines=machines,
        cpu=reader.true(top, "use_cpu") or kind == "multi_cpu",
        gpus=None if plain(gpus) == "all" else gpus,
    )


def _precision(reader: Reader) -> Word | None:
    top = reader.top
    if "mixed_precision" not in top:
        return Word("fp16", True, "fp16") if reader.true(top, "fp16") else None
    given = top["mixed_precision"]
    asked = "no" if plain(given) is False else plain(given)
    if not isinstance(asked, str) or asked not in PRECISIONS:
        raise reader.error(("mixed_precision",), f"is {given!r}: zerofit computes in no (float32), fp16 or bf16")
    return Word("mixed_precision", given, PRECISIONS[asked])


def _compiled(reader: Reader) -> Word | None:
    section = reader.section("dynamo_config")
    place: tuple[str, ...] = ("dynamo_config", "dynamo_backend")
    if "dynamo_backend" in reader.top:  # as older versions wrote it
        section, place = {"dynamo_backend": reader.top["dynamo_backend"]}, ("dynamo_backend",)
    backend = section.get("dynamo_backend")
    if backend is None or plain(backend) in (False, "no"):
        return None
    if plain(backend) != "inductor":
        raise reader.error(place, f"is {backend!r}: zerofit compiles with INDUCTOR, or not at all")
    return Word(".".join(place), backend, True)


def _deepspeed(reader: Reader, file: AccelerateFile, model: Model, precision: Word | None) -> AccelerateFile:
    section = reader.section("deepspeed_config")
    starter = _starter(reader, section, file.machines)
    where = f"{file.where}deepspeed_config."
    if "deepspeed_config_file" in section:
        for key in NOT_BESIDE_JSON:
            if key in section:
                reason = "is not taken beside deepspeed_config_file, by accelerate neither: say it in that file alone"
                raise reader.error(("deepspeed_config", key), reason)
        if precision is not None:
            reason = "is not taken beside deepspeed_config_file, by accelerate neither: say it there, in bf16 or fp16"
            raise reader.error((precision.key,), reason)
        settings, where = read_deepspeed(str(section["deepspeed_config_file"]), f"{where}deepspeed_config_file: ")
    else:
        settings = _settings(reader, section)
    said = whole_strategy(settings, where)
    stage3 = said["name"].value in ("zero3", "zeropp")
    quantized = isinstance(model, CausalLM) and model.quantize is not None
    if stage3 and quantized and reader.true(section, "deepspeed_config", "zero3_init_flag"):
        reason = "is true, and weights in 4 bits (model.quantize) cannot be made by zero.Init: set it to false"
        raise reader.error(("deepspeed_config", "zero3_init_flag"), reason)
    return replace(file, fields=file.fields | said, deepspeed=settings, starter=starter, settings=where)


def _settings(reader: Reader, section: Config) -> Config:
    """DeepSpeed's own settings of what the file says of them."""
    stage = section.get("zero_stage", 2)  # accelerate's default
    if not is_count(stage) or stage > 3:
        raise reader.error(("deepspeed_config", "zero_stage"), f"is {stage!r}: it takes 1, 2 or 3")
    zero: Config = {"stage": stage}
    for name in ("offload_optimizer", "offload_param"):
        device = plain(section.get(f"{name}_device", "none"))
        if device == "none":
            continue
        zero[name] = {"device": device}
        if device == "nvme" and f"{name}_nvme_path" in section:
            zero[name]["nvme_path"] = section[f"{name}_nvme_path"]
    passed = ("gradient_accumulation_steps", "gradient_clipping")
    return {**{key: section[key] for key in passed if key in section}, "zero_optimization": zero}


def _starter(reader: Reader, section: Config, machines: int) -> str | None:
    """How ranks on other machines are started. Raises UserError for settings that one machine has no use for."""
    words = ("deepspeed_hostfile", "deepspeed_inclusion_filter", "deepspeed_exclusion_filter")
    if machines == 1:
        for key in words:
            if key in section:
                reason = (
                    "is read with num_machines above 1 alone: leave it out, and choose GPUs by CUDA_VISIBLE_DEVICES"
                )
                raise reader.error(("deepspeed_config", key), reason)
        return None
    launcher = str(section.get("deepspeed_multinode_launcher", "pdsh"))
    said = [f"{key.removeprefix('deepspeed_').replace('_', ' ')} {section[key]}" for key in words if key in section]
    return ", ".join([launcher, *said])


def _fsdp(reader: Reader, model: Model, ranks: int | None) -> Said:
    above, given = "fsdp_config", reader.top.get("fsdp_config", {})
    version = given.get("fsdp_version", given.get("version", "left out, which is 1")) if isinstance(given, dict) else 2
    if version != 2:
        reason = (
            f"is {version}: zerofit runs FSDP2; `accelerate to-fsdp2 --config_file FILE --output_file NEW` converts it"
        )
        raise reader.error((above, "fsdp_version"), reason)
    section = reader.section(above)
    _blocks(reader, section, model)
    shards = reader.section("parallelism_config").get("parallelism_config_dp_shard_size", 1)
    if shards not in (1, ranks):
        reason = f"is {shards!r}: zerofit shards over all ranks, which are num_processes ({ranks})"
        raise reader.error(("parallelism_config", "parallelism_config_dp_shard_size"), reason)
    said: Said = {}
    if reader.true(section, above, "fsdp_offload_params"):
        said["offload"] = Word(f"{above}.fsdp_offload_params", True, {"optimizer": "cpu", "params": "cpu"})
    if "fsdp_activation_checkpointing" in section:
        whole = reader.true(section, above, "fsdp_activation_checkpointing")
        key = f"{above}.fsdp_activation_checkpointing"
        said["activation_checkpointing"] = Word(key, whole, "full" if whole else "none")
    return said


def _blocks(reader: Reader, section: Config, model: Model) -> None:
    """Raise UserError where the classes to be wrapped are not this model's blocks, as far as its shape tells."""
    key = "fsdp_transformer_layer_cls_to_wrap"
    family = str((known_fields(model) or {}).get("model_type", "")).replace("_", "")
    names = [name.strip() for name in str(section.get(key, "")).split(",") if name.strip()]
    other = [name for name in names if not name.lower().startswith(family)]
    if other or len(names) > 1:
        reason = f"is {section[key]!r}: zerofit shards the blocks of {family or 'the model'} alone; leave it out"
        raise reader.error(("fsdp_config", key), reason)
