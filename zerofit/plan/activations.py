"""What autograd keeps of transformer blocks for backward, in bytes. Closed form, by what their operations save.

Refines the 34 x tokens x hidden bytes a block of Korthikanti et al. (2022, section 4.1) by what is trained, what norms
compute in, gates, shared keys, and autocast. Checked against transformers 5.23: docs/plan.md.
"""

from __future__ import annotations

from dataclasses import dataclass

from zerofit.plan.anatomy import Anatomy, Part
from zerofit.plan.blocks import Block
from zerofit.plan.precision import AMPERE
from zerofit.plan.states import FLOAT, Engine, Sizes

FIRST = ("q_proj", "k_proj", "v_proj", "query", "key", "value", "c_attn")
SECOND = ("up_proj", "gate_proj", "fc1", "up", "c_fc")
LAST = ("down_proj", "fc2", "down", "mlp.c_proj")
"""How names of linear layers end that take the first norm, the second norm, and what is between an MLP's matrices."""


@dataclass(frozen=True)
class Flow:
    """How gradients go through a part's blocks."""

    part: Part
    trained: tuple[frozenset[str], ...]
    """Of each block its trained parameters; of a linear layer with adapters, their names."""
    reached: tuple[bool, ...]
    """Whether a gradient is wanted of what a block takes or holds."""


def flows(anatomy: Anatomy) -> list[Flow]:
    """Of each part, in the order of a forward pass; the main one is reached from every other."""
    found, before = list[Flow](), False
    for part in anatomy.parts:
        main = part is anatomy.main
        by_block = [set[str]() for _ in range(part.stack.count)]
        inside, own = False, False
        for name in anatomy.trained:
            if name.startswith(part.stack.prefix):
                number, _, leaf = name[len(part.stack.prefix) :].partition(".")
                by_block[int(number)].add(leaf)
                own = True
            elif name in part.before:
                inside = True
            elif name in part.after:
                own = True
        wanted, reached = inside or (main and before), list[bool]()
        for block in by_block:
            wanted = wanted or bool(block)
            reached.append(wanted)
        before = before or inside or own
        found.append(Flow(part, tuple(map(frozenset, by_block)), tuple(reached)))
    return found


SCORE = 8
"""Bytes of an attention score in a block's backward, where PyTorch's attention writes scores out."""


def written_out(engine: Engine[Sizes], block: Block, tokens: int, *, masked: bool) -> int:
    """Scores for a token that attention writes out, of all heads; 0 where a kernel does without.

    Before Ampere there is no FlashAttention, and PyTorch's other kernel takes no keys that heads share
    (`enable_gqa`): transformers asks for those wherever there is no mask.
    """
    capability = engine.spec.hardware.capability
    shared = block.key < block.query and not masked
    old = capability is not None and capability < AMPERE
    return block.heads * tokens if shared and (old or engine.compute == FLOAT) else 0


def saved(engine: Engine[Sizes], block: Block, trained: frozenset[str], *, masked: bool, dropped: bool) -> int:
    """Bytes for a token that a block saves of which a gradient is wanted.

    `masked`: attention has an explicit mask, so that transformers repeats keys and values for all heads. `dropped`:
    adapters' inputs are dropped out, each for itself.
    """
    size, hidden, inner = engine.compute, block.hidden, block.inner
    keys = block.query if masked and block.rms else block.key
    attention = size * (2 * block.query + 2 * keys)
    mlp = size * (3 if block.gated else 1) * inner
    norms = 2 * hidden * (FLOAT if block.rms or engine.autocast else size)
    heads = block.query + block.key if block.head_norm else 0
    kept = attention + mlp + norms + FLOAT * heads
    stream = FLOAT if engine.autocast else size
    linear = {name.partition(".weight")[0].partition(".lora_")[0] for name in trained if _matrix(name)}
    for names, width in ((FIRST, hidden), (SECOND, hidden), (LAST, inner)):
        count = sum(name.endswith(names) for name in linear)
        copies = count if engine.autocast and names is not LAST else min(count, 1)  # autocast casts for each by itself
        kept += size * width * copies + (count * width * (size + 1) if dropped else 0)
    if block.rms and any("norm" in name for name in trained):
        kept += 2 * hidden * stream + heads * size
    if block.scaled and any("lambda1" in name for name in trained):
        kept += 2 * hidden * stream
    return kept


def _matrix(name: str) -> bool:
    return name.endswith(".weight") and "norm" not in name and "ln_" not in name


def kept_by_blocks(engine: Engine[Sizes], flow: Flow, *, masked: bool) -> tuple[int, int]:
    """Bytes for a token: what all blocks keep until backward, and what the largest that is computed again has then."""
    mode = engine.spec.strategy.activation_checkpointing
    lora = engine.spec.recipe.model.lora
    dropped = lora is not None and lora.dropout > 0
    block, kept, again = flow.part.stack.block, 0, 0
    scores = engine.compute * written_out(engine, block, flow.part.tokens, masked=masked)
    stream = FLOAT if engine.autocast else engine.compute
    for number, (trained, reached) in enumerate(zip(flow.trained, flow.reached, strict=True)):
        whole = scores + saved(engine, block, trained, masked=masked, dropped=dropped) if reached else 0
        if whole and (mode == "full" or (mode == "selective" and number % 2 == 0)):
            kept += stream * block.hidden
            again = max(again, whole)
        else:
            kept += whole
    return kept, again


def passing(engine: Engine[Sizes], block: Block) -> int:
    """Bytes for a token while a block is computed of which nothing is kept."""
    stream = FLOAT if engine.autocast else engine.compute
    return 2 * stream * block.hidden + engine.compute * (3 * block.inner + block.hidden)


def returning(engine: Engine[Sizes], block: Block) -> int:
    """Bytes for a token of gradients within a block: of its MLP, or while attention's are made, whichever is more.

    FlashAttention-2 adds queries' gradients up in float32 (flash_attn's dq_accum) and makes those of shared keys and
    values for every head.
    """
    attention = (FLOAT + 2 * engine.compute) * block.query
    return max(2 * engine.compute * (block.inner + block.hidden), attention)
