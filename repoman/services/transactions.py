"""One way to write: a durable transaction, run again as a whole where a race was lost."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from django.db import IntegrityError, OperationalError

from repoman.catalog.writes import ClaimLost
from repoman.core.errors import Conflict, Unavailable
from repoman.db.group import commit

Result = TypeVar("Result")
TRIES = 5
_RETRIED_STATES = ("40001", "40P01")  # serialization failure, deadlock


def write(block: Callable[[], Result]) -> Result:
    """Run `block` in a durable transaction (`db/group.py`). A lost race runs it again, at most five times.

    Foreign keys are checked at COMMIT, so a race with the collector shows as IntegrityError there; PostgreSQL cannot go
    on in a failed transaction, so the whole block is repeated. Raises Conflict when it keeps losing.
    """
    for attempt in range(TRIES):
        try:
            return commit(block)
        except (IntegrityError, ClaimLost) as error:
            if attempt == TRIES - 1:
                if isinstance(error, ClaimLost):
                    raise Unavailable("the content was being collected; push it again", retry_after_seconds=1) from None
                raise Conflict("somebody else changed the same thing at the same time; try again") from error
        except OperationalError as error:
            state = getattr(error.__cause__, "sqlstate", None)
            if state not in _RETRIED_STATES or attempt == TRIES - 1:
                raise
        time.sleep(0.01 * 2**attempt)
    raise AssertionError("unreachable")
