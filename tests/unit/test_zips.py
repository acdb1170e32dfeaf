"""Archives that readers could see differently, or that would cost too much to read, are refused."""

from __future__ import annotations

import io
import random
import stat
import struct
import time
import warnings
import zipfile
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from repoman.core import zips
from repoman.core.errors import ContentInvalid
from tests.tools.effort import allowed

CONTENT = {"pkg/__init__.py": b"print('hello')\n" * 50, "pkg/data.bin": bytes(range(256)) * 9, "top.txt": b""}


def archive(files: Mapping[str, bytes] | None = None, *, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", method) as opened:
        for name, data in (CONTENT if files is None else files).items():
            opened.writestr(zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0)), data, method)
    return target.getvalue()


def read(data: bytes, wanted: Callable[[str], bool] = lambda name: True, **more: object) -> zips.Zip:
    return zips.read(io.BytesIO(data), len(data), wanted=wanted, **more)  # type: ignore[arg-type]


def refused(data: bytes, words: str = ".", **more: object) -> None:
    with pytest.raises(ContentInvalid, match=words):
        read(data, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_what_was_put_in_is_read(method: int) -> None:
    found = read(archive(method=method))
    assert dict(found.files) == CONTENT
    assert found.names == tuple(CONTENT)
    assert found.roots == {"pkg", "top.txt"}
    assert found.unpacked_bytes == sum(map(len, CONTENT.values()))
    only = read(archive(method=method), lambda name: name == "top.txt")
    assert dict(only.files) == {"top.txt": b""} and only.names == tuple(CONTENT)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.from_regex(r"[a-z]{1,8}(/[a-z0-9_.]{1,3}[a-z])?", fullmatch=True), st.binary(max_size=4000)))
def test_any_files_are_read_as_they_were_written(files: dict[str, bytes]) -> None:
    folders = {name.partition("/")[0] for name in files if "/" in name}
    files = {name: data for name, data in files.items() if name not in folders}
    assert dict(read(archive(files)).files) == files


def test_folders_and_an_empty_archive() -> None:
    found = read(archive({"a/": b"", "a/b.txt": b"x"}))
    assert found.names == ("a/b.txt",) and found.members == 2
    assert read(archive({})).names == ()


def test_zip64_records_are_read() -> None:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as opened:
        with opened.open("large.bin", "w", force_zip64=True) as member:
            member.write(b"x" * 1000)
    assert dict(read(target.getvalue()).files) == {"large.bin": b"x" * 1000}


def test_zip64_by_number_of_members() -> None:
    data = archive({f"{number}": b"" for number in range(66_000)}, method=zipfile.ZIP_STORED)
    assert b"PK\x06\x06" in data
    began = time.process_time()
    assert len(read(data).files) == 66_000
    assert time.process_time() - began < allowed(5)


def test_b5_too_many_members_stop_at_once() -> None:
    data = archive({f"{number}": b"" for number in range(2_000)}, method=zipfile.ZIP_STORED)
    refused(data, "more than 1000 members", limits=zips.Limits(members=1000))


# --- framing ---------------------------------------------------------------------------------------------------------


def test_b3_data_before_the_first_member() -> None:
    refused(b"#!/bin/sh\n" + archive())


def test_b3_data_after_the_end() -> None:
    refused(archive() + b"\0", "after its end")
    refused(archive() + archive(), "where its end says|unused")


def test_b3_a_comment() -> None:
    target = io.BytesIO(archive())
    with zipfile.ZipFile(target, "a") as opened:
        opened.comment = b"hello"
    refused(target.getvalue(), "comment")


def test_b3_a_comment_on_a_member() -> None:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as opened:
        info = zipfile.ZipInfo("a")
        info.comment = b"hello"
        opened.writestr(info, b"x")
    refused(target.getvalue(), "comment")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_b3_duplicate_names() -> None:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as opened:
        opened.writestr("a", b"1")
        opened.writestr("a", b"2")
    refused(target.getvalue(), "twice")


