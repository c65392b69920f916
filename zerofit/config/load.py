"""Reads a recipe: a YAML file, or a shipped one by its name, with overrides from the command line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from zerofit.config.errors import UserError, did_you_mean
from zerofit.config.explain import Origin, explain, show
from zerofit.config.overrides import Override, apply_overrides, parse_override
from zerofit.config.presets import with_preset
from zerofit.config.schema import Recipe
from zerofit.config.stages import Job, make_job
from zerofit.config.yaml_lines import Document, parse

RECIPES = Path(__file__).resolve().parent.parent / "recipes"


def recipe_names() -> list[str]:
    """Names of the shipped recipes."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def recipe_path(name: str) -> Path:
    """File of a shipped recipe. Raises UserError on an unknown name."""
    if name not in recipe_names():
        raise UserError(f"no recipe named {name!r} is shipped{_hint(name)}")
    return RECIPES / f"{name}.yaml"


def load_recipe(source: str, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in the file `source`, or the shipped one of that name, with `field=value` overrides laid over it.

    A recipe without a name gets its file's. Relative paths stay as they are: relative to the current directory.
    Raises UserError: one line for each fault, with the file and line, or `command line: <the override>`. A recipe with
    stages is one: see `load_job`.
    """
    path, label, document = _opened(source)
    if "stages" in document.value:
        raise UserError(
            f"{label}:{document.line(('stages',))}: stages: one run is wanted here, and each stage is a run; "
            "`zerofit train` runs them all (in Python: load_job)"
        )
    return _one(path, label, document, [parse_override(text) for text in overrides])


def load_job(source: str, overrides: Sequence[str] = ()) -> Job:
    """As `load_recipe`, with or without stages: an override of `stages.1.train.epochs` changes the second one alone.

    Raises UserError as `load_recipe` does.
    """
    path, label, document = _opened(source)
    parsed = [parse_override(text) for text in overrides]
    if "stages" in document.value:
        return make_job(document, label, parsed, path.stem)
    recipe = _one(path, label, document, parsed)
    assert recipe.name is not None
    return Job(recipe.name, recipe.description, recipe.run_dir, (recipe,), staged=False)


def _opened(source: str) -> tuple[Path, str, Document]:
    """The file, what messages call it, and its mapping."""
    path = _find(source)
    label = path.name if path.parent == RECIPES else source
    document = parse(_read(path, label), label)
    if document.value is None:
        raise UserError(f"{label}: is empty; a recipe is a mapping with model, data, train and optimizer")
    if not isinstance(document.value, dict):
        raise UserError(
            f"{label}: a recipe is a mapping with model, data, train and optimizer, not {show(document.value)}"
        )
    return path, label, document


def _one(path: Path, label: str, document: Document, parsed: Sequence[Override]) -> Recipe:
    for override in parsed:
        if override.place[0] == "stages":
            raise UserError(f"{override.where}: {label} has no stages")
    raw = apply_overrides(document.value, parsed)
    raw = with_preset(raw, label)
    if raw.get("name") is None:
        raw = {**raw, "name": path.stem}
    try:
        return Recipe.model_validate(raw)
    except ValidationError as error:
        raise UserError("\n".join(explain(error, Origin(label, document, parsed)))) from None


def _find(source: str) -> Path:
    path = Path(source)
    if path.is_file():
        return path
    if source in recipe_names():
        return recipe_path(source)
    if path.is_dir():
        raise UserError(f"{source}: is a directory, not a recipe file")
    if path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        raise UserError(f"{source}: no such file{_hint(path.stem)}")
    raise UserError(f"{source!r} is neither a file nor a shipped recipe{_hint(source)}")


def _hint(name: str) -> str:
    return f"{did_you_mean(name, recipe_names())} (`zerofit recipes` lists the shipped ones)"


def _read(path: Path, label: str) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{label}: is not text in UTF-8: {error.reason} at byte {error.start}") from None
    except OSError as error:
        raise UserError(f"{label}: cannot be read: {error.strerror}") from None
