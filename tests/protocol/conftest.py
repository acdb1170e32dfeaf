"""What tests of remote repositories share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.tools.upstream import Upstream


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream() as found:
        yield found
