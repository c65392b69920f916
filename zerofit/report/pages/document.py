"""A page as one HTML file: nothing is loaded from anywhere, and its policy forbids browsers to try.

Plotly's bundle lies in it once, compressed; the page's script unpacks it. Scripts run by their hashes alone, so that
nothing that a run's files say can be one.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import importlib.util
import json
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from zerofit.config.errors import UserError
from zerofit.report.pages.parts import Chart, Page

ASSETS = Path(__file__).parent / "assets"


def render(page: Page) -> str:
    """The file's text."""
    drawn = [part for section in page.sections for part in section.parts if isinstance(part, Chart)]
    names = [chart.name for chart in drawn]
    assert len(set(names)) == len(names), names
    script = (ASSETS / "page.js").read_text(encoding="utf-8")
    library, digest = _plotly() if drawn else ("", "")
    environment = Environment(
        loader=FileSystemLoader(ASSETS),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html").render(
        page=page,
        style=Markup((ASSETS / "page.css").read_text(encoding="utf-8")),
        script=Markup(script),
        hashes=[_hash(script.encode()), *([digest] if digest else [])],
        charts=as_json({chart.name: {"data": chart.data, "layout": chart.layout} for chart in drawn}),
        library=library,
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        version=version("zerofit"),
    )


def as_json(value: Any) -> Markup:
    """JSON that can stand in a script element: it holds no `<`."""
    return Markup(json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"))


@cache
def _plotly() -> tuple[str, str]:
    """Plotly's bundle, gzip in base64, and its hash. The Python package is not imported: that is slow."""
    found = importlib.util.find_spec("plotly")
    if found is None or found.submodule_search_locations is None:
        raise UserError("a page's charts are plotly's, which is not installed: pip install plotly")
    bundle = (Path(found.submodule_search_locations[0]) / "package_data" / "plotly.min.js").read_bytes()
    return base64.b64encode(gzip.compress(bundle, 6, mtime=0)).decode(), _hash(bundle)


def _hash(content: bytes) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(content).digest()).decode()
