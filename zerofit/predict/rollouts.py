"""What completions take while they are made, by the formulas of `plan/grpo_memory.py`, beside what an engine holds."""

from __future__ import annotations

from collections.abc import Mapping

from zerofit.plan.decoder import Decoder, decoder_of
from zerofit.plan.grpo_memory import rollout, scores_twice, scoring
from zerofit.plan.shapes import known_fields
from zerofit.plan.spec import RunSpec
from zerofit.plan.states import Engine, states
from zerofit.predict.ledger import Kind, Ledger

KINDS: dict[str, Kind] = {
    "gathered weights": "gathered",
    "low-precision copies": "gathered",
    "KV cache": "kv_cache",
    "vLLM": "other",
    "activations": "activations",
    "logits": "logits",
}
"""By the names of the formulas' parts."""


def play_rollout(spec: RunSpec, ledger: Ledger) -> None:
    """Completions are made, scored where that is needed, and gone. Phase rollout."""
    engine = _engine(spec)
    if engine is None:
        return
    assert spec.grpo is not None
    _pass(ledger, rollout(engine, spec.grpo))
    if scores_twice(spec):
        _pass(ledger, scoring(engine, spec.grpo))


def play_judging(spec: RunSpec, ledger: Ledger) -> None:
    """The same in evaluation, whose completions the policy itself makes, whatever makes those of training."""
    assert spec.grpo is not None
    made = max(spec.batches.evaluate_micro, spec.grpo.completions // spec.batches.ranks) * spec.batches.ranks
    sizes = spec.grpo.model_copy(update={"completions": made})
    chosen = "graph" if spec.rollout_engine == "vllm" else spec.rollout_engine
    engine = _engine(spec.model_copy(update={"grpo": sizes, "rollout_engine": chosen}))
    if engine is not None:
        _pass(ledger, rollout(engine, sizes))


def reference(spec: RunSpec) -> int:
    """Bytes of the model that KL is measured to, where it is one of its own; it is there all the time."""
    engine = None if spec.grpo is None else _engine(spec)
    return 0 if engine is None else states(engine).reference


def modelled(spec: RunSpec) -> bool:
    """Whether the formulas know the model's sizes; True for tasks without completions."""
    return spec.grpo is None or _engine(spec) is not None


def _engine(spec: RunSpec) -> Engine[Decoder] | None:
    sizes = decoder_of(known_fields(spec.recipe.model))
    return None if sizes is None else Engine(spec, sizes)


def _pass(ledger: Ledger, parts: Mapping[str, int]) -> None:
    accounts = [ledger.open(KINDS[name], size) for name, size in parts.items()]
    for account in accounts:
        account.close()
