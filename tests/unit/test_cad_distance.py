from __future__ import annotations

import numpy as np
import pytest

from zerofit.cad.distance import chamfer
from zerofit.cad.errors import CadError


def test_chamfer_is_the_mean_squared_distance_both_ways() -> None:
    draw = np.random.default_rng(0)
    a, b = draw.random((50, 3)), draw.random((70, 6))
    squared = ((a[:, None] - b[None, :, :3]) ** 2).sum(axis=2)
    expected = squared.min(axis=1).mean() + squared.min(axis=0).mean()
    assert chamfer(a, b) == pytest.approx(expected, rel=1e-12)
    assert chamfer(b, a) == pytest.approx(expected, rel=1e-12)
    assert chamfer(2 * a, 2 * b) == pytest.approx(4 * expected, rel=1e-12)
    assert chamfer(b, b.astype(np.float32)) < 1e-12
    assert chamfer(a, a) == 0


@pytest.mark.parametrize("cloud", [np.zeros((0, 3)), np.array([[0.0, 0.0, np.nan]])], ids=["empty", "nan"])
def test_a_cloud_that_is_none_is_refused(cloud: np.ndarray) -> None:
    with pytest.raises(CadError, match="no distance"):
        chamfer(cloud, np.zeros((1, 3)))
