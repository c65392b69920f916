"""The tokenizer of a language recipe, with the chat template that the recipe names."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from zerofit.config.errors import UserError
from zerofit.config.located import located
from zerofit.config.model import LanguageSection
from zerofit.config.schema import Recipe
from zerofit.data.byte_tokenizer import byte_tokenizer, part_tokenizer, problem_tokenizer
from zerofit.data.templates import template

MADE: dict[str, Callable[[], PreTrainedTokenizerBase]] = {
    "bytes": byte_tokenizer,
    "problems": problem_tokenizer,
    "parts": part_tokenizer,
}
"""Made on the spot, by the name that a recipe gives."""
FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
)
"""What is downloaded of a hub's model."""
NEEDED = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json")
"""One of these is there where a directory holds a tokenizer."""


def load_tokenizer(recipe: Recipe) -> PreTrainedTokenizerBase:
    """The tokenizer that `model.tokenizer`, else `model.pretrained`, names. No code of theirs is run.

    Its chat template is the one of `model.chat_template`, else its own. Raises UserError: it cannot be read, has no
    fast form, or no token for padding or for the end.
    """
    model = recipe.language_model
    name, field = _named(model)
    tokenizer = MADE[name]() if name in MADE else read_tokenizer(name, field)
    if model.chat_template is not None:
        tokenizer.chat_template = template(model.chat_template)
    if not tokenizer.is_fast:
        raise UserError(f"{field}: {name} has no tokenizer.json, and no library here makes one of what it has")
    for role, id in (("pad", tokenizer.pad_token_id), ("eos", tokenizer.eos_token_id)):
        if id is None:
            raise UserError(
                f"{field}: the tokenizer {name} has no {role} token; name one in its tokenizer_config.json, for "
                f'example "{role}_token": "{_candidate(tokenizer)}"'
            )
    return tokenizer


def tokenizer_directory(model: LanguageSection) -> Path | None:
    """Where the tokenizer's files lie; null for one made on the spot."""
    name, field = _named(model)
    return None if name in MADE else _directory(name, field)


def vocabulary(tokenizer: PreTrainedTokenizerBase) -> int:
    """Rows that an embedding needs: the highest id and one."""
    return max(tokenizer.get_vocab().values()) + 1


def _named(model: LanguageSection) -> tuple[str, str]:
    if model.tokenizer is not None:
        return model.tokenizer, "model.tokenizer"
    assert model.pretrained is not None, "the schema asks for one of them"
    return model.pretrained, "model.pretrained"


def read_tokenizer(name: str, field: str) -> PreTrainedTokenizerBase:
    """The tokenizer in a directory, or of a hub's model, as it is: with or without padding. Raises UserError."""
    from transformers import AutoTokenizer  # brings torch, which bytes need not

    directory = _directory(name, field)
    bare = (directory / "tokenizer.model").is_file() and not (directory / "tokenizer.json").is_file()
    if bare and find_spec("sentencepiece") is None:
        raise UserError(
            f"{field}: {directory} has a tokenizer.model and no tokenizer.json: pip install sentencepiece to read it, "
            "or save it elsewhere once with AutoTokenizer's save_pretrained"
        )
    try:
        return AutoTokenizer.from_pretrained(directory, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # the library raises what it likes, bare Exception too
        reason = (" ".join(str(error).split()) or type(error).__name__)[:200]
        raise UserError(f"{field}: the tokenizer in {directory} cannot be read: {reason}") from None


def _directory(name: str, field: str) -> Path:
    directory = located(name, field, FILES, offline=True)
    if directory is None or not _holds(directory):
        directory = located(name, field, FILES)
    assert directory is not None, "online it is there, or an error"
    if not _holds(directory):
        raise UserError(f"{field}: {directory} holds no tokenizer ({', '.join(NEEDED)}); name one in model.tokenizer")
    return directory


def _holds(directory: Path) -> bool:
    return any((directory / name).is_file() for name in NEEDED)


def _candidate(tokenizer: PreTrainedTokenizerBase) -> str:
    """A special token that may do."""
    return next(iter(tokenizer.all_special_tokens), "<|endoftext|>")
