"""Small files for tests and demonstrations. Nothing here is read by the handler."""

from __future__ import annotations

FILES: dict[str, bytes] = {
    "readme.txt": b"hello\n",
    "empty.bin": b"",
    "build/1.0/app.tar.gz": bytes.fromhex("1f8b08000000000002ff0300000000000000000000"),
    "build/1.0/app.tar.gz.sha256": b"not a checksum\n",
    "names/with space+plus~tilde@at#hash?question%percent;semi=1.txt": b"odd names\n",
    "names/1:2.txt": b"a colon\n",
    "names/gr\u00fc\u00dfe/\u65e5\u672c\u8a9e.txt": b"not ASCII\n",
    "pages/page.html": b"<script>alert(1)</script>",
    "pages/drawing.svg": b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>',
}


def numbered(size: int) -> bytes:
    """`size` bytes in which every four-byte word differs, so that a shifted range shows."""
    return b"".join(number.to_bytes(4, "big") for number in range(size // 4 + 1))[:size]
