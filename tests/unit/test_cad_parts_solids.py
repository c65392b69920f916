"""Embedded parts are valid solids of the volume that is known of them, and look like what they are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zerofit.cad.kernel import Invalid, Kernel
from zerofit.cad.parts import part
from zerofit.cad.parts.drawing import UNITS
from zerofit.cad.parts.form import Form, every
from zerofit.cad.parts.made import FORMS
from zerofit.cad.quantise import dequantise


@pytest.fixture(scope="module")
def kernel() -> Iterator[Kernel]:
    with Kernel() as one:
        yield one


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.kind)
def test_a_part_is_one_valid_solid_of_its_volume(form: type[Form], kernel: Kernel) -> None:
    forms = list(every(form))
    for one in (*forms[:: len(forms) // 6], forms[-1]):
        solid = kernel.measure(dequantise(one.sequence))
        assert not isinstance(solid, Invalid), (one, solid)
        assert solid.volume * UNITS**3 == pytest.approx(one.volume, rel=1e-9), one
        assert solid.bodies == 1, one
        assert np.abs(solid.box).max() <= 0.75 + 1e-9, one


def test_parts_side_by_side(kernel: Kernel, tmp_path: Path) -> None:
    """To look at them: `pytest -k side_by_side --basetemp parts`, then `parts/**/parts.png`."""
    views = [kernel.render(dequantise(part(0, index).sequence), size=96, view=0) for index in range(25)]
    pictures = [view for view in views if not isinstance(view, Invalid)]
    assert len(pictures) == 25
    assert all(0.02 < (picture < 250).any(axis=2).mean() < 0.98 for picture in pictures)
    assert len({picture.tobytes() for picture in pictures}) == 25
    rows = [np.concatenate(pictures[first : first + 5], axis=1) for first in range(0, 25, 5)]
    Image.fromarray(np.concatenate(rows)).save(tmp_path / "parts.png")
