"""Archives from strangers: what is in them, and everything that is refused (THREATS B1 to B6)."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import time
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from repoman.core import tarballs
from repoman.core.errors import ContentInvalid
from repoman.core.tarballs import Limits, Tarball
from tests.tools.effort import allowed

NOTHING: Callable[[str], bool] = lambda name: False  # noqa: E731
ALL: Callable[[str], bool] = lambda name: True  # noqa: E731
END = bytes(1024)


def member(
    name: bytes = b"package/a",
    data: bytes = b"",
    *,
    kind: bytes = b"0",
    link: bytes = b"",
    size: bytes | None = None,
    prefix: bytes = b"",
) -> bytes:
    """A header as it is written, with its data and padding. `size` replaces the field, whatever it says."""
    header = bytearray(512)
    header[0 : len(name)] = name
    header[100:108] = b"0000644\0"
    header[124:136] = size if size is not None else b"%011o\0" % len(data)
    header[136:148] = b"00000000000\0"
    header[156:157] = kind
    header[157 : 157 + len(link)] = link
    header[257:265] = b"ustar\x0000"
    header[345 : 345 + len(prefix)] = prefix
    return signed(header) + data + bytes(-len(data) % 512)


def signed(header: bytearray) -> bytes:
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def pax(**records: bytes | str) -> bytes:
    return member(b"PaxHeader", pax_body(records.items()), kind=b"x")


def pax_body(records: Sequence[tuple[str, bytes | str]] | object) -> bytes:
    found = b""
    for key, value in records:  # type: ignore[attr-defined]
        text = key.replace("__", ".").encode() + b"=" + (value.encode() if isinstance(value, str) else value) + b"\n"
        size = len(text) + 2
        while len(b"%d " % size) + len(text) != size:
            size += 1
        found += b"%d " % size + text
    return found


def packed(*members: bytes, end: bytes = END) -> bytes:
    return gzip.compress(b"".join(members) + end, 1)


def read(data: bytes, wanted: Callable[[str], bool] = NOTHING, **limits: object) -> Tarball:
    return tarballs.read(io.BytesIO(data), wanted=wanted, limits=Limits(**limits))  # type: ignore[arg-type]


def refused(data: bytes, text: str, wanted: Callable[[str], bool] = NOTHING, **limits: object) -> None:
    with pytest.raises(ContentInvalid) as caught:
        read(data, wanted, **limits)
    assert text in caught.value.message


# --- what is read ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_archives_of_every_form_are_read(form: int) -> None:
    names = ["package/package.json", f"package/{'long/' * 22}name.js", "package/\u00e9.js"]
    if form == tarfile.USTAR_FORMAT:
        names.pop()
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=form) as archive:
        folder = tarfile.TarInfo("package/lib")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name in names:
            info = tarfile.TarInfo(name)
            info.size, info.mtime = 700, 1.5 if form == tarfile.PAX_FORMAT else 1
            archive.addfile(info, io.BytesIO(name.encode().ljust(700)))
    found = read(gzip.compress(raw.getvalue()), ALL)
    assert (found.members, found.file_count, found.file_bytes) == (len(names) + 1, len(names), 700 * len(names))
    assert found.roots == {"package"} and found.unpacked_bytes == len(raw.getvalue())
    assert found.names == ("package/lib/", *names) or found.names == ("package/lib", *names)
    assert found.files == {name: name.encode().ljust(700) for name in names}


def test_names_are_normalized_for_what_is_wanted_and_kept_as_written() -> None:
    data = packed(member(b"./package/a", b"1"), member(b"package//b", b"2"), member(b"package/./c", b"3"))
    found = read(data, ALL)
    assert found.names == ("./package/a", "package//b", "package/./c") and found.roots == {"package"}
    assert found.files == {"package/a": b"1", "package/b": b"2", "package/c": b"3"}


def test_a_folder_at_the_top_named_dot_has_no_root() -> None:
    assert read(packed(member(b"./", kind=b"5"), member(b"./a/b"))).roots == {"a"}


def test_several_gzip_members_and_padding_are_one_stream() -> None:
    raw = member(b"package/a", b"x" * 5000) + member(b"package/b", b"y") + END
    data = b"".join(gzip.compress(raw[at : at + 700]) for at in range(0, len(raw), 700))
    for padding in (b"", bytes(100_000)):
        assert read(data + padding, ALL).files == {"package/a": b"x" * 5000, "package/b": b"y"}


def test_a_global_header_is_passed_over() -> None:
    data = packed(member(b"pax_global_header", pax_body([("comment", "abc")]), kind=b"g"), member())
    assert read(data).names == ("package/a",)


def test_an_archive_without_an_end_mark_is_read() -> None:
    assert read(packed(member(data=b"1"), end=b""), ALL).files == {"package/a": b"1"}


def test_large_sizes_in_base_256_and_pax_are_understood() -> None:
    data = b"z" * 700
    field = b"\x80" + (700).to_bytes(11, "big")
    assert read(packed(member(data=data, size=field)), ALL).files == {"package/a": data}
    assert read(packed(pax(size="700"), member(data=data, size=b"00000000000\0")), ALL).files == {"package/a": data}


def test_empty_input() -> None:
    assert read(packed()).members == 0


# --- B1 --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        *(b"../x", b"package/../../x", b"package/..", b"..", b"a/../b", b"..\\x", b"a\\..\\..\\x"),
        *(b"/etc/passwd", b"\\\\host\\x", b"C:\\x", b"c:/x", b"//x"),
    ],
)
@pytest.mark.parametrize("how", ["plain", "pax", "gnu", "prefix"])
def test_B1_traversal_and_absolute_paths_are_refused(name: bytes, how: str) -> None:
    if how == "plain":
        data = packed(member(name))
    elif how == "pax":
        data = packed(pax(path=name), member(b"package/fine"))
    elif how == "gnu":
        data = packed(member(b"././@LongLink", name + b"\0", kind=b"L"), member(b"package/fine"))
    else:
        data = packed(member(b"x", prefix=name))
    refused(data, "is not allowed: the name")


@pytest.mark.parametrize("kind", [b"1", b"2"])
def test_B1_links_are_refused_unless_they_are_allowed(kind: bytes) -> None:
    data = packed(member(b"package/a"), member(b"package/b", kind=kind, link=b"a" if kind == b"2" else b"package/a"))
    refused(data, "'package/b' is a link")
    assert read(data, links=True).members == 2


@pytest.mark.parametrize(
    ("kind", "link"),
    [
        *((b"2", target) for target in (b"../../x", b"/etc/passwd", b"..\\..\\x", b"a/../../..", b"x/../..", b"")),
        *((b"1", target) for target in (b"../x", b"/etc/passwd", b"C:\\x", b"a/../../x")),
    ],
)
def test_B1_links_that_leave_are_refused_even_where_links_are_allowed(kind: bytes, link: bytes) -> None:
    refused(packed(member(b"package/a", kind=kind, link=link)), "'package/a' is", links=True)


def test_B1_nothing_lies_behind_a_link() -> None:
    first = member(b"p/dir", kind=b"2", link=b"..")
    refused(packed(first, member(b"p/dir/x")), "behind a link", links=True)
    refused(packed(member(b"p/dir/x"), first), "behind a link", links=True)
    refused(packed(first, member(b"q", kind=b"2", link=b"p/dir/more")), "behind a link", links=True)
    assert read(packed(first, member(b"q", kind=b"2", link=b"p/dir")), links=True).members == 2


@pytest.mark.parametrize("kind", [b"3", b"4", b"6", b"S", b"M", b"V", b"D", b"N", b"X", b"Z", b"\xff"])
def test_B1_devices_pipes_and_unknown_kinds_are_refused(kind: bytes) -> None:
    refused(packed(member(kind=kind)), "'package/a' is")


@pytest.mark.parametrize("name", [b"package/a\nb", b"package/\x1b[2J", b"package/\x7f"])
def test_A3_control_characters_in_names_are_refused(name: bytes) -> None:
    refused(packed(member(name)), "control character")


# --- B2 --------------------------------------------------------------------------------------------------------------


def bomb(size: int) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    pieces = [packer.compress(member(size=b"\x80" + size.to_bytes(11, "big")))]
    piece = bytes(1024 * 1024)
    pieces += [packer.compress(piece) for _ in range(size // len(piece))]
    return b"".join([*pieces, packer.flush()])


def test_B2_a_bomb_is_stopped_early_with_flat_memory() -> None:
    data = bomb(300 * 1024 * 1024)
    tracemalloc.start()
    try:
        begun = time.process_time()
        refused(data, "compression bomb")
        assert time.process_time() - begun < allowed(2)
        assert tracemalloc.get_traced_memory()[1] < 16 * 1024 * 1024
    finally:
        tracemalloc.stop()


def test_B2_the_size_cap_holds_without_a_bad_ratio() -> None:
    begun = time.process_time()
    refused(bomb(300 * 1024 * 1024), "more than 104857600 bytes", ratio=10**6, unpacked_bytes=100 * 1024 * 1024)
    assert time.process_time() - begun < allowed(2)


def test_B2_many_tiny_gzip_members_are_bounded() -> None:
    refused(gzip.compress(b"") * 2000, "more than 1000 members", gzip_members=1000)


def test_B2_a_bomb_behind_the_end_of_the_archive_is_counted_too() -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    data = packer.compress(member()) + b"".join(packer.compress(bytes(1024 * 1024)) for _ in range(120))
    refused(data + packer.flush(), "compression bomb")


# --- B4, B5 ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "size",
    [
        b"\xff" * 12,
        b"\xff" + bytes(11),
        b"\x81" + bytes(11),
        b"\x80" + b"\xff" * 11,
        b"-0000000001\0",
        b"9999\0",
        b"0x10\0",
        b"1 1\0",
    ],
)
def test_B4_B5_negative_huge_and_odd_sizes_are_refused(size: bytes) -> None:
    refused(packed(member(size=size.ljust(12, b"\0"))), "the size of a member")


@pytest.mark.parametrize("size", ["-1", "1e3", "99999999999999999999", "0x1", "", " 1"])
def test_B5_odd_sizes_in_pax_headers_are_refused(size: str) -> None:
    refused(packed(pax(size=size), member()), "pax header")


def test_B4_a_member_longer_than_the_archive_is_cut_off() -> None:
    for wanted in (NOTHING, ALL):
        refused(packed(member(data=b"x" * 100, size=b"00000777777\0")), "is cut off", wanted)


def test_B4_a_large_size_is_not_believed() -> None:
    tracemalloc.start()
    try:
        with pytest.raises(ContentInvalid):
            tarballs.read(
                io.BytesIO(packed(member(size=b"\x80" + (2**40).to_bytes(11, "big")))), wanted=ALL, wanted_bytes=2**50
            )
        assert tracemalloc.get_traced_memory()[1] < 8 * 1024 * 1024
    finally:
        tracemalloc.stop()


def test_wanted_files_are_bounded_all_together() -> None:
    data = packed(member(b"package/a", b"x" * 600), member(b"package/b", b"x" * 600))
    with pytest.raises(ContentInvalid, match="'package/b' is larger than the 400 bytes"):
        tarballs.read(io.BytesIO(data), wanted=ALL, wanted_bytes=1000)


def test_B5_large_extended_headers_are_refused_before_they_are_read() -> None:
    body = pax_body([("comment", "x" * 250_000)])
    refused(packed(member(b"h", body, kind=b"x"), member()), "at most 204800")
    refused(packed(member(b"h", b"x" * 250_000, kind=b"L"), member()), "at most 204800")


def test_B5_a_million_members_are_stopped_in_a_second() -> None:
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    block = member(b"package/a") * 1000
    data = b"".join([*(packer.compress(block) for _ in range(200)), packer.flush()])
    begun = time.process_time()
    refused(data, "more than 65536 members", ratio=10**6)
    assert time.process_time() - begun < allowed(2)  # a second on a machine of its own
    refused(packed(*[member()] * 11), "more than 10 members", members=10)


def test_B5_names_are_bounded_all_together() -> None:
    refused(packed(*[pax(path=b"p/" + b"n" * 3000), member()] * 20), "names in the archive", names_bytes=50_000)
    refused(packed(pax(path=b"p/" + b"n" * 5000), member()), "a name of 5002 bytes")


@pytest.mark.parametrize(
    "records",
    [
        [("GNU.sparse.major", "1")],
        [("path", "a"), ("path", "b")],
        [("path", "")],
        [("path", b"a\x00b")],
    ],
)
def test_B5_sparse_repeated_and_empty_pax_records_are_refused(records: list[tuple[str, bytes | str]]) -> None:
    data = packed(member(b"h", pax_body(records), kind=b"x"), member())
    refused(data, "")


@pytest.mark.parametrize(
    "body", [b"10 path=abc", b"0 path=a\n", b"999 path=a\n", b"path=a\n", b"7 path\n", b"3 =\n", b"\n"]
)
def test_B5_malformed_pax_headers_are_refused(body: bytes) -> None:
    refused(packed(member(b"h", body, kind=b"x"), member()), "pax header that is not valid")


def test_a_global_header_names_no_members() -> None:
    refused(packed(member(b"h", pax_body([("path", "package/x")]), kind=b"g"), member()), "pax header")


@pytest.mark.parametrize(
    "headers",
    [
        (pax(path="a"), pax(path="b")),
        (pax(path="a"), member(b"h", b"b\0", kind=b"L")),
        (member(b"h", b"b\0", kind=b"L"), pax(path="a")),
        (pax(path="a"), member(b"h", pax_body([("comment", "x")]), kind=b"g")),
    ],
)
def test_a_member_named_twice_is_refused(headers: tuple[bytes, ...]) -> None:
    refused(packed(*headers, member()), "")


def test_an_extended_header_needs_a_member() -> None:
    refused(packed(pax(path="a")), "ends after an extended header")


# --- B6, and what two readers would see differently ------------------------------------------------------------------


def test_B6_what_is_no_gzip_is_refused() -> None:
    raw = member() + END
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("package/package.json", "{}")
    for data in (b"", b"\x1f", raw, zipped.getvalue(), b"<html>", zlib.compress(raw)):
        with pytest.raises(ContentInvalid):
            read(data)


@pytest.mark.parametrize("comment", [b"", b"a comment that is long " * 500])
def test_B6_a_file_that_is_a_zip_as_well_is_refused(comment: bytes) -> None:
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("x", "y")
        archive.comment = comment
    refused(packed(member()) + zipped.getvalue(), "a zip file as well")
    # The zip may also be hidden in a name that the gzip header carries, with all the rest as its comment.
    raw = packed(member())
    directory = zipped.getvalue()[: -22 - len(comment)]
    end = b"PK\x05\x06" + bytes(4) + b"\1\0\1\0" + len(directory).to_bytes(4, "little") + bytes(4)
    extra = directory + end + len(raw[10:]).to_bytes(2, "little")
    header = raw[:3] + b"\x04" + raw[4:10] + len(extra).to_bytes(2, "little") + extra
    with pytest.raises(ContentInvalid, match="zip"):
        read(header + raw[10:])


@pytest.mark.parametrize("rest", [b"x", b"\0\0x", bytes(70_000) + b"x", b"\x1f"])
def test_B6_trailing_bytes_are_refused(rest: bytes) -> None:
    refused(packed(member()) + rest, "")


def test_B6_data_after_the_end_of_the_archive_is_refused() -> None:
    for gap in (512, 1024, 20_480):
        refused(packed(member(), end=bytes(gap) + member(b"package/hidden") + END), "goes on after its end")


def test_B6_a_damaged_checksum_and_a_cut_stream_are_refused() -> None:
    data = bytearray(member(data=b"hello"))
    data[0] ^= 1
    refused(packed(bytes(data)), "checksum")
    whole = packed(member(data=os.urandom(5000)))
    for cut in (5, 100, len(whole) // 2, len(whole) - 9, len(whole) - 1):
        refused(whole[:cut], "")
    broken = bytearray(whole)
    broken[-6] ^= 1
    refused(bytes(broken), "damaged")


def test_B6_content_where_there_should_be_none_is_refused() -> None:
    for kind, name in ((b"5", b"package/dir/"), (b"0", b"package/dir/"), (b"\0", b"package/dir/")):
        refused(packed(member(name, b"data", kind=kind)), "although it is no plain file")


def test_a_wanted_file_that_comes_twice_is_refused() -> None:
    for second in (b"package/a", b"package//a", b"package/./a"):
        refused(packed(member(data=b"1"), member(second, b"2")), "twice", ALL)


def test_names_that_are_not_utf8_are_shown_escaped() -> None:
    assert read(packed(member(b"package/\xff"))).names == ("package/\\xff",)


@given(st.binary(max_size=3000))
@settings(max_examples=300, deadline=None)
def test_R1_any_bytes_are_read_or_refused(data: bytes) -> None:
    for attempt in (data, gzip.compress(data, 1), packed(member() + data)):
        try:
            read(attempt, ALL)
        except ContentInvalid:
            pass


@given(st.integers(0, 511), st.integers(0, 255), st.integers(0, 3))
@settings(max_examples=500, deadline=None)
def test_R1_any_header_byte_may_be_wrong(at: int, value: int, which: int) -> None:
    headers = [pax(path="package/b"), member(b"package/x"), member(b"package/a", b"data"), member(b"d/", kind=b"5")]
    header = bytearray(headers[which][:512])
    header[at] = value
    headers[which] = signed(header) + headers[which][512:]
    try:
        read(packed(*headers), ALL, links=True)
    except ContentInvalid:
        pass
