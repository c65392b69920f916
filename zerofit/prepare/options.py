"""What `zerofit prepare` was asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from zerofit.config.errors import UserError, did_you_mean

OnBadRow = Literal["skip", "fail"]
Near = Literal["drop", "keep", "off"]


@dataclass(frozen=True)
class Options:
    """The options, each with its default."""

    inputs: tuple[str, ...]
    """Files, directories, `hf:ID`."""
    output: Path
    """A new directory."""
    tokenizer: str | None = None
    """A directory, a tokenizer.json, or a name of the hub; null counts characters."""
    context: int | None = None
    """Tokens that training will see of a row."""
    fields: Mapping[str, str] = field(default_factory=dict)
    """Known field -> theirs."""
    against: tuple[str, ...] = ()
    """Evaluation data that no row may share text with."""
    system: str | None = None
    """System prompt of rows that have none."""
    on_bad_row: OnBadRow = "skip"
    """A row that cannot be used is counted and left out, or ends it all."""
    near_duplicates: Near = "drop"
    """They are left out; counted and kept; not looked for."""
    keep_overlap: bool = False
    """Rows that share text with `against` are counted and kept."""
    drop_long: bool = False
    """Rows longer than the context are left out, not only counted."""
    shard_rows: int = 100_000
    """Rows of a file, at most."""

    def check(self) -> None:
        """Raise UserError where they contradict one another, or where there is an output already."""
        for name, value, known in (
            ("--on-bad-row", self.on_bad_row, get_args(OnBadRow)),
            ("--near-duplicates", self.near_duplicates, get_args(Near)),
        ):
            if value not in known:
                raise UserError(f"{name} {value} is none of {', '.join(known)}{did_you_mean(value, known)}")
        if self.context is not None and self.tokenizer is None:
            raise UserError(f"--context {self.context} is in tokens: name the model's tokenizer with --tokenizer")
        if self.drop_long and self.context is None:
            raise UserError("--drop-long needs to know what is too long: add --context")
        if self.keep_overlap and not self.against:
            raise UserError("--keep-overlap: there is nothing to overlap with; add --against, or leave it out")
        empty = self.output.is_dir() and not any(self.output.iterdir())
        if self.output.exists() and not empty:
            raise UserError(f"--output {self.output} exists: name a new directory")

    def record(self) -> dict[str, Any]:
        """What decides about the rows, for the manifest: not where files lie on this machine."""
        return {
            "context": self.context,
            "fields": dict(self.fields),
            "system": self.system,
            "on_bad_row": self.on_bad_row,
            "near_duplicates": self.near_duplicates,
            "keep_overlap": self.keep_overlap,
            "drop_long": self.drop_long,
            "shard_rows": self.shard_rows,
        }
