"""Chart archives, Chart.yaml and provenance files (helm.md I1 to I7, I20, P1, P4; THREATS B1 to B10)."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from typing import Any

import pytest

from formats.helm import package, samples
from formats.helm.chartyaml import load
from formats.helm.metadata import entry_of, upstream_entry
from repoman.core.errors import ContentInvalid, NameInvalid
from repoman.core.records import Facts

BASE = "apiVersion: v2\nname: c\nversion: 1.0.0\n"
EMPTY = {"name": "c", "version": "1.0.0", "apiVersion": "v2"}


def entry(text: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(entry_of(load((BASE + text).encode()))[2])
    return found


def inspect(data: bytes, path: str = "chart.tgz") -> Facts:
    return package.inspect(path, io.BytesIO(data), len(data))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", {}),
        ("unknown: {a: [1]}\nfoo: bar", {}),  # helm.md I4, 13.1
        ("home: ''\nkeywords: []\ndeprecated: no\nannotations: {}\nicon:", {}),
        ("appVersion: 1.10", {"appVersion": "1.1"}),
        ('appVersion: "1.10"', {"appVersion": "1.10"}),
        ("appversion: 7\nHOME: x", {"appVersion": "7", "home": "x"}),
        ("deprecated: on", {"deprecated": True}),
        ("description: |\n  a\n  b\n", {"description": "a b "}),
        ('description: "a\\tb\\x07c\\u200bd\\u00a0e"', {"description": "a bcd e"}),
        ("keywords: [1, yes, a, null]", {"keywords": ["1", "true", "a", ""]}),
        ("annotations: {b: 1, a: yes, c: null, d: 1.10}", {"annotations": {"a": "true", "b": "1", "c": "",
        "d": "1.1"}}),
        ("maintainers: null", {}),
        ("maintainers: [{name: a, email: b, x: y}, {}]", {"maintainers": [{"name": "a", "email": "b"}, {}]}),
        ("dependencies: [{name: a}]", {"dependencies": [{"name": "a", "repository": ""}]}),
        (
            "dependencies: [{name: a, version: 1, repository: r, condition: x, tags: [t, 1], enabled: yes, alias: b_c-1,"
            " import-values: [x, {child: a, parent: 1}, 1.50]}]",
            {"dependencies": [{
                "name": "a", "version": "1", "repository": "r", "condition": "x", "tags": ["t", "1"], "enabled": True,
                "import-values": ["x", {"child": "a", "parent": 1}, 1.5], "alias": "b_c-1",
            }]},
        ),
        ("type: library\nkubeVersion: 1.20", {"kubeVersion": "1.2", "type": "library"}),
        ("condition: a\ntags: b\nengine: gotpl\ntillerVersion: 1", {"condition": "a", "tags": "b"}),
    ],
)  # fmt: skip
def test_helm_i3_i6_fields_as_helm_writes_them(text: str, found: dict[str, Any]) -> None:
    assert entry(text) == EMPTY | found


def test_fields_are_in_one_order_whatever_the_order_of_the_file() -> None:
    one = entry_of(load(b"name: c\nversion: 1.0.0\nhome: h\nannotations: {b: x, a: y}"))
    other = entry_of(load(b"annotations: {a: y, b: x}\nhome: h\nversion: 1.0.0\napiVersion: v1\nname: c"))
    assert one == other == ("c", "1.0.0", one[2])
    assert list(json.loads(one[2])) == ["name", "home", "version", "apiVersion", "annotations"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name: a", "twice"), ("Name: a", "two spellings"), ("apiVersion: v2\n", "twice"), ("deprecated: 'true'",
        "true or false"),
        ("home: [a]", "text"), ("keywords: a", "list"), ("maintainers: [null]", "no mapping"), ("annotations: [a]",
        "mapping"),
        ("annotations: {a: {b: c}}", "text"), ("tags: [a]", "text"), ("type: foo", "type"), ("dependencies: [null]",
        "no mapping"),
        ("dependencies: [{name: a}, {name: a}]", "two dependencies"), ("dependencies: [{name: a, alias: b.c}]",
        "alias"),
        ("dependencies: [{name: a, import-values: [.inf]}]", "JSON"), ('home: "a\\0b"', "NUL"),
        ("annotations: {a: " + "x" * 600_000 + "}", "bytes"), ("keywords: [" + "a," * 2000 + "]", "items"),
    ],
)  # fmt: skip
def test_what_helm_or_an_index_cannot_take_is_refused(text: str, words: str) -> None:
    with pytest.raises(ContentInvalid, match=words):
        entry(text)


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ("[]", "mapping"), ("name: c", "no version"), ("version: 1.0.0", "no name"), ("name: c\nversion: x", "version"),
        ("name: c\nversion: 1.0.0\napiVersion: v3", "apiVersion"), ("name: c\nversion: 1.0.0\napiVersion: 2",
        "apiVersion"),
        ("name: a/b\nversion: 1.0.0", "name"), ("name: ..\nversion: 1.0.0", "'..'"),
        ('name: "a\\u0007"\nversion: 1.0.0', "name"),
        ("name: [a]\nversion: 1.0.0", "text"), ("name: c\nversion: [1]", "text"),
        (f"name: {'x' * 250}\nversion: 1.0.0", "longer"),
        ('name: c\nversion: "1.0.0\\n"', "version"),
    ],
)  # fmt: skip
def test_helm_m2_names_and_versions_that_are_refused(document: str, words: str) -> None:
    with pytest.raises((ContentInvalid, NameInvalid), match=words):
        entry_of(load(document.encode()))


def test_helm_v4_of_an_upstreams_entry_bad_fields_are_left_out() -> None:
    given = {
        "name": "c", "version": 1.5, "apiVersion": None, "home": ["x"], "keywords": "a", "type": "foo", "x": 1,
        "deprecated": "yes", "maintainers": [None], "annotations": {"a": None}, "dependencies": [{"name": "a",
        "alias": "."}],
        "description": "d", "urls": ["x"], "digest": 1,
    }  # fmt: skip
    name, version, text = upstream_entry(given)
    assert (name, version) == ("c", "1.5")
    assert json.loads(text) == {
        "name": "c", "version": "1.5", "description": "d", "apiVersion": "v1", "annotations": {"a": ""},
    }  # fmt: skip
    for bad in (
        {"name": "c"},
        {"name": "a/b", "version": "1.0.0"},
        {"name": "c", "version": {}},
        {"name": "c", "version": "x"},
    ):
        with pytest.raises((ContentInvalid, NameInvalid)):
            upstream_entry(bad)


# --- archives --------------------------------------------------------------------------------------------------------


def test_helm_i20_chart_yaml_of_the_top_folder_counts() -> None:
    sub = {"demo/charts/sub/Chart.yaml": b"name: sub\nversion: 9.9.9", "demo/templates/Chart.yaml": b"name: x"}
    facts = inspect(samples.chart(files=sub))
    assert (facts.name, facts.version) == ("demo", "1.0.0")
    assert json.loads(str(facts.metadata["entry"]))["description"] == "A sample."


DEPENDENCY = "dependencies: [{name: a, version: 1.x, repository: r}]"


@pytest.mark.parametrize("api", ["apiVersion: v1", "apiVersion: v2", ""])
@pytest.mark.parametrize(
    ("text", "required", "found"),
    [
        ("", DEPENDENCY, [{"name": "a", "version": "1.x", "repository": "r"}]),
        ("dependencies: [{name: b, alias: c}, {name: d}]", DEPENDENCY,
         [{"name": "a", "version": "1.x", "repository": "r", "alias": "c"}]),
        ("dependencies: [{name: b}]", DEPENDENCY.replace("]", ", {name: c}]"),
         [{"name": "a", "version": "1.x", "repository": "r"}, {"name": "c", "repository": ""}]),
        ("dependencies: [{name: b}]", "", [{"name": "b", "repository": ""}]),
        ("dependencies: [{name: b}]", "# nothing", [{"name": "b", "repository": ""}]),
        ("dependencies: [{name: b}]", "null", [{"name": "b", "repository": ""}]),
        ("dependencies: [{name: b}]", "other: 1", [{"name": "b", "repository": ""}]),
        ("dependencies: [{name: b}]", "dependencies:", None),
        ("dependencies: [{name: b}]", "dependencies: []", None),
    ],
)  # fmt: skip
def test_helm_i21_dependencies_of_requirements_yaml_as_helm_reads_them(
    api: str, text: str, required: str, found: list[dict[str, str]] | None
) -> None:
    document = f"{api}\nname: demo\nversion: 1.0.0\n{text}".encode()
    facts = inspect(samples.chart(document=document, files={"demo/requirements.yaml": required.encode()}))
    assert json.loads(str(facts.metadata["entry"])).get("dependencies") == found


@pytest.mark.parametrize(
    ("required", "words"),
    [
        ("[a]", "no mapping"), ("dependencies: [", "requirements.yaml: the YAML"), ("dependencies: a", "requirements.yaml"),
        ("dependencies: [null]", "requirements.yaml"), ("dependencies: [{name: a}, {name: a}]", "two dependencies"),
        ("dependencies: [{name: a, alias: a.b}]", "requirements.yaml: dependency"), ("name: other", "'name', which belongs"),
        ("dependencies: []\ndependencies: []", "twice"), ("a: !!str b", "tag"), ("#" * (1 << 20) + "##", "bytes"),
    ],
)  # fmt: skip
def test_helm_i20_requirements_yaml_that_is_refused(required: str, words: str) -> None:
    with pytest.raises(ContentInvalid, match=words):
        inspect(samples.chart(files={"demo/requirements.yaml": required.encode()}))


def test_the_requirements_of_sub_charts_do_not_count() -> None:
    facts = inspect(samples.chart(files={"demo/charts/sub/requirements.yaml": DEPENDENCY.encode()}))
    assert "dependencies" not in json.loads(str(facts.metadata["entry"]))


def archive(*members: tarfile.TarInfo, files: dict[str, bytes] | None = None) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as found:
        for path, data in (files or {"c/Chart.yaml": BASE.encode()}).items():
            member = tarfile.TarInfo(path)
            member.size = len(data)
            found.addfile(member, io.BytesIO(data))
        for member in members:
            found.addfile(member, io.BytesIO(b"\0" * member.size))
    return gzip.compress(raw.getvalue(), mtime=0)


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0) -> tarfile.TarInfo:
    found = tarfile.TarInfo(name)
    found.type, found.linkname, found.size = kind, link, size
    return found


@pytest.mark.parametrize(
    "data",
    [
        archive(member("c/../../etc/passwd")),
        archive(member("/etc/passwd")),
        archive(member("c/link", tarfile.SYMTYPE, "/etc/passwd")),
        archive(member("c/link", tarfile.SYMTYPE, "values.yaml")),
        archive(member("c/hard", tarfile.LNKTYPE, "c/Chart.yaml")),
        archive(member("c/device", tarfile.CHRTYPE)),
        archive(member("d/values.yaml")),
        archive(member("c\\Chart.yaml")),
        archive(files={"Chart.yaml": BASE.encode()}),
        archive(files={"c/values.yaml": b"a: 1"}),
        archive(files={"c/d/Chart.yaml": BASE.encode()}),
        archive(files={"c/Chart.yaml": BASE.encode(), "c/./Chart.yaml": BASE.replace("1.0.0", "2.0.0").encode()}),
        archive(files={"c/Chart.yaml": BASE.encode() + b"#" * (2 << 20)}),
        archive(member("c/big", size=101 << 20)),
        samples.chart()[:-20],
        samples.chart() + b"more",
        gzip.compress(b"no tar"),
        b"PK\x03\x04",
        b"",
    ],
    ids=range(19),
)
def test_b1_b2_b6_hostile_archives(data: bytes) -> None:
    with pytest.raises(ContentInvalid):
        inspect(data)


def test_content_for_chartmuseums_api() -> None:
    facts = inspect(samples.chart(files={"demo/templates/a/b.yaml": b"x", "demo/README.md": b"r"}), "content:demo.tgz")
    assert sorted(facts.documents) == ["templates/a/b.yaml", "templates/configmap.yaml", "values.yaml"]


# --- provenance ------------------------------------------------------------------------------------------------------


def test_helm_p1_p4_what_a_provenance_file_speaks_of() -> None:
    data = samples.chart(version="1.0.0+a")
    proof = samples.provenance(data, version="1.0.0+a")
    facts = inspect(proof, "chart.tgz.prov")
    assert (facts.name, facts.version) == ("demo", "1.0.0+a")
    assert facts.metadata == {"sha256": __import__("hashlib").sha256(data).hexdigest()}
    assert inspect(proof.replace(b"\n", b"\r\n"), "x.prov") == facts
    assert inspect(b"\n\n" + proof, "x.prov") == facts


@pytest.mark.parametrize(
    "change",
    [
        lambda proof: proof.replace(b"demo-1.0.0.tgz", b"other-1.0.0.tgz"),
        lambda proof: proof.replace(b"sha256:", b"sha512:"),
        lambda proof: proof.replace(b"sha256:", b"sha256:0"),
        lambda proof: proof.replace(b"files:", b"names:"),
        lambda proof: proof.replace(b"\n...\n", b"\n"),
        lambda proof: proof.replace(b"-----BEGIN PGP SIGNATURE-----", b""),
        lambda proof: proof.replace(b"-----END PGP SIGNATURE-----", b""),
        lambda proof: proof.replace(b"-----BEGIN PGP SIGNED MESSAGE-----", b"<html>"),
        lambda proof: proof.replace(b"Hash: SHA512", b"no header"),
        lambda proof: proof.replace(b'"version": "1.0.0"', b'"version": "x"'),
        lambda proof: proof.replace(b"files:", b"files: !!python/name:os.system"),
        lambda proof: b"<!DOCTYPE html><html></html>",
        lambda proof: b"\xff" * 100,
        lambda proof: proof + b" " * (1 << 20),
        lambda proof: b"",
    ],
)
def test_p4_a_provenance_file_that_says_nothing_is_refused(change: Any) -> None:
    proof = samples.provenance(samples.chart())
    assert change(proof) != proof
    with pytest.raises((ContentInvalid, NameInvalid)):
        inspect(change(proof), "chart.tgz.prov")
