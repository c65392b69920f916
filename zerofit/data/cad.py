"""CAD models as samples (`describe`): read, made visible, cut into tokens, and kept on a drive.

Four directories of the cache of samples, each named by a hash of all that decides what is in it, so that stages share
what they have in common: rows of the source, clouds of them, images of them, and the tokens that one recipe learns.
"""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zerofit.config.errors import UserError
from zerofit.config.schema import Recipe
from zerofit.data import sample_cache
from zerofit.data.cad_clouds import make_clouds
from zerofit.data.cad_cutting import Cutting, Usable, validation_from
from zerofit.data.cad_inputs import Slots
from zerofit.data.cad_rows import Bad, refuse
from zerofit.data.cad_table import Table, read_table
from zerofit.data.cad_views import Views, make_views, open_views
from zerofit.data.text import LIBRARIES, fingerprint
from zerofit.data.tokenizer import load_tokenizer, vocabulary
from zerofit.plan.slots import image_size, image_tokens, point_tokens
from zerofit.plan.spec import CadFacts

FORMAT = 1
"""Of the samples, and of what this program makes of a row: another one makes them anew."""
SHOWN = 3
"""Names in a word about many."""


def describe(recipe: Recipe) -> CadFacts:
    """What the recipe's CAD models hold, with the clouds and images that rows see.

    Raises UserError: nothing there, a model that cannot be used (unless these are skipped), no split to validate on,
    nothing that is short enough, or no OpenCASCADE where it is needed.
    """
    data, seed = recipe.cad, recipe.train.seed
    tokenizer = load_tokenizer(recipe)
    slots, size = slots_of(recipe), image_size_of(recipe)
    table = read_table(data, seed)
    clouds = make_clouds(table, data.points) if data.shows("points") else None
    views = make_views(table, size, data.views) if data.shows("image") and size is not None else None
    reasons = {} if clouds is None else clouds.bad
    reasons = reasons | ({} if views is None else views.bad)
    usable = Usable.of(table, reasons, needs_caption=data.shows("text"))
    if usable.bad and data.on_bad_item == "fail":
        raise refuse(usable.bad, len(table.rows) + len(table.bad))
    origin = validation_from(data, table)
    decides = {
        "kind": "cad samples",
        "format": FORMAT,
        "rows": table.key,
        "bad": [one.id for one in usable.bad],
        "mix": data.mix,
        "slots": [slots.points, slots.image],
        "views_at_once": data.views_at_once,
        "max_length": data.max_length,
        "drawn": [data.validation, data.limit, seed],
        "tokenizer": fingerprint(tokenizer),
        "versions": {name: importlib.metadata.version(name) for name in LIBRARIES},
    }

    def make(directory: Path) -> dict[str, Any]:
        return Cutting(recipe, tokenizer, slots, directory).all(table, usable)

    directory, kept = sample_cache.kept(sample_cache.default_root(os.environ), decides, make)
    _say_left_out(table, usable.bad, directory)
    if clouds is not None:
        _say_stretched(f"fewer than {data.points:,} points, some of which are taken twice", clouds.short)
    if views is not None:
        most = data.views_at_once[1]
        _say_stretched(f"fewer than {most} images, some of which are shown twice", _few(table, usable, views, most))
    return CadFacts(
        **kept,
        validation_from=origin,
        vocabulary=vocabulary(tokenizer),
        pad=int(tokenizer.pad_token_id),
        stops=(int(tokenizer.eos_token_id),),
        samples=directory,
        clouds=sum(one.share for one in data.shares if one.inputs.points),
        images=data.images_on_average,
        points=None if clouds is None else data.points,
        image_size=None if views is None else size,
        clouds_in=None if clouds is None else clouds.directory,
        views_in=None if views is None else views.directory,
    )


def restore(recipe: Recipe, facts: CadFacts) -> None:
    """Make again what `facts` describe where it is gone. Raises UserError where other samples come out."""
    places = (facts.samples, facts.clouds_in, facts.views_in)
    if all(place is None or place.is_dir() for place in places):
        return
    if describe(recipe) != facts:
        raise UserError(
            f"data: the samples of this run are gone from {facts.samples}, and are not the same when made again: "
            "files, libraries or $ZEROFIT_CACHE have changed; start a new run"
        )


def slots_of(recipe: Recipe) -> Slots:
    """Tokens that a cloud and each image take. Raises UserError."""
    return Slots(point_tokens(recipe.cad_model), image_tokens(recipe.cad_model))


def image_size_of(recipe: Recipe) -> int | None:
    """Pixels per side of images; null without an image encoder. Raises UserError."""
    vision = recipe.cad_model.vision
    return None if vision is None else image_size(vision)


def _few(table: Table, usable: Usable, views: Views, wanted: int) -> list[str]:
    """Models that have fewer images, and how many."""
    counts = open_views(views.directory).counts()
    return [f"{table.rows[row].id} ({counts[row]})" for row in usable.rows.tolist() if counts[row] < wanted]


def _say_left_out(table: Table, bad: tuple[Bad, ...], directory: Path) -> None:
    if bad:
        print(
            f"data: {len(bad):,} of {len(table.rows) + len(table.bad):,} models are left out: "
            f"{_some([one.line() for one in bad])}; see {directory / 'left_out.jsonl'}",
            flush=True,
        )


def _say_stretched(what: str, names: Sequence[str]) -> None:
    if names:
        print(f"data: {what}: {_some(names)}", flush=True)


def _some(words: Sequence[str]) -> str:
    more = len(words) - SHOWN
    return "; ".join(words[:SHOWN]) + (f"; and {more:,} more" if more > 0 else "")
