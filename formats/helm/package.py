"""What chart archives and provenance files say about themselves, read without unpacking them.

Helm's `pkg/chart/loader/archive` for archives: everything lies in one folder, and its Chart.yaml says what it is; those of
sub-charts lie deeper and do not count. `pkg/provenance` for the clear-signed text beside an archive, whose signature is its
readers' business: here it must speak of this chart, by its name, version and digest.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import BinaryIO

from yaml.events import StreamEndEvent

from repoman.core import tarballs
from repoman.core.errors import ContentInvalid
from repoman.core.names import shown
from repoman.core.records import Facts

from . import names
from .chartyaml import Reader, load
from .metadata import entry_of

CHART_BYTES = 100 * 1024 * 1024  # most that Helm unpacks of a chart
PROVENANCE_BYTES = 1024 * 1024
METADATA_BYTES = 1024 * 1024
CONTENT = "content:"  # before the name of an archive of which templates and values are wanted
GZIP = b"\x1f\x8b"  # what an archive begins with
_METADATA = ("Chart.yaml", "requirements.yaml")
_TEMPLATES_BYTES = 8 * 1024 * 1024
_BEGIN = b"-----BEGIN PGP SIGNED MESSAGE-----"
_SIGNATURE = b"-----BEGIN PGP SIGNATURE-----"
_END = b"-----END PGP SIGNATURE-----"
_SUM = re.compile(r"sha256:([0-9a-f]{64})\Z")


def inspect(path: str, file: BinaryIO, size: int) -> Facts:
    """See `FormatHandler.inspect`. `metadata` of an archive is its index entry, of a provenance file what it says that the
    archive's digest is; `documents`, with `content:` before the path, are templates and values."""
    if path.endswith(names.PROVENANCE):
        return _provenance(file, size)
    if path.startswith(CONTENT):
        return _content(file)
    return _chart(_read(file, lambda name: False))


def _read(file: BinaryIO, is_wanted: Callable[[str], bool]) -> tarballs.Tarball:
    """Chart.yaml and requirements.yaml of the top folder, and what else is wanted of it. Raises ContentInvalid."""

    def wanted(name: str) -> bool:
        rest = name.partition("/")[2]
        return rest in _METADATA or is_wanted(rest)

    found = tarballs.read(
        file,
        wanted=wanted,
        wanted_bytes=2 * METADATA_BYTES + _TEMPLATES_BYTES,
        limits=tarballs.Limits(unpacked_bytes=CHART_BYTES),
    )
    if any("\\" in name for name in found.names):
        raise ContentInvalid("the archive has names with backslashes, which readers take for other names")
    if len(found.roots) != 1:
        raise ContentInvalid("a chart's archive has one top folder with everything in it")
    return found


def _chart(found: tarballs.Tarball) -> Facts:
    document, required = (found.files.get(f"{next(iter(found.roots))}/{name}") for name in _METADATA)
    if document is None:
        raise ContentInvalid("the archive has no Chart.yaml in its top folder: it is no chart")
    for name, data in zip(_METADATA, (document, required or b""), strict=True):
        if len(data) > METADATA_BYTES:
            raise ContentInvalid(f"{name} has more than {METADATA_BYTES} bytes")
    name, version, entry = entry_of(load(document), _required(required or b""))
    return Facts(name, version, {"entry": entry})


def _required(document: bytes) -> object:
    """What requirements.yaml holds; None where that is nothing."""
    try:
        reader = Reader(document)
        return None if isinstance(reader.peek(), StreamEndEvent) else load(document)
    except ContentInvalid as error:
        raise ContentInvalid(f"requirements.yaml: {error.message}") from None


def _content(file: BinaryIO) -> Facts:
    """Of a chart that was published before: what ChartMuseum's API shows of it. What its Chart.yaml says is known."""
    found = _read(file, lambda rest: rest == "values.yaml" or rest.startswith("templates/"))
    root = f"{next(iter(found.roots))}/"
    documents = {name.removeprefix(root): data for name, data in found.files.items()}
    for name in _METADATA:
        documents.pop(name, None)
    return Facts("", "", documents=documents)


# --- provenance ------------------------------------------------------------------------------------------------------


def _provenance(file: BinaryIO, size: int) -> Facts:
    if size > PROVENANCE_BYTES:
        raise ContentInvalid(f"a provenance file has at most {PROVENANCE_BYTES} bytes")
    file.seek(0)
    name, version, digest = read_provenance(file.read(PROVENANCE_BYTES))
    return Facts(name, version, {"sha256": digest})


def read_provenance(data: bytes) -> tuple[str, str, str]:
    """Name and version of the chart and the sha256 of its archive. Raises ContentInvalid, NameInvalid."""
    body = _signed_text(data)
    described, mark, sums = body.partition(b"\n...\n")
    if not mark:
        raise ContentInvalid("the provenance file has no list of digests behind its chart")
    name, version, _ = entry_of(load(described))
    listed = load(sums)
    files = listed.get("files") if isinstance(listed, dict) else None
    told = files.get(names.file_name(name, version)) if isinstance(files, dict) else None
    match = _SUM.match(told) if isinstance(told, str) else None
    if match is None:
        raise ContentInvalid(f"the provenance file has no sha256 digest of '{shown(names.file_name(name, version))}'")
    return name, version, match[1]


def _signed_text(data: bytes) -> bytes:
    """What was signed, by RFC 9580 §7: behind the armor's headers, with dashes that were escaped as they were."""
    lines = data.replace(b"\r\n", b"\n").split(b"\n")
    try:
        begin = next(at for at, line in enumerate(lines) if line.strip())
        start = lines.index(b"", begin)
        end = lines.index(_SIGNATURE, start)
        lines.index(_END, end)
    except (StopIteration, ValueError):
        raise ContentInvalid("this is no provenance file: it has no clear-signed text") from None
    if lines[begin].rstrip() != _BEGIN or any(b":" not in line for line in lines[begin + 1 : start]):
        raise ContentInvalid("this is no provenance file: it has no clear-signed text")
    return b"\n".join(line.removeprefix(b"- ") for line in lines[start + 1 : end]) + b"\n"
