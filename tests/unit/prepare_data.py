"""Small language data and a tokenizer of whole words, for the tests of `zerofit prepare`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from tokenizers import Tokenizer, models, pre_tokenizers

from zerofit.prepare.options import Options
from zerofit.prepare.pipeline import prepare

TEMPLATE = (
    "{% for message in messages %}<{{ message['role'] }}> {{ message['content'] }} <end>\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant> {% endif %}"
)


def jsonl(path: Path, rows: Iterable[Any]) -> Path:
    """Write JSON Lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def tokenizer(directory: Path, template: str | None = TEMPLATE) -> Path:
    """A token for each word; `<user>`, `<assistant>` and `<end>` are words."""
    directory.mkdir(parents=True, exist_ok=True)
    made = Tokenizer(models.WordLevel({"?": 0}, unk_token="?"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.enable_truncation(4)  # as some are saved: it must not shorten what we count
    made.save(str(directory / "tokenizer.json"))
    (directory / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<end>", "chat_template": template}))
    return directory


def problem(number: int) -> dict[str, Any]:
    """A row of GSM8K's form, unlike the others."""
    words = " ".join(f"word{number * 31 + i}" for i in range(20))
    return {"question": f"How many {words}?", "answer": f"There are {number} of {words}.\n#### {number}"}


def prepared(tmp: Path, *inputs: Path | str, name: str = "out", **options: Any) -> tuple[list[dict[str, Any]], Any]:
    """The rows that were written, and prepare.json."""
    prepare(Options(tuple(map(str, inputs)), tmp / name, **options))
    parts = sorted((tmp / name).glob("part-*.parquet"))
    rows = [row for part in parts for row in pq.read_table(part).to_pylist()]
    return rows, json.loads((tmp / name / "prepare.json").read_text(encoding="utf-8"))
