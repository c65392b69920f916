"""What the tests of whole commands share: one process that starts them, and runs that nothing happens to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from commands import Zygote
    from resumed import References

pytest.register_assert_rewrite("resumed")  # before anything imports it


@pytest.fixture(scope="session")
def zygote() -> Zygote:
    from commands import zygote

    return zygote()


@pytest.fixture(scope="session")
def references(zygote: Zygote, tmp_path_factory: pytest.TempPathFactory) -> References:
    from resumed import References

    return References(zygote, tmp_path_factory.mktemp("references"))
