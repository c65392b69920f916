"""Which part of a GRPO step needs how much of a device's memory: rollout, log-probs, backward, update. Closed form.

To be read as within 15 %: such forms were 5 % off on average, and 15 % at worst, from what was measured on H200s of
fine-tuning; what a GRPO run itself takes has not been compared. Kernels' workspace, the CUDA context and the
allocator's cache come on top.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from zerofit.plan.decoder import WITH_QK_NORM, Decoder, decoder_of
from zerofit.plan.hardware import GIB
from zerofit.plan.rollout_engine import corrects
from zerofit.plan.shapes import known_fields
from zerofit.plan.spec import GrpoSizes, RunSpec
from zerofit.plan.states import FLOAT, Engine, buckets, states, update

TOKENS, COLUMNS = 4096, 32768
"""TRL 1.16 computes logits in tiles of so many tokens and entries of the vocabulary (kernels/chunked_logprob.py's
TOKEN_CHUNK_SIZE, trainer/utils.py's _CHUNKED_LOGPROB_CHUNK_SIZE)."""
PREFILL = 4096
"""Tokens of prompts that the engine graph reads at once (generate/step.py); the engine hf reads all."""
DRAWING = 3 * FLOAT + 8
"""Bytes that drawing takes for each logit: it, its log-probability and probability in float32, their sum in float64."""


@dataclass(frozen=True)
class Stage:
    """A part of the step."""

    name: str
    parts: Mapping[str, int]
    """Bytes by what takes them."""

    @property
    def total(self) -> int:
        """All of them."""
        return sum(self.parts.values())


def stages(spec: RunSpec) -> tuple[Stage, ...] | None:
    """A GRPO step's parts, on one rank; None where the model's sizes are not at hand. Log-probs only where needed."""
    sizes = decoder_of(known_fields(spec.recipe.model))
    if sizes is None or spec.grpo is None:
        return None
    engine = Engine(spec, sizes)
    found = states(engine)
    constant = buckets(engine) if engine.stage == 3 or engine.name == "ddp" else 0
    always = {
        "weights": found.weights,
        "gradients": found.gradients + constant,
        "optimizer": found.optimizer,
        "reference": found.reference,
    }
    every = [Stage("rollout", always | rollout(engine, spec.grpo))]
    if scores_twice(spec):
        every.append(Stage("log-probs", always | scoring(engine, spec.grpo)))
    every.append(Stage("backward", always | backward(engine, spec.grpo)))
    if spec.strategy.offload.optimizer is None:
        every.append(Stage("update", always | {"optimizer's step": update(engine)}))
    return tuple(every)


def scores_twice(spec: RunSpec) -> bool:
    """Whether completions are scored without a gradient first: for a reference, or to correct for vLLM's rounding.

    TRL needs no old log-probs of the policy's own where a generation serves one optimizer step (grpo_trainer.py,
    `_generate_and_score_completions`), which the plan sees to.
    """
    grpo = spec.recipe.grpo
    return grpo is not None and (grpo.beta > 0 or corrects(spec))


def rollout(engine: Engine[Decoder], sizes: GrpoSizes) -> dict[str, int]:
    """While completions are made: whole weights, a static KV cache, and the prompts' forward pass or a step's logits.

    KV cache: keys and values of each layer, key-value head and position, in the compute type.
    """
    grpo, model = engine.spec.recipe.grpo, engine.sizes
    assert grpo is not None
    if engine.spec.rollout_engine == "vllm":
        colocated = grpo.rollout.vllm == "colocate"
        return {"vLLM": round(grpo.rollout.vllm_memory * engine.spec.hardware.memory_gib * GIB) if colocated else 0}
    batch = rollout_batch(engine.spec)
    position = 2 * model.layers * model.key_width * engine.compute
    prompt = sizes.length - grpo.sampling.max_tokens
    read = batch * prompt if engine.spec.rollout_engine == "hf" else min(batch * prompt, max(PREFILL, prompt))
    drawing = (DRAWING + engine.compute) * batch * model.vocabulary
    return {
        "gathered weights": gathered(engine),
        "low-precision copies": _cast(engine),
        "KV cache": position * batch * sizes.length,
        "activations": max(_passing(engine, read), drawing) + _dequantised(engine),
    }


def rollout_batch(spec: RunSpec) -> int:
    """Completions that a rank makes at once."""
    assert spec.recipe.grpo is not None
    assert spec.grpo is not None
    own = spec.grpo.completions // spec.batches.ranks
    return min(own, spec.recipe.grpo.rollout.batch or own)


def scoring(engine: Engine[Decoder], sizes: GrpoSizes) -> dict[str, int]:
    """Log-probs without a gradient, a micro-batch at a time: one block's activations, and a tile of the logits.

    A reference of its own is whole meanwhile, as the policy is in a rollout.
    """
    tokens, scored = _tokens(engine, sizes)
    assert engine.spec.recipe.grpo is not None
    own = engine.spec.recipe.grpo.beta > 0 and not engine.adapted
    return {
        "gathered weights": gathered(engine) if own else live(engine),
        "low-precision copies": _cast(engine) if own else _copies(engine, every_block=False),
        "activations": _passing(engine, tokens) + _mask(engine, sizes) + _dequantised(engine),
        "logits": _tile(engine, scored),
    }


def backward(engine: Engine[Decoder], sizes: GrpoSizes) -> dict[str, int]:
    """Forward and backward of a micro-batch: what is kept for the gradients, and the head's.

    The head keeps its input, and makes a tile of logits again, the input's gradient and, where the head is trained, its
    own in float32 (TRL's ChunkedLogProbFunction.backward).
    """
    model, (tokens, scored) = engine.sizes, _tokens(engine, sizes)
    head = _tile(engine, scored) + scored * model.hidden * (engine.compute + FLOAT)
    head += 0 if engine.adapted else model.head * FLOAT
    reducing = buckets(engine) if engine.stage in (1, 2) else 0
    return {
        "gathered weights": live(engine),
        "low-precision copies": _copies(engine, every_block=True),
        "activations": kept(engine, tokens) + _mask(engine, sizes) + _dequantised(engine),
        "logits": head,
        "buckets": reducing,
    }


def kept(engine: Engine[Decoder], tokens: int) -> int:
    """Bytes that the blocks keep of so many tokens for backward, and the gradients of one block's activations.

    With activation checkpointing a block that is computed again keeps its input alone, and one of them is whole.
    """
    mode, layers = engine.spec.strategy.activation_checkpointing, engine.sizes.layers
    whole = saved(engine)
    again = {"none": 0, "selective": layers - layers // 2, "full": layers}[mode]
    inputs = again * _stream(engine) * engine.sizes.hidden
    blocks = (layers - again + (1 if again else 0)) * whole
    gradients = 2 * engine.compute * (engine.sizes.intermediate + engine.sizes.hidden)
    return tokens * (inputs + blocks + gradients)


def saved(engine: Engine[Decoder]) -> int:
    """Bytes for a token that autograd saves in one block of a decoder, as transformers writes it.

    Norms save their float32 input, attention its queries, output, and keys and values repeated for all heads (a padded
    batch has a mask, and transformers then repeats them), a gated MLP what both matrices give and their activation.
    Where a matrix or its adapter is trained its input is saved too, and where a norm is, what it scales. With keys not
    repeated, that is 147.5 kB for a frozen block of Qwen3-8B in bf16, where a run of its code saved 147.8.
    """
    model, size = engine.sizes, engine.compute
    hidden, query, inner = model.hidden, model.query_width, model.intermediate
    heads = (query + model.key_width) if model.family in WITH_QK_NORM else 0
    frozen = 2 * FLOAT * hidden + FLOAT * heads + size * 4 * query + size * 3 * inner
    inputs = size * (2 * hidden + query + inner)
    scaled = 0 if engine.adapted else size * (2 * hidden + heads)
    return frozen + inputs + scaled


def gathered(engine: Engine[Decoder]) -> int:
    """All weights, which a rollout has whole on every rank: gathered once by ZeRO-3 and FSDP2, else there already."""
    alone = engine.ranks == 1 and engine.stage == 3 and not engine.spec.strategy.offload.params
    return 0 if alone or not engine.sharded else engine.weights(engine.compute)


def live(engine: Engine[Decoder]) -> int:
    """Weights that a forward or backward pass has gathered at most.

    ZeRO-3: up to stage3_max_live_parameters elements, the head among them. FSDP2: a block, the next one on its way,
    what is of no block, and the head that TRL gathers in float32.
    """
    whole, model = gathered(engine), engine.sizes
    if not whole:
        return 0
    if engine.stage == 3:
        most = (engine.spec.deepspeed or {})["zero_optimization"]["stage3_max_live_parameters"]
        return int(min(whole, most * engine.compute))
    block = engine.weights(engine.compute) - model.rest * engine.compute
    return 2 * block // model.layers + model.rest * engine.compute + model.head * FLOAT


def _tokens(engine: Engine[Decoder], sizes: GrpoSizes) -> tuple[int, int]:
    """Of a micro-batch whose prompts and completions are the longest: all, and those that are scored."""
    assert engine.spec.recipe.grpo is not None
    micro = engine.spec.batches.micro
    return micro * sizes.length, micro * engine.spec.recipe.grpo.sampling.max_tokens


def _stream(engine: Engine[Decoder]) -> int:
    """Bytes of an element that flows between blocks."""
    return FLOAT if engine.autocast else engine.compute


def _passing(engine: Engine[Decoder], tokens: int) -> int:
    """A forward pass without a gradient: what flows between blocks, and one block's largest activations."""
    model = engine.sizes
    return tokens * (2 * _stream(engine) * model.hidden + engine.compute * (3 * model.intermediate + model.hidden))


def _mask(engine: Engine[Decoder], sizes: GrpoSizes) -> int:
    """The causal mask of a padded batch, written out, and as attention adds it."""
    return engine.spec.batches.micro * sizes.length**2 * (1 + engine.compute)


def _tile(engine: Engine[Decoder], scored: int) -> int:
    """A tile of logits, and the slice of the head that it comes from where that is cast."""
    columns = min(COLUMNS, engine.sizes.vocabulary)
    cast = 0 if engine.held == engine.compute or engine.quantised else columns * engine.sizes.hidden * engine.compute
    return min(scored, TOKENS) * columns * engine.compute + cast


def _cast(engine: Engine[Decoder]) -> int:
    """Float32 weights of linear layers in the compute type, while a model is whole (train/rollout_weights.py)."""
    if not engine.autocast:
        return 0
    model, adapters = engine.sizes, engine.trained if engine.adapted else 0
    return (model.matrices + adapters + (0 if model.tied else model.head)) * engine.compute


def _copies(engine: Engine[Decoder], *, every_block: bool) -> int:
    """Copies of float32 weights in the compute type under autocast.

    Trained ones are kept for as long as autocast lasts; frozen ones, where gradients flow through them, until backward:
    those of every block, or of one that is computed again.
    """
    if not engine.autocast:
        return 0
    model = engine.sizes
    if not engine.adapted:
        return model.parameters * engine.compute
    full = engine.spec.strategy.activation_checkpointing == "full"
    blocks = model.matrices if every_block and not full else model.block_matrices
    return (blocks + model.head) * engine.compute


def _dequantised(engine: Engine[Decoder]) -> int:
    """The 4-bit matrix that is computed with, in the compute type: one at a time (bitsandbytes' MatMul4Bit)."""
    return engine.sizes.largest_matrix * engine.compute if engine.quantised else 0
