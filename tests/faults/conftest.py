"""What the tests of whole commands share: one process that starts them, and runs that nothing happens to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from commands import Zygote
    from resumed import References

pytest.register_assert_rewrite("commands", "resumed")  # before anything imports them


@pytest.fixture(scope="session")
def zygote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    from commands import Zygote

    zygote = Zygote(tmp_path_factory.mktemp("zygote"))
    try:
        yield zygote
    finally:
        zygote.close()


@pytest.fixture(scope="session")
def references(zygote: Zygote, tmp_path_factory: pytest.TempPathFactory) -> References:
    from resumed import References

    return References(zygote, tmp_path_factory.mktemp("references"))
