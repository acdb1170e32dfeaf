"""How long something may take on the machine that runs the tests, at the speed that it has at this moment."""

from __future__ import annotations

import time

ROUNDS = 200_000
NOMINAL = 0.012  # processor seconds that the rounds take on the machine on which limits are written
SLACK = 3


def allowed(seconds: float) -> float:
    """The limit for what takes fewer than `seconds` on that machine. What such limits are for, work that grows with the
    square of what somebody sends, takes a hundred times as long."""
    begun = time.process_time()
    total = 0
    for number in range(ROUNDS):
        total += number
    return seconds * SLACK * max(1.0, (time.process_time() - begun) / NOMINAL)
