"""Tarballs and manifests: what inspect finds, what must agree, what is kept (contract 6.4 to 6.7, 3.3.3; THREATS B10)."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from typing import Any

import pytest

from formats.npm import handler, package, samples
from repoman.core.errors import ContentInvalid
from repoman.core.records import Facts


def inspect(data: bytes) -> Facts:
    return handler.inspect("n-1.0.0.tgz", io.BytesIO(data), len(data))


def facts(files: dict[str, bytes] | None = None, **fields: Any) -> Facts:
    return inspect(samples.tarball(samples.manifest("n", "1.0.0", **fields), files))


def refused(data: bytes, text: str) -> None:
    with pytest.raises(ContentInvalid) as caught:
        inspect(data)
    assert text in caught.value.message


def with_manifest(text: bytes) -> bytes:
    """A tarball whose package.json is this text."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        member = tarfile.TarInfo("package/package.json")
        member.size = len(text)
        archive.addfile(member, io.BytesIO(text))
    return gzip.compress(raw.getvalue())


def test_a_package_says_what_it_is() -> None:
    found = inspect(samples.package("@s/n", "1.2.3"))
    assert (found.name, found.version) == ("@s/n", "1.2.3")
    assert found.metadata["fileCount"] == 3
    assert found.metadata["hasInstallScript"] is False and found.metadata["hasShrinkwrap"] is False
    assert found.metadata["unpackedSize"] == sum(
        map(
            len,
            (
                json.dumps(samples.manifest("@s/n", "1.2.3")).encode(),
                b'module.exports = "@s/n@1.2.3"\n',
                b"# A sample\n",
            ),
        )
    )


@pytest.mark.parametrize("root", ["package", "n", "some folder"])
def test_npm_6_5_the_top_folder_may_have_any_name(root: str) -> None:
    assert inspect(samples.tarball(samples.manifest("n", "1.0.0"), root=root)).name == "n"


def test_npm_6_5_exactly_one_folder_with_a_manifest() -> None:
    both = samples.tarball({"name": "n", "version": "1.0.0"}, {"../other/x": b""})
    with pytest.raises(ContentInvalid):
        inspect(both)
    refused(samples.tarball({}, root="package/deeper"), "no package.json")
    refused(samples.tarball({"name": "n", "version": "1.0.0"}, root="./package"), "exactly one folder")
    refused(
        samples.tarball({"name": "n", "version": "1.0.0"}, {"PACKAGE.json": b"{}"}), "twice, in different letter case"
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "not valid JSON"),
        (b"[]", "not a JSON object"),
        (b"{}", "no name or no version"),
        (b'{"name": 1, "version": "1.0.0"}', "no name or no version"),
        (b'{"name": "n", "name": "m", "version": "1.0.0"}', "twice"),
        (b'{"name": "n", "version": "1.0.0", "private": true}', "private"),
        (b'{"name": "n\\u0000", "version": "1.0.0"}', "NUL"),
        (b'{"a":' * 100_000, "nested deeper"),
        (b"\xff\xfe", "UTF-8"),
        (b" " * (1024 * 1024 + 1), "larger than"),
    ],
)
def test_npm_6_5_B7_manifests_that_are_none_are_refused(text: bytes, reason: str) -> None:
    refused(with_manifest(text), reason)


def test_a_byte_order_mark_is_passed_over() -> None:
    assert inspect(with_manifest(b'\xef\xbb\xbf{"name": "n", "version": "1.0.0"}')).name == "n"


@pytest.mark.parametrize(
    ("fields", "files", "runs"),
    [
        ({}, {}, False),
        ({"scripts": {"test": "x", "prepare": "x"}}, {}, False),
        ({"scripts": {"preinstall": "x"}}, {}, True),
        ({"scripts": {"install": "x"}}, {}, True),
        ({"scripts": {"postinstall": "x"}}, {}, True),
        ({"scripts": {"install": ""}}, {}, False),
        ({"scripts": {"install": 7}}, {}, False),
        ({}, {"binding.gyp": b"{}"}, True),
        ({"gypfile": False}, {"binding.gyp": b"{}"}, False),
        ({}, {"src/binding.gyp": b"{}"}, False),
    ],
)
def test_npm_3_3_3_whether_something_runs_on_install_is_derived(
    fields: dict[str, Any], files: dict[str, bytes], runs: bool
) -> None:
    found = facts(files, **fields)
    assert found.metadata["hasInstallScript"] is runs
    kept = stored(found, fields)
    assert kept.get("hasInstallScript", False) is runs


