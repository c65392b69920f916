"""A run's adapters alone, in the form that peft loads: `PeftModel.from_pretrained(model, DIR)`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from zerofit.checkpoint.content import Content
from zerofit.checkpoint.stream import Value
from zerofit.config.errors import UserError
from zerofit.models.cad_mllm import CadMllm
from zerofit.models.causal_lm import LanguageModel
from zerofit.models.whole import Described
from zerofit.plan.spec import origin_of

ADAPTERS = "adapter_model"
PEFT_PREFIX = "base_model.model."
PARTS = {".lora_A.default.weight": ".lora_A.weight", ".lora_B.default.weight": ".lora_B.weight"}


def as_peft(content: Content, described: Described) -> Content:
    """The adapters of `content`, of a run that has some, under peft's names; adapter_config.json beside them.

    Raises UserError where there are none, where more was trained than they, and for what no class of transformers is:
    image classifiers and CAD-MLLMs.
    """
    lora = described.spec.recipe.model.lora
    if lora is None:
        raise UserError("--to peft: the run has no adapters (model.lora); use --to hf")
    if isinstance(described.plain, CadMllm):
        raise UserError("--to peft: adapters are not all that was trained of a CAD-MLLM; use --to safetensors")
    if not isinstance(described.plain, LanguageModel):
        raise UserError("--to peft: adapters of an image classifier fit no class of transformers; use --to hf")
    trained = [name for name, parameter in described.model.named_parameters() if parameter.requires_grad]
    other = [name for name in trained if _theirs(name) is None]
    if other:
        raise UserError(f"--to peft: {other[0]} was trained besides the adapters; use --to hf --merge-lora")

    def weights() -> Iterator[tuple[str, Value]]:
        for name, value in content.weights():
            theirs = _theirs(name)
            if theirs is not None:
                yield theirs, value

    def config(path: Path) -> None:
        from peft import LoraConfig, TaskType

        made = LoraConfig(
            r=lora.rank,
            lora_alpha=lora.alpha,  # type: ignore[arg-type]  # declared int, and only ever divided by the rank
            lora_dropout=lora.dropout,
            target_modules=sorted(described.adapted),
            fan_in_fan_out=described.transposed,
            task_type=TaskType.CAUSAL_LM,
            base_model_name_or_path=origin_of(described.spec),
            inference_mode=True,
        )
        made.save_pretrained(str(path.parent))

    names = [theirs for theirs in map(_theirs, content.names) if theirs is not None]
    note = f"they belong to the weights of {origin_of(described.spec)}"
    return replace(
        content,
        names=names,
        weights=weights,
        buffers=frozenset(),
        optimizer=None,
        config=config,
        beside=None,
        stem=ADAPTERS,
        notes=[*content.notes, note],
    )


def _theirs(name: str) -> str | None:
    """peft's name of an adapter's part; null for what is none."""
    for ours, theirs in PARTS.items():
        if name.endswith(ours):
            return PEFT_PREFIX + name.removesuffix(ours) + theirs
    return None
