"""Counts what operations allocate, on tensors that have no memory."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from zerofit.models.quantised import scale_tensors
from zerofit.models.trained import TrainedModel
from zerofit.plan.prediction import TooLong
from zerofit.predict.ledger import Account, Kind, Ledger, Phase
from zerofit.predict.sizes import rounded
from zerofit.predict.workspaces import WORKSPACES

DEVICE = torch.ops.prim.device.default
MOST = 100_000
"""Operations that are played through: a minute at most. Qwen3-8B takes a third of them, and a recurrent model whose
kernels are CUDA's alone some for each token."""


class Observer(Protocol):
    """Sees every operation on tensors, in order."""

    def begin(self, model: TrainedModel) -> None:
        """Before the first one, the model whose operations they will be."""

    def op(self, func: Any, args: Sequence[Any], outputs: Any, phase: Phase) -> None:
        """Of the overload `func`, after it; `outputs` is a tensor, a sequence with tensors, or neither."""


class Watch(TorchDispatchMode):
    """Books every storage that an operation makes, for as long as something holds it.

    What parameters and buffers of `model` lie in is left out: engines book that. Gradients of parameters are booked as
    such once they are complete. To be entered after the fake mode. Raises TooLong after MOST operations.
    """

    def __init__(
        self, ledger: Ledger, model: nn.Module, logits: Iterable[int] = (), observers: Sequence[Observer] = ()
    ) -> None:
        """A tensor whose last dimension is one of `logits` is one of logits."""
        super().__init__()
        self.ledger, self.observers = ledger, observers
        self._operations = 0
        self._logits = frozenset(logits)
        held = [*model.parameters(), *model.buffers(), *scale_tensors(model)]
        self._left_out = {tensor.untyped_storage()._cdata for tensor in held}
        self._known: dict[int, tuple[weakref.ref[Any], Account]] = {}
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(self._complete)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled here, and telling so at each operation takes as long as the rest

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is DEVICE:  # half of all calls, which make nothing
            return args[0].fake_device
        self._operations += 1
        if self._operations > MOST:
            raise TooLong(
                f"its model makes more than {MOST:,} operations of a step, as without CUDA kernels of its own"
            )
        outputs = func(*args, **(kwargs or {}))
        if isinstance(outputs, Tensor):
            self.book(outputs)
        elif isinstance(outputs, (tuple, list)):
            for one in outputs:
                if isinstance(one, Tensor):
                    self.book(one)
        workspace = WORKSPACES.get(func.name())
        if workspace is not None:
            self.ledger.open("other", workspace(*args)).close()
        for observer in self.observers:
            observer.op(func, args, outputs, self.ledger.phase)
        return outputs

    def book(self, tensor: Tensor, kind: Kind = "activations") -> None:
        """Count what `tensor` lies in, unless it is counted already."""
        storage = tensor.untyped_storage()
        key: int = storage._cdata
        if key in self._known or key in self._left_out:
            return
        size = rounded(storage.nbytes())
        if size:
            if tensor.dim() in (2, 3) and tensor.shape[-1] in self._logits:
                kind = "logits"
            account = self.ledger.open(kind, size)
            self._known[key] = weakref.ref(storage, self._forgetting(key, account)), account

    def taken(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """`batch`, which is on the device from now on."""
        for tensor in batch.values():
            self.book(tensor, "other")
        return batch

    def _forgetting(self, key: int, account: Account) -> Callable[[Any], None]:
        def forget(_: Any) -> None:
            account.close()
            del self._known[key]

        return forget

    def _complete(self, parameter: Tensor) -> None:
        assert parameter.grad is not None
        known = self._known.get(parameter.grad.untyped_storage()._cdata)
        if known is not None:
            known[1].become("gradients")
