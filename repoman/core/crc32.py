"""CRC-32 of bytes that were never together, from those of their pieces: zlib's `crc32_combine`, which Python does not give.

Bytes are a polynomial over GF(2), and their CRC its remainder. With n bytes behind them it is multiplied by x^8n, and the
remainder of those is added. As in zlib, the highest of 32 bits is the coefficient of x^0.
"""

from __future__ import annotations

_POLYNOMIAL = 0xEDB88320
_POWERS = [1 << bit for bit in range(31, -1, -1)]  # x^0, x^1 …


def _product(first: int, second: int) -> int:
    found = 0
    for power in _POWERS:
        if first & power:
            found ^= second
        second = second >> 1 ^ _POLYNOMIAL if second & 1 else second >> 1
    return found


_SHIFTS = [_POWERS[8]]  # of 1, 2, 4 … bytes: each the square of the one before
while len(_SHIFTS) < 48:
    _SHIFTS.append(_product(_SHIFTS[-1], _SHIFTS[-1]))


def shift_of(size: int) -> int:
    """What `combined` needs to know of a piece's size in bytes. Costs about ten times as much."""
    found = _POWERS[0]
    for bit in range(size.bit_length()):
        if size >> bit & 1:
            found = _product(found, _SHIFTS[bit])
    return found


def combined(before: int, checksum: int, shift: int) -> int:
    """The CRC-32 of what has `before`, followed by a piece with this checksum and shift."""
    return _product(before, shift) ^ checksum
