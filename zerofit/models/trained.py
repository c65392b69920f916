"""What every model is that a run trains: transformers' modules, their blocks, and how weights come to fit them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, Self

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from zerofit.config.errors import UserError
from zerofit.plan.spec import RunSpec

EMBEDDINGS = re.compile(r"embed|cls_token|\bwpe\b|\bwte\b|project_in")
"""Names, outside the blocks, of what comes before them; all other names come after them (final norm, head)."""


class TrainedModel(nn.Module):
    """A transformers model, or a module around one."""

    accepts_loss_kwargs: bool
    """Whether the loss is divided by what counts in the whole global batch, and not by Trainer."""
    prefix: str
    """What names of `family` have in front in names of this model."""
    blocks_name: str
    """The transformer blocks' nn.ModuleList."""
    compute_dtype: torch.dtype
    """Dtype of the weights in the forward pass, which under mixed precision is not their stored one."""
    frozen_dtype: torch.dtype | None = None
    """Dtype in which frozen weights are held, where it is not the placement's."""
    frozen_hash: str | None = None
    """Of the frozen weights, in a run that trains a part."""
    config: Any
    """The family's transformers config."""
    patches: int
    """Patches of an image; 0 for text."""
    tokens: int
    """Tokens of a sample: of an image, a class token included; of text on average."""
    span: int
    """Of these, how many see each other: all of an image, a row of text (rows may share a sample)."""
    causal: bool
    """Whether a token sees the later ones."""
    uniform: bool = True
    """Whether all that a sample is made of passes the same layers."""
    additions: tuple[str, ...] = ()
    """In front of the names of parts that `init_from` may lack altogether: an earlier stage had none."""

    @property
    def once(self) -> nn.Module | None:
        """The linear layer that is applied once a sample, and not to each token."""
        return None

    @property
    def family(self) -> PreTrainedModel:
        """The part that is transformers' own, whose published weights fit it."""
        raise NotImplementedError

    @property
    def families(self) -> dict[str, PreTrainedModel]:
        """All parts that are transformers' own, by what their names have in front in names of this model."""
        return {self.prefix: self.family}

    @property
    def idle(self) -> frozenset[str]:
        """Parameters that no forward pass uses. Engines wait for all gradients: these are frozen, whatever rules say.

        Not to be asked for while an engine constructs modules.
        """
        return frozenset()

    def pretrained_parts(self, spec: RunSpec) -> dict[str, str]:
        """Of parts besides the family the pretrained weights that the recipe names, by what their names begin with."""
        return {}

    def part_weights(self, part: str, source: str) -> Iterator[tuple[str, Tensor]]:
        """(name, value) of one of `pretrained_parts`."""
        raise AssertionError(f"{part} has no weights of its own")

    def draw(self, name: str, value: Tensor) -> None:
        """Fill a parameter outside the families with its first values."""
        raise AssertionError(f"{name} is of the family")

    @property
    def blocks(self) -> nn.ModuleList:
        """The family's transformer blocks, in order: the unit of layer-wise decay."""
        blocks = self.get_submodule(self.blocks_name)
        assert isinstance(blocks, nn.ModuleList)
        return blocks

    @property
    def stacks(self) -> tuple[nn.ModuleList, ...]:
        """The blocks, and those of further parts: all of them are sharded and recomputed one by one."""
        return (self.blocks,)

    def depth_of(self, name: str) -> int:
        """Depth of a parameter by its name: 0 embeddings, 1..n the blocks, n + 1 final norm and head."""
        prefix = f"{self.blocks_name}."
        if name.startswith(prefix):
            return 1 + int(name[len(prefix) :].split(".", 1)[0])
        return 0 if EMBEDDINGS.search(name) else len(self.blocks) + 1

    def fit_pretrained(self, name: str, value: Tensor, shape: torch.Size) -> Tensor:
        """A pretrained parameter's value, made to fit this model. Raises UserError where it cannot."""
        if value.shape != shape:
            raise UserError(
                f"model.pretrained: {name} has shape {tuple(value.shape)} in the weights, but its config.json asks for "
                f"{tuple(shape)}: weights and config.json are not of the same model"
            )
        return value

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """As `nn.Module._apply`, but buffers keep their dtype.

        `model.bfloat16()`, which DeepSpeed calls, would else round rotary frequencies: positions would differ
        between strategies.
        """
        before = dict(self.named_buffers())
        super()._apply(fn, recurse)
        for name, buffer in before.items():
            after = self.get_buffer(name)
            if after.dtype != buffer.dtype:
                set_buffer(self, name, buffer.to(after.device))
        return self


def set_buffer(model: nn.Module, name: str, value: Tensor) -> None:
    """Replace the buffer called `name` by `value`, whatever its device, dtype and persistence."""
    owner, _, leaf = name.rpartition(".")
    model.get_submodule(owner)._buffers[leaf] = value


def name_of_blocks(family: PreTrainedModel) -> str:
    """Name of the one outermost nn.ModuleList of `family`. Raises UserError where there is none, or several."""
    lists = [name for name, module in family.named_modules() if isinstance(module, nn.ModuleList)]
    outermost = [name for name in lists if not any(name.startswith(f"{other}.") for other in lists)]
    if len(outermost) != 1:
        found = f"it has {len(outermost)}: {', '.join(outermost)}" if outermost else "it has none"
        raise UserError(
            f"model: a backbone needs one list of transformer blocks, but {type(family).__name__} is built "
            f"otherwise ({found}); use a decoder such as qwen3, llama or gpt2"
        )
    return outermost[0]
