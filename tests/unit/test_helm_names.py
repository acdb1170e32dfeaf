"""Names, versions and file names of charts (helm.md I9, I12, I13, I15; THREATS A6, A7, A9, A10)."""

from __future__ import annotations

import pytest

from formats.helm import names
from repoman.core.errors import NameInvalid


@pytest.mark.parametrize("name", ["demo", "cert-manager", "A_b.c", "x" * 200, "my chart", "grün", "1.0", "a+b"])
def test_helm_i15_names_that_are_taken(name: str) -> None:
    assert names.check_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "-",
        "-a",
        "a/b",
        "a\\b",
        " a",
        "a ",
        "a\nb",
        "a\0b",
        "x" * 256,
        "a%2fb",
        "ﬁle",
        "a\u200bb",
        "\ud800",
    ]
    + ["a\u202eb", "e\u0301", "a" + "\u0301" * 9, "a\u00a0b"],
)
def test_a6_a7_a9_names_that_are_refused(name: str) -> None:
    with pytest.raises(NameInvalid):
        names.check_name(name)


@pytest.mark.parametrize(
    "version",
    ["1.0.0", "v1.2", "1", "1.0", "01.2.3", "1.0.0-rc.1", "1.0.0+a.b-c", "1.0.0-0a", f"{2**64 - 1}.0.0", "2024.01.02"],
)
def test_helm_i15_versions_as_the_go_library_takes_them(version: str) -> None:
    assert names.check_version(version) == version


@pytest.mark.parametrize(
    "version",
    [
        "",
        "a",
        "1.",
        "1.0.0.0",
        "1.0.0-",
        "1.0.0+",
        "1.0.0-01",
        f"{2**64}.0.0",
        "1.0.0 ",
        " 1",
        "V1",
        "vv1",
        "1_0",
        "latest",
    ]
    + ["1.0.0-a..b", "1.0.0\n", "١.٠", "-1", "1.0.0+a+b", "1." * 100],
)
def test_versions_that_helm_refuses(version: str) -> None:
    with pytest.raises(NameInvalid):
        names.check_version(version)


def test_helm_i9_order_is_that_of_semver() -> None:
    lowest_first = [
        "nonsense", "0.9", "1.0.0-0", "1.0.0-2", "1.0.0-10", "1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.b",
        "1.0.0-rc",
        "1.0.0", "1.0.1", "v1.1", "1.2.0", "1.10.0", "2", "10",
    ]  # fmt: skip
    highest_first = lowest_first[::-1]
    assert sorted(highest_first, key=names.version_key) == lowest_first
    assert names.version_key("1.0") == names.version_key("v1.0.0+a") == names.version_key("1.0.0")


@pytest.mark.parametrize(
    ("file", "found"),
    [
        ("demo-1.0.0.tgz", [("demo", "1.0.0")]),
        ("demo-1.0.0.tgz.prov", [("demo", "1.0.0")]),
        ("cert-manager-v1.2.tgz", [("cert-manager", "v1.2")]),
        ("foo-1-2.0.0.tgz", [("foo-1", "2.0.0"), ("foo", "1-2.0.0")]),
        ("foo-1.2.3-4.5.6.tgz", [("foo", "1.2.3-4.5.6"), ("foo-1.2.3", "4.5.6")]),
        ("foo-1.0.0-rc-1.tgz", [("foo", "1.0.0-rc-1"), ("foo-1.0.0-rc", "1")]),
        ("demo-1.0.0+a.tgz", [("demo", "1.0.0+a")]),
        ("-1.0.0.tgz", []),
        ("demo.tgz", []),
        ("demo-1.0.0.zip", []),
        ("x" * 300 + "-1.tgz", []),
    ],
)
def test_helm_i15_13_23_what_a_file_name_can_be(file: str, found: list[tuple[str, str]]) -> None:
    assert list(names.readings(file)) == found
    for name, version in found:
        assert names.file_name(name, version) == file.removesuffix(".prov")


@pytest.mark.parametrize(
    ("name", "version", "found"),
    [
        ("demo", "1.0.0", ""),
        ("cert-manager", "v1.2-rc.1", ""),
        ("x-2fast", "1.0.0", ""),
        ("foo-1", "2.0.0", "foo-1"),
        ("foo", "1-2.0.0", "foo"),
        ("foo", "1.0.0-20240102", "foo"),
        ("foo", "1.0.0-rc-1", "foo"),
        ("foo-1.0.0-rc", "1", "foo-1.0.0-rc"),
    ],
)
def test_helm_x6_v8_which_archives_are_asked_for_below_their_chart(name: str, version: str, found: str) -> None:
    file = names.file_name(name, version)
    assert names.folder(file, version) == found
    assert bool(found) == (len(names.readings(file)) > 1)
    assert [ref.package for ref in names.refs(file, name)] == [name] and not names.refs(file, "other")


def test_a6_a_file_name_has_room_for_its_provenance() -> None:
    assert names.file_name("x" * 239, "1.0.0")
    with pytest.raises(NameInvalid):
        names.file_name("x" * 243, "1.0.0")
