"""`torch.autocast("cpu")` with the rules of `torch.autocast("cuda")`.

A CPU's autocast leaves norms, softmax, exp and the like in the lower precision, which CUDA computes in float32: what is
kept for backward is then half as large. The lists are those of ATen/autocast_mode.h (torch 2.13), less what is named
alike for CPUs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

# fmt: off
LOWER = (
    "addmv", "addr", "mv", "einsum", "chain_matmul", "linalg_multi_dot", "linalg_vecdot",
)
"""Computed in the lower precision (AT_FORALL_LOWER_PRECISION_FP)."""
FLOAT32 = (
    "acos", "asin", "cosh", "erfinv", "exp", "expm1", "log", "log10", "log2", "log1p", "reciprocal", "rsqrt", "sinh",
    "tan", "pow.Tensor_Scalar", "pow.Tensor_Tensor", "pow.Scalar", "softplus", "layer_norm", "native_layer_norm",
    "rms_norm", "group_norm", "frobenius_norm.dim", "nuclear_norm", "nuclear_norm.dim", "cosine_similarity", "dist",
    "pdist", "renorm", "logsumexp", "upsample_bilinear2d", "upsample_bicubic2d", "upsample_nearest2d",
)
"""Computed in float32 (AT_FORALL_FP32)."""
FLOAT32_RESULT = (
    "softmax.int", "log_softmax.int", "cumprod", "cumsum", "linalg_vector_norm", "sum", "sum.dim_IntList",
)
"""Given float32 as the result's type, unless they are given another (AT_FORALL_FP32_SET_OPT_DTYPE)."""
# fmt: on
KEY = "AutocastCPU"


@contextmanager
def like_cuda() -> Iterator[None]:
    """Autocast on CPU tensors casts as it does on CUDA's."""
    library = torch.library.Library("aten", "IMPL")
    try:
        for name in LOWER:
            _register(library, name, lower)
        for name in FLOAT32:
            _register(library, name, float32)
        for name in FLOAT32_RESULT:
            _register(library, name, float32_result)
        yield
    finally:
        library._destroy()


def _register(library: torch.library.Library, name: str, policy: Callable[..., Any]) -> None:
    packet, _, overload = name.partition(".")
    op = getattr(getattr(torch.ops.aten, packet), overload or "default")
    if not torch._C._dispatch_has_kernel_for_dispatch_key(op.name(), KEY):
        library.impl(name, partial(policy, op), KEY)


def lower(op: Any, *args: Any, **options: Any) -> Any:
    """`op` of arguments in autocast's type."""
    return _of(torch.get_autocast_dtype("cpu"), op, args, options)


def float32(op: Any, *args: Any, **options: Any) -> Any:
    """`op` of arguments in float32."""
    return _of(torch.float32, op, args, options)


def float32_result(op: Any, *args: Any, **options: Any) -> Any:
    """`op` with a result in float32, where its first argument is of lower precision and no type is asked for."""
    names = [argument.name for argument in op._schema.arguments]
    given = dict(zip(names, args, strict=False)) | options
    if args[0].is_floating_point() and args[0].dtype != torch.float64 and given.get("dtype") is None:
        given["dtype"] = torch.float32
    with _without_autocast():
        return op(args[0], **{name: value for name, value in given.items() if name != names[0]})


def _of(dtype: torch.dtype, op: Any, args: Any, options: Any) -> Any:
    def cast(tensor: Tensor) -> Tensor:
        return tensor.to(dtype) if tensor.is_floating_point() and tensor.dtype != torch.float64 else tensor

    with _without_autocast():
        args, options = tree_map_only(Tensor, cast, (args, options))
        return op(*args, **options)


def _without_autocast() -> Any:
    return torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastCPU))
