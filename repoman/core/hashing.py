"""Hashing that can stop in one request and go on in another.

`hashlib` objects can be neither pickled nor saved, so an upload of many requests would have to be read and hashed once
more when it completes. libcrypto's own SHA-256 context is a plain C structure (OpenSSL `SHA256_Init(3)`: `SHA256_CTX`, 112
bytes), so it is called here through ctypes and its bytes are kept between the requests. Measured on x86-64 with SHA
extensions, OpenSSL 3.0, in pieces of 1 MiB: the same 1.4 to 1.7 GB/s as `hashlib.sha256`; a 64 KiB piece costs 1 to 2 µs
more, a small object about 4 µs more. The interpreter lock is released while a piece of 2 KiB or more is hashed.

Where libcrypto offers no such functions (or fails the self-test below) `Sha256` falls back to hashlib: everything works,
`state()` gives None, and the caller hashes the stored bytes again at the end.
"""

from __future__ import annotations

import ctypes
import hashlib
import sys
from collections.abc import Buffer, Callable, Iterable  # type: ignore[attr-defined,unused-ignore]
from typing import Any, Self