def stored(found: Facts, given: dict[str, Any] | None = None) -> dict[str, Any]:
    manifest = {**samples.manifest("n", "1.0.0"), **(given or {})}
    return package.stored_manifest(manifest, found, name="n", version="1.0.0", publisher="alice")


# --- agreement (B10) -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("archived", "given"),
    [
        ({"dependencies": {"a": "^1"}}, {"dependencies": {"a": "^1"}}),
        ({"dependencies": {"a": " ^1 "}}, {"dependencies": {"a": "^1"}}),
        ({"dependencies": {"a": ""}}, {"dependencies": {"a": "*"}}),
        # npm 6 copies optional dependencies into the others, npm 7 and later take them out
        ({"optionalDependencies": {"a": "1"}}, {"optionalDependencies": {"a": "1"}, "dependencies": {"a": "1"}}),
        ({"optionalDependencies": {"a": "1"}, "dependencies": {"a": "1"}}, {"optionalDependencies": {"a": "1"}}),
        # git specs are written out, workspaces replaced
        ({"dependencies": {"a": "u/r"}}, {"dependencies": {"a": "git+ssh://git@host/u/r.git"}}),
        ({"dependencies": {"a": "workspace:^"}}, {"dependencies": {"a": "^1.0.0"}}),
        ({"dependencies": ["a@1", "@s/b@2"]}, {"dependencies": {"a": "1", "@s/b": "2"}}),
        ({"dependencies": {}}, {}),
        ({"bin": "./cli.js"}, {"bin": {"n": "cli.js"}}),
        ({"bin": {"n": "./bin/../cli.js"}}, {"bin": {"n": "cli.js"}}),
        ({"bin": ["bin/x"]}, {"bin": {"x": "bin/x"}}),
        ({"directories": {"bin": "bin"}}, {"bin": {"x": "bin/x"}, "directories": {"bin": "bin"}}),
        ({"scripts": {"test": "a"}}, {"scripts": {"test": "b"}}),
        ({"devDependencies": {"a": "1"}}, {}),
        ({"bundledDependencies": ["a"]}, {"bundleDependencies": ["a"]}),
    ],
)
def test_B10_what_clients_write_differently_agrees(archived: dict[str, Any], given: dict[str, Any]) -> None:
    package.check_agreement(given, facts(**archived))


@pytest.mark.parametrize(
    ("archived", "given", "field"),
    [
        ({}, {"dependencies": {"a": "1"}}, "dependencies.a"),
        ({"dependencies": {"a": "1"}}, {}, "dependencies.a"),
        ({"dependencies": {"a": "1"}}, {"dependencies": {"a": "2"}}, "dependencies.a"),
        ({"dependencies": {"a": "1"}}, {"dependencies": {"a": "1"}, "optionalDependencies": {"a": "1"}}, "a"),
        ({"peerDependencies": {"a": "1"}}, {}, "peerDependencies.a"),
        ({"scripts": {"postinstall": "evil"}}, {}, "scripts.postinstall"),
        ({}, {"scripts": {"install": "node-gyp rebuild"}}, "scripts.install"),
        ({"bin": "cli.js"}, {}, "bin"),
        ({"bin": "cli.js"}, {"bin": "other.js"}, "bin"),
    ],
)
def test_B10_npm_6_6_a_manifest_that_contradicts_the_tarball_is_refused(
    archived: dict[str, Any], given: dict[str, Any], field: str
) -> None:
    with pytest.raises(ContentInvalid) as caught:
        package.check_agreement({"name": "n", **given}, facts(**archived))
    assert field in caught.value.message


def test_npm_6_6_the_script_that_npm_adds_for_gyp_agrees() -> None:
    found = facts({"binding.gyp": b"{}"})
    given = {"scripts": {"install": "node-gyp rebuild"}, "gypfile": True}
    package.check_agreement(given, found)
    assert stored(found, given)["scripts"] == {"install": "node-gyp rebuild"}


@pytest.mark.parametrize("own", ["1.0.0", "v1.0.0", "=1.0.0", " 1.0.0", "1.0.0+build"])
def test_npm_6_5_versions_as_npm_cleans_them(own: str) -> None:
    package.check_identity("n", "1.0.0", Facts("n", own))


