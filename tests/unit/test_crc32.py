"""CRC-32 of what is joined, from those of its pieces."""

from __future__ import annotations

import random
import zlib

from repoman.core import crc32


def test_it_is_that_of_the_joined_bytes() -> None:
    seed = random.Random(7)
    for _ in range(50):
        pieces = [seed.randbytes(seed.choice((0, 1, 2, 7, 255, 256, 1000, 70_000))) for _ in range(seed.randrange(6))]
        found = zlib.crc32(b"")
        for piece in pieces:
            found = crc32.combined(found, zlib.crc32(piece), crc32.shift_of(len(piece)))
        assert found == zlib.crc32(b"".join(pieces))


def test_pieces_may_be_longer_than_4_gib() -> None:
    half = crc32.shift_of(2**35 + 1)
    assert crc32.combined(half, 0, half) == crc32.shift_of(2**36 + 2)
