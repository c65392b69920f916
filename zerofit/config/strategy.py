"""`strategy:` in a recipe: how the work is spread over ranks."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import model_validator

from zerofit.config.section import Section

STRATEGIES = ("single", "ddp", "fsdp2", "zero1", "zero2", "zero3", "zeropp")
REPLICATED = ("single", "ddp")
"""Those whose ranks hold everything."""
ZERO_STAGE = {"zero1": 1, "zero2": 2, "zero3": 3, "zeropp": 3}
StrategyName = Literal["single", "ddp", "fsdp2", "zero1", "zero2", "zero3", "zeropp"]
NameOrAuto = Literal["auto", "single", "ddp", "fsdp2", "zero1", "zero2", "zero3", "zeropp"]
AUTO: Literal["auto"] = "auto"
"""What stands for a value that the planner chooses."""


class Offload(Section):
    """What lives outside the GPU between uses."""

    optimizer: Literal["cpu", "nvme"] | None = None
    """Where master weights and optimizer state live."""
    params: Literal["cpu", "nvme"] | None = None
    """Where weights live."""
    pin_memory: bool = True
    """Page-locked host memory: faster copies, more host memory."""
    nvme_path: str | None = None
    """Directory on the NVMe drive; needed for nvme."""

    @model_validator(mode="after")
    def _nvme(self) -> Offload:
        if "nvme" in (self.optimizer, self.params) and self.nvme_path is None:
            raise ValueError("nvme needs nvme_path, a directory on that drive")
        return self


class Strategy(Section):
    """How the work is spread. Short forms: `auto`, `zero2`, `zero2+offload_optimizer`, `zero3+offload_all`."""

    name: NameOrAuto | None = AUTO
    """Who holds what: see docs/numerics.md. auto: the fastest that fits, offload included (docs/plan.md). null, or left
    out beside a file: what that file says."""
    offload: Offload = Offload()
    """Offload of optimizer state and weights; under auto it is chosen."""
    precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    """auto: fp16 below compute capability 8.0, bf16 above, fp32 on CPU."""
    activation_checkpointing: Literal["auto", "none", "selective", "full"] = AUTO
    """Recompute nothing, every other block, or every block in backward. auto: chosen along with the strategy or the
    micro-batch, where one of them is auto, else none."""
    compile: bool = False
    """`torch.compile` the transformer blocks; not with weights on a drive."""
    accelerate: str | None = None
    """A file of `accelerate config` that is the whole strategy, in place of `name` and `offload`."""
    deepspeed: dict[str, Any] | str | None = None
    """DeepSpeed settings, a mapping or the path of a JSON file, laid over the generated ones of a ZeRO strategy;
    without `name` they are the whole strategy, in place of `name` and `offload`."""

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        raw = parse_strategy(value) if isinstance(value, str) else value
        if isinstance(raw, dict) and "name" not in raw and any(raw.get(file) is not None for file in FILES):
            return {**raw, "name": None}
        return raw

    @model_validator(mode="after")
    def _possible(self) -> Strategy:
        if self.name is None:
            return self._whole()
        if self.accelerate is not None:
            raise ValueError(f"accelerate names a file that is the whole strategy, and name is {self.name}: drop one")
        where = self.offload
        if self.name == AUTO:
            return self._chosen()
        if self.name in REPLICATED and (where.optimizer or where.params):
            raise ValueError(f"{self.name} cannot offload: use a ZeRO strategy or fsdp2")
        if self.name == "fsdp2":
            if "nvme" in (where.optimizer, where.params):
                raise ValueError("fsdp2 cannot offload to nvme: use zero3")
            if where.optimizer and not where.params:
                raise ValueError(
                    "fsdp2 cannot offload the optimizer alone, which works on the sharded weights where they lie: "
                    "use fsdp2+offload_all, or zero2+offload_optimizer"
                )
            if where.params and not where.optimizer:
                raise ValueError("fsdp2 offloads weights and optimizer together: use fsdp2+offload_all")
        if self.name in ("zero1", "zero2") and where.params:
            raise ValueError(
                f"{self.name} keeps whole weights on every rank and cannot offload them: use zero3+offload_all"
            )
        if self.name in ("zero1", "zero2") and where.optimizer == "nvme":
            raise ValueError(f"{self.name} offloads to cpu alone: nvme needs zero3")
        if self.compile and ZERO_STAGE.get(self.name) == 3 and where.params == "nvme":
            raise ValueError(
                f"{self.name} reads weights from a drive inside each block, which a compiled one cannot: offload to cpu"
            )
        if self.deepspeed is not None and self.name not in ZERO_STAGE:
            raise ValueError(f"deepspeed settings need a ZeRO strategy, not {self.name}")
        return self

    def _chosen(self) -> Strategy:
        """Of a strategy that is chosen."""
        if self.offload.model_copy(update={"pin_memory": True}) != Offload():
            raise ValueError("auto chooses what is offloaded, too: leave offload out, or name a strategy: zero2, zero3")
        if self.deepspeed is not None:
            raise ValueError("deepspeed settings need a ZeRO strategy by its name, not auto")
        return self

    def _whole(self) -> Strategy:
        """Of a strategy that a file says."""
        if self.accelerate is None and self.deepspeed is None:
            raise ValueError("name is null, and no file says what the strategy is: give name, accelerate or deepspeed")
        if self.accelerate is not None and self.deepspeed is not None:
            raise ValueError(
                "accelerate and deepspeed are each the whole strategy: name the DeepSpeed file in the other one, as "
                "deepspeed_config.deepspeed_config_file"
            )
        if self.offload != Offload():
            raise ValueError("offload is what the file says: leave it out")
        return self


FILES = ("accelerate", "deepspeed")
"""Fields of a strategy that may name a file which is all of it."""


def parse_strategy(text: str) -> dict[str, Any]:
    """`zero3+offload_all` -> the mapping it stands for. Raises ValueError on an unknown addition."""
    name, *additions = text.split("+")
    offload: dict[str, str] = {}
    for addition in additions:
        if addition not in ("offload_optimizer", "offload_all"):
            raise ValueError(f"unknown addition +{addition}: use +offload_optimizer or +offload_all")
        offload["optimizer"] = "cpu"
        if addition == "offload_all":
            offload["params"] = "cpu"
    return {"name": name, "offload": offload} if offload else {"name": name}
