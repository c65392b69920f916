"""Chat templates: those that are shipped, and Jinja files."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from zerofit.config.errors import UserError, did_you_mean
from zerofit.config.limited import read_limited

SUFFIX = ".jinja"


def names() -> list[str]:
    """The shipped templates."""
    entries = files("zerofit.recipes").joinpath("templates").iterdir()
    return sorted(entry.name.removesuffix(SUFFIX) for entry in entries if entry.name.endswith(SUFFIX))


def shipped(name: str) -> str:
    """The text of a shipped template."""
    return files("zerofit.recipes").joinpath("templates", name + SUFFIX).read_text(encoding="utf-8")


def template(given: str) -> str:
    """The text of `model.chat_template`: the name of a shipped one, or a Jinja file. Raises UserError."""
    if given in names():
        return shipped(given)
    path = Path(given).expanduser()
    if path.is_file():
        try:
            return read_limited(path).decode()
        except UnicodeDecodeError:
            raise UserError(f"model.chat_template: {path} is no text in UTF-8") from None
    near = did_you_mean(given, names())
    raise UserError(
        f"model.chat_template: {given} is neither a Jinja file nor a shipped template ({', '.join(names())}){near}"
    )