def test_b3_a_member_that_the_directory_does_not_name() -> None:
    """What streaming readers see and others do not."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as opened:
        opened.writestr("hidden", b"1")
        opened.writestr("shown", b"2")
        opened.filelist.pop(0)
        opened.NameToInfo.pop("hidden")
    refused(target.getvalue(), "unused")


def test_b3_two_end_records() -> None:
    inner = archive({"evil": b"1"})
    outer = archive({"good": b"1"})
    refused(inner + outer)
    # The second directory moved behind the first archive, with offsets that fit.
    target = io.BytesIO(inner)
    with zipfile.ZipFile(target, "a") as opened:
        opened.writestr("more", b"2")
        opened.filelist.pop(0)
    refused(target.getvalue())


@pytest.mark.parametrize(
    ("offset", "value"),
    [
        (6, 0x0800),  # flags
        (8, 0),  # method
        (14, 1),  # checksum
        (18, 3),  # packed size
        (22, 3),  # size
        (30, ord("q")),  # name
    ],
)
def test_b3_headers_that_contradict_the_directory(offset: int, value: int) -> None:
    data = bytearray(archive({"name.txt": b"some content " * 20}))
    data[offset : offset + 1] = bytes([value & 0xFF])
    if value > 0xFF:
        data[offset + 1] = value >> 8
    refused(bytes(data))


def test_b3_overlapping_members() -> None:
    """Two directory records for one piece of data, as overlapping bombs have them."""
    data = archive({"a": b"x" * 100})
    end = data.rindex(b"PK\x05\x06")
    start = data.index(b"PK\x01\x02")
    record = data[start:end]
    second = bytearray(record)
    second[46:47] = b"b"
    closing = bytearray(data[end:])
    closing[8:12] = struct.pack("<HH", 2, 2)
    closing[12:16] = struct.pack("<L", len(record) * 2)
    refused(data[:start] + record + bytes(second) + bytes(closing))


def test_b3_unknown_compression() -> None:
    for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        refused(archive(method=method), "only stored and deflate")


def test_b3_encrypted_members() -> None:
    data = bytearray(archive({"a": b"secret"}))
    data[6] |= 1
    start = data.index(b"PK\x01\x02")
    data[start + 8] |= 1
    refused(bytes(data), "encrypted")


def test_b3_sizes_behind_the_data() -> None:
    class Pipe(io.RawIOBase):
        def __init__(self) -> None:
            self.data = bytearray()

        def writable(self) -> bool:
            return True

        def write(self, data: object) -> int:
            self.data += bytes(data)  # type: ignore[arg-type]
            return len(data)  # type: ignore[arg-type]

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w") as opened:  # type: ignore[arg-type]
        opened.writestr("a", b"x" * 100)
    refused(bytes(pipe.data), "after its data")


def test_b3_a_second_name_in_an_extra_field() -> None:
    info = zipfile.ZipInfo("good.py")
    name = b"evil.py"
    info.extra = struct.pack("<HHBL", 0x7075, 5 + len(name), 1, zlib.crc32(b"good.py")) + name
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as opened:
        opened.writestr(info, b"x")
    refused(target.getvalue(), "second name")


def test_b3_zip64_locator_that_points_elsewhere() -> None:
    data = bytearray(archive({f"{number}": b"" for number in range(66_000)}, method=zipfile.ZIP_STORED))
    at = data.rindex(b"PK\x06\x07")
    data[at + 8] ^= 1
    refused(bytes(data), "zip64")
    refused(bytes(data[:at] + data[at + 20 :]), "zip64|where its end says")


def test_extra_fields_that_are_cut() -> None:
    info = zipfile.ZipInfo("a")
    info.extra = b"\x99\x99\x10\x00abc"
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as opened:
        opened.writestr(info, b"x")
    refused(target.getvalue(), "cut")


# --- names and kinds -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["../a", "a/../b", "/etc/passwd", "a//b", "./a", "a/.", "C:evil", "a\\b", "a\nb", "a\x7fb", "a\u202eb", ".."],
)
def test_b1_names_that_lead_out(name: str) -> None:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as opened:
        info = zipfile.ZipInfo("placeholder")
        info.filename = name
        opened.writestr(info, b"x")
    refused(target.getvalue(), "cannot be a path")


def test_names_that_are_not_utf8() -> None:
    data = archive({"name": b"x"}).replace(b"name", b"n\xffme")
    refused(data, "not UTF-8")
    data = archive({"name": b"x"}).replace(b"name", "n\u00e9e".encode())
    refused(data, "not marked")


def test_names_beyond_ascii_that_are_marked() -> None:
    assert read(archive({"gr\u00fc\u00dfe.txt": b"x"})).names == ("gr\u00fc\u00dfe.txt",)


def test_b1_links_and_devices() -> None:
    for kind in (stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR):
        info = zipfile.ZipInfo("a")
        info.external_attr = (kind | 0o777) << 16
        target = io.BytesIO()
        with zipfile.ZipFile(target, "w") as opened:
            opened.writestr(info, b"/etc/passwd")
        refused(target.getvalue(), "link or device")


def test_a_path_is_a_file_or_a_folder() -> None:
    refused(archive({"a": b"1", "a/b": b"2"}), "file and a folder")


# --- bombs -----------------------------------------------------------------------------------------------------------


def test_b2_a_bomb_by_its_declared_sizes() -> None:
    data = archive({"zeros": bytes(65 * 1024 * 1024)})
    began = time.process_time()
    refused(data, "50 times")
    assert time.process_time() - began < allowed(0.5)


def test_b2_compressible_content_below_the_threshold_is_fine() -> None:
    assert read(archive({"zeros": bytes(2_000_000)}), lambda name: False).unpacked_bytes == 2_000_000


def test_b2_the_cap_on_size() -> None:
    refused(archive(), "would unpack", limits=zips.Limits(unpacked_bytes=100))


def lying(size: int, content: bytes) -> bytes:
    """An archive whose headers agree that the member has `size` bytes."""
    packed = zlib.compressobj(9, zlib.DEFLATED, -15)
    data = packed.compress(content) + packed.flush()
    crc = zlib.crc32(content)
    local = struct.pack("<4sHHHHHLLLHH", b"PK\3\4", 20, 0, 8, 0, 0x21, crc, len(data), size, 1, 0) + b"a" + data
    central = struct.pack(
        "<4sBBHHHHHLLLHHHHHLL", b"PK\1\2", 20, 3, 20, 0, 8, 0, 0x21, crc, len(data), size, 1, 0, 0, 0, 0, 0, 0
    )
    central += b"a"
    return local + central + struct.pack("<4sHHHHLLH", b"PK\5\6", 0, 0, 1, 1, len(central), len(local), 0)


def test_b4_more_content_than_declared() -> None:
    began = time.process_time()
    refused(lying(10, bytes(200_000_000)), "larger than the archive declares")
    assert time.process_time() - began < allowed(3)  # most of it is the making


def test_b4_less_content_than_declared() -> None:
    refused(lying(1000, b"x"), "damaged")


def test_b4_a_wrong_checksum() -> None:
    data = archive({"a": b"x" * 100}, method=zipfile.ZIP_STORED)
    refused(data.replace(b"x" * 100, b"x" * 99 + b"y"), "damaged")


def test_data_after_the_end_of_a_deflate_stream() -> None:
    content = b"x" * 100
    good = lying(100, content)
    assert dict(read(good).files) == {"a": content}
    packed = zlib.compressobj(9, zlib.DEFLATED, -15)
    data = packed.compress(content) + packed.flush()
    longer = data + b"PK\3\4hidden"
    crc = zlib.crc32(content)
    local = struct.pack("<4sHHHHHLLLHH", b"PK\3\4", 20, 0, 8, 0, 0x21, crc, len(longer), 100, 1, 0) + b"a" + longer
    central = struct.pack(
        "<4sBBHHHHHLLLHHHHHLL", b"PK\1\2", 20, 3, 20, 0, 8, 0, 0x21, crc, len(longer), 100, 1, 0, 0, 0, 0, 0, 0
    )
    central += b"a"
    refused(local + central + struct.pack("<4sHHHHLLH", b"PK\5\6", 0, 0, 1, 1, len(central), len(local), 0), "damaged")


def test_what_is_wanted_is_bounded() -> None:
    refused(archive(), "larger than is read", wanted_bytes=100)


# --- anything --------------------------------------------------------------------------------------------------------


def test_every_cut_is_refused() -> None:
    data = archive()
    for length in range(len(data)):
        with pytest.raises(ContentInvalid):
            read(data[:length])


def test_r1_flipped_bytes_are_refused_or_harmless() -> None:
    """Whatever single byte changes, the answer is the same content or ContentInvalid."""
    data = archive({"a/b.txt": b"content " * 10, "a/c.txt": b"more"})
    chance = random.Random(5)
    for position in range(len(data)):
        changed = bytearray(data)
        changed[position] ^= 1 << chance.randrange(8)
        try:
            found = read(bytes(changed))
        except ContentInvalid:
            continue
        assert set(found.files.values()) == {b"content " * 10, b"more"}


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300), st.integers(0, 400))
def test_r1_noise_is_refused(noise: bytes, position: int) -> None:
    data = archive({"a": b"x"})
    position = min(position, len(data))
    for candidate in (noise, data[:position] + noise + data[position + len(noise) :], noise + data):
        try:
            read(candidate)
        except ContentInvalid:
            pass


# --- one member, by the directory ------------------------------------------------------------------------------------


def one(data: bytes, name: str = "a.txt", **more: Any) -> bytes | None:
    return zips.read_one(io.BytesIO(data), len(data), name, **more)


class Pipe(io.BytesIO):
    def seekable(self) -> bool:
        return False

    def tell(self) -> int:
        raise OSError("a pipe")


def streamed(*files: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED, comment: bytes = b"") -> bytearray:
    target = Pipe()
    with warnings.catch_warnings(), zipfile.ZipFile(target, "w", method) as opened:
        warnings.simplefilter("ignore")  # about names that are there twice
        opened.comment = comment
        for name, data in files:
            opened.writestr(name, data)
    return bytearray(target.getvalue())


LINE, HEADER, END = b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06"
A, B = ("a.txt", b"a" * 1000), ("b.txt", b"b" * 2000)


@pytest.mark.parametrize(
    "data",
    [
        archive(dict([A, B])),
        archive(dict([A, B]), method=zipfile.ZIP_STORED),
        streamed(A, B),
        streamed(B, A, comment=b"c" * 65_535),
        streamed(A, B, B),
        streamed(A, ("b.txt", archive(dict([A, B])))),
    ],
    ids=["plain", "stored", "streamed", "comment", "another one twice", "nested"],
)
def test_b3_one_member_of_what_streaming_tools_write(data: bytes) -> None:
    assert one(data) == A[1] and one(data, "c.txt") is None
    with pytest.raises(ContentInvalid, match="larger than is read"):
        one(data, most=999)


def test_b3_one_member_beside_what_cannot_be_unpacked_here() -> None:
    data = streamed(A, B)
    at = data.rindex(b"PK\x01\x02")
    data[at + 8] |= 1  # encrypted
    assert one(data) == A[1]
    with pytest.raises(ContentInvalid, match="encrypted"):
        one(data, "b.txt")


def changed(data: bytearray, sign: bytes, at: int, value: bytes) -> bytearray:
    start = data.index(sign) + at
    data[start : start + len(value)] = value
    return data


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (streamed(A, A), "twice"),
        (streamed(A, ("../b", b"")), "cannot be a path"),
        (streamed(A, method=zipfile.ZIP_STORED), "does not say where that ends"),
        (streamed(A, comment=bytes(streamed(B))), "not where its end says"),
        (streamed(A, comment=END + bytes(30)), "data after it"),
        (streamed(A, comment=b"x" + END), "no zip archive"),
        (streamed(A) + b"more", "data after it"),
        (streamed(A)[:-1], "cut"),
        (b"before it" + streamed(A), "not where its end says"),
        (changed(streamed(A), HEADER, 30, b"x.txt"), "not where the archive's directory says"),
        (changed(streamed(A), HEADER, 22, b"\1"), "two different things"),
        (changed(bytearray(archive(dict([A]))), HEADER, 22, b"\1"), "two different things"),
        (changed(streamed(A), HEADER, 8, b"\0\0"), "two different things"),
        (changed(streamed(A), LINE, 24, b"\1\0"), "larger than the archive declares"),
        (changed(streamed(A), LINE, 24, b"\xff\xff"), "damaged"),
        (changed(streamed(A), LINE, 20, b"\xff\xff"), "overlaps the archive's directory"),
        (changed(streamed(A), LINE, 16, b"\0\0\0\0"), "damaged"),
        (changed(streamed(A), LINE, 24, b"\xff\xff\xff\x7f"), "times its size"),
        (changed(streamed(A), END, 10, b"\2\0"), "set of several|shorter than it says"),
    ],
)
def test_b2_b3_one_member_that_readers_differ_about_is_not_read(data: bytes, words: str) -> None:
    with pytest.raises(ContentInvalid, match=words):
        one(data)


def test_b2_one_member_of_too_many() -> None:
    with pytest.raises(ContentInvalid, match="more than 1 members"):
        one(streamed(A, B), limits=zips.Limits(members=1))
