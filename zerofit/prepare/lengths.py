"""How long rows are: in tokens, as the tokenizer's chat template writes them; without a tokenizer in characters."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from zerofit.config.errors import UserError
from zerofit.config.limited import read_limited
from zerofit.prepare.rows import Example, Message

Unit = Literal["tokens", "characters"]


@dataclass(frozen=True)
class Size:
    """How long a row is."""

    length: int
    """Of the whole."""
    words: int
    opening: int
    """Of what stands before the first assistant turn; 0 where nobody needs to know."""


class Ruler(Protocol):
    """Measures rows."""

    unit: Unit
    how: str
    """In words."""
    hashes: dict[str, str]
    """What it is made of."""

    def measure(self, examples: Sequence[Example], context: int | None) -> list[Size]:
        """The sizes of rows."""


class Characters:
    """Without a tokenizer."""

    unit: Unit = "characters"
    how = "characters and words, for want of a tokenizer"
    hashes: dict[str, str] = {}

    def measure(self, examples: Sequence[Example], context: int | None) -> list[Size]:
        """Of the contents."""
        texts = (_plain(example.messages) for example in examples)
        return [Size(len(text), len(text.split()), 0) for text in texts]


class Tokens:
    """With a tokenizer of the `tokenizers` library and the chat template beside it."""

    unit: Unit = "tokens"

    def __init__(self, name: str) -> None:
        from transformers.utils.chat_template_utils import render_jinja_template  # alone: no torch

        self._render: Any = render_jinja_template
        self._tokenizer, directory = _load(name)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._template, self._special = _template(directory) if directory is not None else (None, {})
        self.how = (
            "tokens of the chat template's text" if self._template else "tokens of the contents: no chat template"
        )
        self.hashes = _hashes(directory) if directory is not None else {}

    def measure(self, examples: Sequence[Example], context: int | None) -> list[Size]:
        """The opening is measured of rows that do not fit alone."""
        texts = [self._text(example, example.messages) for example in examples]
        lengths = self._count(texts)
        long = [i for i, length in enumerate(lengths) if context is not None and length >= context]
        openings = dict.fromkeys(range(len(texts)), 0)
        parts = [self._text(examples[i], examples[i].opening, begun=True) for i in long]
        openings.update(zip(long, self._count(parts), strict=True))
        return [
            Size(length, len(_plain(example.messages).split()), openings[i])
            for i, (example, length) in enumerate(zip(examples, lengths, strict=True))
        ]

    def _count(self, texts: list[str]) -> list[int]:
        encoded = self._tokenizer.encode_batch_fast(texts, add_special_tokens=self._template is None)
        return [len(one) for one in encoded]

    def _text(self, example: Example, messages: Sequence[Message], begun: bool = False) -> str:
        if self._template is None or not messages:
            return _plain(messages)
        turns = [message._asdict() for message in messages]
        asked: dict[str, Any] = {"add_generation_prompt": begun or not example.taught, **self._special}
        try:
            tools = json.loads(example.tools) if example.tools else None
            rendered, _ = self._render([turns], tools=tools, chat_template=self._template, **asked)
        except Exception:  # templates raise what they like: two users in a row, a role or tools that they lack
            return _plain(messages)
        return str(rendered[0])


def ruler_of(name: str | None) -> Ruler:
    """The ruler for `--tokenizer`. Raises UserError where there is no such tokenizer."""
    return Characters() if name is None else Tokens(name)


def _plain(messages: Sequence[Message]) -> str:
    return "\n".join(message.content for message in messages)


def _load(name: str) -> tuple[Any, Path | None]:
    """The tokenizer, and the directory that its template lies in."""
    from tokenizers import Tokenizer

    path = Path(name).expanduser()
    if path.is_dir():
        path = path / "tokenizer.json"
        if not path.is_file():
            raise UserError(f"--tokenizer {name} has no tokenizer.json; AutoTokenizer's save_pretrained writes one")
    try:
        if path.is_file():
            return Tokenizer.from_str(read_limited(path).decode()), path.parent
        if path.suffix == ".json" or name.startswith((".", "/", "~")):
            raise UserError(f"--tokenizer {name} does not exist")
        return _download(name)
    except (UserError, KeyboardInterrupt):
        raise
    except Exception as error:  # the library raises bare Exception
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"--tokenizer {name} cannot be read: {reason}") from None


def _download(name: str) -> tuple[Any, Path]:
    from huggingface_hub import snapshot_download
    from tokenizers import Tokenizer

    wanted = ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"]
    directory = Path(snapshot_download(name, allow_patterns=wanted))
    return Tokenizer.from_file(str(directory / "tokenizer.json")), directory


def _template(directory: Path) -> tuple[str | None, dict[str, str]]:
    """The chat template, and the special tokens that it may name."""
    config: dict[str, Any] = {}
    if (file := directory / "tokenizer_config.json").is_file():
        try:
            config = json.loads(read_limited(file))
        except (ValueError, RecursionError) as error:
            raise UserError(f"{file} is not JSON: {error}") from None
    special = {
        key: str(value["content"] if isinstance(value, dict) else value)
        for key, value in config.items()
        if key.endswith("_token") and (isinstance(value, str) or (isinstance(value, dict) and "content" in value))
    }
    template = config.get("chat_template")
    if isinstance(template, list):  # several by name
        template = next((one["template"] for one in template if one.get("name") == "default"), None)
    if (file := directory / "chat_template.jinja").is_file():
        template = read_limited(file).decode()
    return template if isinstance(template, str) else None, special


def _hashes(directory: Path) -> dict[str, str]:
    from zerofit.prepare.writing import sha256

    names = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
    return {name: sha256(directory / name) for name in names if (directory / name).is_file()}
