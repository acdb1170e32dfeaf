"""Names, versions and file names: what is one project, what is refused, what an upstream's odd names mean."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.utils import canonicalize_name
from packaging.version import Version

from formats.pypi import names
from formats.pypi.handler import Pypi
from repoman.core.errors import NameInvalid, NotFound

NAMES = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,20}[A-Za-z0-9])?", fullmatch=True)


@given(NAMES)
def test_pypi_2_1_normalize_is_idempotent_and_the_libraries_own(name: str) -> None:
    key = names.normalize(name)
    assert names.normalize(key) == key == canonicalize_name(name)


def test_pypi_2_3_a8_spellings_of_one_project_have_one_key() -> None:
    spellings = ("Foo.Bar", "foo-bar", "FOO_BAR", "foo--bar", "foo-_.bar")
    assert {Pypi().normalize(name) for name in spellings} == {"foo-bar"}


@pytest.mark.parametrize(
    "name",
    [
        "",
        "-",
        ".",
        "..",
        "-a",
        "a-",
        "_a",
        "a b",
        "a/b",
        "a\\b",
        "a\n",
        "a\0",
        "a%2f",
        "caf\u00e9",
        "\u212a",
        "x" * 201,
        "a@b",
    ],
)
def test_pypi_a9_what_is_no_project_name(name: str) -> None:
    with pytest.raises(NameInvalid):
        names.normalize(name)
    with pytest.raises(NotFound):
        names.known_name(name)


def test_pypi_2_4_versions_are_keyed_by_their_normal_form() -> None:
    assert str(names.check_version("v1.0")) == "1.0"
    assert str(names.check_version("1.0-0")) == "1.0.post0"
    identity = Pypi().version_identity
    assert identity("1.0") == identity("1.0.0") == identity("v1") != identity("1.1")


def test_pypi_2_5_local_versions() -> None:
    assert str(names.check_version("1.0+cu121")) == "1.0+cu121"
    assert names.link("a-1.0+cu121.tar.gz") == "a-1.0%2Bcu121.tar.gz"


@pytest.mark.parametrize("version", ["", "latest", "1.0-beta-x", "1..0", "\u0661.0", "1" * 201, "1.0/../2", "1.0\n2"])
def test_pypi_what_is_no_version(version: str) -> None:
    with pytest.raises(NameInvalid):
        names.check_version(version)


@given(st.lists(st.text(max_size=12) | st.from_regex(r"[0-9]{1,2}(\.[0-9]){0,2}(rc[0-9])?", fullmatch=True)))
def test_pypi_2_4_any_texts_can_be_sorted_as_versions(versions: list[str]) -> None:
    found = sorted(versions, key=names.version_key)
    known = [Version(text) for text in found if names.parse_version(text) is not None]
    assert known == sorted(known)
    assert all(names.parse_version(text) is None for text in found[: len(found) - len(known)])


@pytest.mark.parametrize(
    ("filename", "project", "version", "python"),
    [
        ("demo-1.0-py3-none-any.whl", "demo", "1.0", "py3"),
        ("demo-1.0-1-py3-none-any.whl", "demo", "1.0", "py3"),
        ("demo-1.0-py2.py3-none-any.whl", "demo", "1.0", "py2.py3"),
        (
            "foo_bar-1.0+cu121-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
            "foo-bar",
            "1.0+cu121",
            "cp311",
        ),
        ("Foo.Bar-1.0-py3-none-any.whl", "foo-bar", "1.0", "py3"),
        ("demo-1.0-cp311-cp311-linux_x86_64.whl", "demo", "1.0", "cp311"),
        ("demo-1.0-cp313-cp313-pyodide_2025_0_wasm32.whl", "demo", "1.0", "cp313"),
        ("foo_bar-1.0.tar.gz", "foo-bar", "1.0", "source"),
        ("Foo.Bar-1.0.tar.gz", "foo-bar", "1.0", "source"),
        ("foo-bar-1.0.tar.gz", "foo-bar", "1.0", "source"),
        ("foo-1.0-1.tar.gz", "foo", "1.0.post1", "source"),
    ],
)
def test_pypi_2_7_2_8_2_11_names_of_uploads(filename: str, project: str, version: str, python: str) -> None:
    found = names.parse_upload(filename, project)
    assert (found.project, found.release, found.python) == (project, version, python)


def test_pypi_a10_names_that_concatenate_alike_are_told_apart_by_the_project() -> None:
    assert names.parse_upload("a-b-1.tar.gz", "a-b").release == "1"
    with pytest.raises(NameInvalid):
        names.parse_upload("a-b-1.tar.gz", "a")
    assert names.parse_upload("a-1-2.tar.gz", "a-1").release == "2"
    assert names.parse_upload("a-1-2.tar.gz", "a").release == "1.post2"


@pytest.mark.parametrize(
    "filename",
    [
        "",
        ".demo-1.0.tar.gz",
        "../demo-1.0.tar.gz",
        "a/demo-1.0.tar.gz",
        "a\\demo-1.0.tar.gz",
        "demo-1.0.tar.gz\n",
        "demo-1.0\x7f.tar.gz",
        "demo-1.0\0.tar.gz",
        "demo -1.0.tar.gz",
        "demo-1.0.tar.gz ",
        "demo-1.\u0660.tar.gz",
        "de\u212ao-1.0.tar.gz",
        "demo-1.0.zip",
        "demo-1.0.egg",
        "demo-1.0.exe",
        "demo-1.0-py3-none-any.whl.metadata",
        "demo-1.0.TAR.GZ",
        "demo-1.0-py3-none-any.WHL",
        "demo.tar.gz",
        "demo-one.tar.gz",
        "other-1.0.tar.gz",
        "other-1.0-py3-none-any.whl",
        "demo-1.0-py3-none.whl",
        "demo-1.0-build-py3-none-any.whl",
        "demo-1.0-1-2-py3-none-any.whl",
        "demo-1.0-py3--any.whl",
        "-1.0.tar.gz",
        "demo-1.0" + "0" * 240 + ".tar.gz",
    ],
)
def test_pypi_2_9_2_12_a3_a6_a7_names_of_uploads_that_are_refused(filename: str) -> None:
    with pytest.raises(NameInvalid):
        names.parse_upload(filename, "demo")


@pytest.mark.parametrize(
    ("filename", "project", "version"),
    [
        ("My.Pkg-1.0.zip", "my-pkg", "1.0"),
        ("my-pkg-1.0.tar.gz", "my-pkg", "1.0"),
        ("my-pkg-1.0-2.tar.gz", "my-pkg", "1.0.post2"),
        ("my-pkg-1.0.tar.bz2", "my-pkg", "1.0"),
        ("My.Pkg-1.0-py2-none-any.whl", "my-pkg", "1.0"),
        ("my-pkg-2-1.0.tar.gz", "my-pkg-2", "1.0"),
    ],
)
def test_pypi_2_8_an_upstreams_old_names_are_read(filename: str, project: str, version: str) -> None:
    found = names.parse_listed(filename, project)
    assert found is not None and found.release == version


@pytest.mark.parametrize(
    "filename",
    [
        "my-pkg-dev.tar.gz",
        "my-pkg-1.0-beta-x.zip",
        "my_pkg-1.0-py2.7.egg",
        "my-pkg-1.0.win32.exe",
        "other-1.0.tar.gz",
        "other-1.0-py3-none-any.whl",
        "my_pkg-dev-py3-none-any.whl",
        "my_pkg-1.0-py3-none-any-x86_64_v3.whl" + ".asc",
        "../my-pkg-1.0.tar.gz",
        "",
    ],
)
def test_pypi_2_6_an_upstreams_other_files_are_passed_over(filename: str) -> None:
    assert names.parse_listed(filename, "my-pkg") is None


@given(st.text(max_size=40))
def test_pypi_r1_any_file_name_is_read_or_passed_over(text: str) -> None:
    names.parse_listed(text, "demo")
    names.parse_listed(text + ".whl", "demo")
    names.parse_listed("demo-" + text + ".tar.gz", "demo")