@pytest.mark.parametrize(
    ("name", "own"), [("n", "1.0.1"), ("m", "1.0.0"), ("N", "1.0.0"), ("@s/n", "1.0.0"), ("n", "1.0.0-a")]
)
def test_npm_6_5_B10_A10_a_tarball_of_something_else_is_refused(name: str, own: str) -> None:
    with pytest.raises(ContentInvalid):
        package.check_identity("n", "1.0.0", Facts(name, own))


# --- what is kept ----------------------------------------------------------------------------------------------------


def test_npm_3_2_4_6_7_every_field_is_kept_but_what_the_server_says() -> None:
    given = {
        "unknown": {"deep": [1, 2.5, None]},
        "exports": {".": {"import": "./b.js", "require": "./a.js"}},
        "_nodeVersion": "20.0.0",
        "_id": "evil@1.0.0",
        "_npmUser": {"name": "mallory"},
        "maintainers": [{"name": "mallory"}],
        "_resolved": "/home/alice/n.tgz",
        "_from": "file:n.tgz",
        "_integrity": "x",
        "patchedDependencies": {"a": "b"},
        "dist": {"tarball": "http://evil.example/x.tgz"},
        "deprecated": "no",
        "hasInstallScript": False,
        "_hasShrinkwrap": True,
        "readme": "r" * 100_000,
    }
    found = stored(facts(dependencies={"a": "1"}, engines={"node": ">=20"}, os=["linux"], libc="glibc"), given)
    person = {"name": "alice", "email": ""}
    assert found == {
        **samples.manifest("n", "1.0.0"),
        "unknown": {"deep": [1, 2.5, None]},
        "exports": {".": {"import": "./b.js", "require": "./a.js"}},
        "_nodeVersion": "20.0.0",
        "_id": "n@1.0.0",
        "_npmUser": person,
        "maintainers": [person],
        "readme": "r" * 65_536,
        "dependencies": {"a": "1"},
        "engines": {"node": ">=20"},
        "os": ["linux"],
        "libc": ["glibc"],
    }


def test_B10_npm_6_6_what_is_installed_is_served_as_the_tarball_has_it() -> None:
    archived = {
        "dependencies": {"a": "u/r"},
        "cpu": ["x64"],
        "bundledDependencies": True,
        "peerDependenciesMeta": {"p": {}},
    }
    given = {
        "dependencies": {"a": "git+ssh://git@host/u/r.git"},
        "cpu": ["arm64"],
        "os": ["win32"],
        "engines": {"node": "1"},
    }
    found = stored(facts(**archived), given)
    assert found["dependencies"] == {"a": "u/r"} and found["cpu"] == ["x64"]
    assert found["bundleDependencies"] == ["a"] and found["peerDependenciesMeta"] == {"p": {}}
    assert "os" not in found and "engines" not in found and "bundledDependencies" not in found


def test_npm_3_3_2_commands_of_a_folder_and_a_shrinkwrap_are_kept() -> None:
    found = stored(
        facts({"npm-shrinkwrap.json": b"{}", "bin/x": b""}, directories={"bin": "bin"}), {"bin": {"x": "bin/x"}}
    )
    assert found["bin"] == {"x": "bin/x"} and found["_hasShrinkwrap"] is True


def test_B1_commands_stay_inside_the_package() -> None:
    found = stored(facts(bin={"../../evil": "../../../etc/passwd", "ok": "/abs.js", "": "x", "num": 7}))
    assert found["bin"] == {"evil": "etc/passwd", "ok": "abs.js"}


def test_manifests_are_bounded() -> None:
    with pytest.raises(ContentInvalid, match="larger than"):
        stored(facts(), {"big": "x" * 1_100_000})


ODD: list[Any] = [None, True, 7, "text", [], ["a", 7, None], {"a": 7, "b": None, "c": ["d"]}, {}]


@pytest.mark.parametrize("value", ODD)
@pytest.mark.parametrize(
    "field",
    [
        *(
            "dependencies",
            "optionalDependencies",
            "peerDependencies",
            "bundleDependencies",
            "bundledDependencies",
            "bin",
        ),
        *(
            "scripts",
            "engines",
            "os",
            "cpu",
            "libc",
            "directories",
            "funding",
            "peerDependenciesMeta",
            "gypfile",
            "readme",
        ),
    ],
)
def test_R1_fields_of_any_type_are_read_or_refused(field: str, value: Any) -> None:
    found = facts(**{field: value})
    stored(found, {field: value})
    try:
        package.check_agreement({field: value}, facts())
    except ContentInvalid:
        pass
    package.check_agreement({"name": "n", field: value}, found)
