"""Which replay a ZeRO strategy has, with what it offloads."""

from __future__ import annotations

from zerofit.plan.spec import RunSpec
from zerofit.predict.replay import Books, Replay
from zerofit.predict.zero import Zero
from zerofit.predict.zero1_bf16 import Bf16Zero1
from zerofit.predict.zero3 import Zero3, ZeroPlusPlus
from zerofit.predict.zero3_offloaded import OffloadedZero3, OffloadedZeroPlusPlus
from zerofit.predict.zero_offloaded import OffloadedZero


def zero1(spec: RunSpec, books: Books) -> Replay:
    """DeepSpeed has two optimizers for it (runtime/engine.py:2305)."""
    assert spec.deepspeed is not None
    in_float = spec.deepspeed["data_types"]["grad_accum_dtype"] == "fp32"
    if spec.precision == "bf16" and in_float and not spec.strategy.offload.optimizer:
        return Bf16Zero1(spec, books)
    return zero2(spec, books)


def zero2(spec: RunSpec, books: Books) -> Replay:
    """ZeRO-2."""
    return (OffloadedZero if spec.strategy.offload.optimizer else Zero)(spec, books)


def zero3(spec: RunSpec, books: Books) -> Replay:
    """ZeRO-3."""
    return (OffloadedZero3 if _offloads(spec) else Zero3)(spec, books)


def zeropp(spec: RunSpec, books: Books) -> Replay:
    """ZeRO++."""
    return (OffloadedZeroPlusPlus if _offloads(spec) else ZeroPlusPlus)(spec, books)


def _offloads(spec: RunSpec) -> bool:
    return bool(spec.strategy.offload.optimizer or spec.strategy.offload.params)
