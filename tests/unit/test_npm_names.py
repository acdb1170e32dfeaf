"""npm names, versions, tags and the spellings of an address (contract, section 2)."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from formats.npm import handler, names
from repoman.core.errors import NameInvalid
from repoman.core.names import decode_target

NEW = ["a", "0", "lodash", "lodash.merge", "is-odd", "a_b", "@scope/name", "@a/b.c", "@1/2", "a" * 214]
OLD = ["JSONStream", "Base64", "@Scope/Name", "bluebird~", "a!b", "_private"]
BAD = [
    *("", ".", "..", ".a", "-", "-a", "a/b", "@a", "@/a", "@a/", "@a/b/c", "@a//b", "a b", "a\u00e9", "a%2fb", "a:b"),
    *("node_modules", "favicon.ico", "a" * 215, "@a/.b", "@.a/b", "@a/..", "a\0", "a\n", "@@a/b", "a@b", "@a/b@c"),
    *("@a/node_modules", "\u0430", "a\u200b", "a\\b"),
]


@pytest.mark.parametrize("name", NEW)
def test_npm_2_5_new_names_are_accepted(name: str) -> None:
    assert names.check_new_name(name) == names.check_name(name) == handler.normalize(name) == name


@pytest.mark.parametrize("name", OLD)
def test_npm_2_5_old_names_are_looked_up_but_not_published(name: str) -> None:
    assert names.check_name(name) == name
    with pytest.raises(NameInvalid):
        names.check_new_name(name)


@pytest.mark.parametrize("name", BAD)
def test_npm_2_5_A6_A7_A9_other_names_are_refused(name: str) -> None:
    with pytest.raises(NameInvalid):
        names.check_name(name)
    with pytest.raises(NameInvalid):
        names.check_new_name(name)


@pytest.mark.parametrize("name", ["_a", "@a/_b", "@_a/b", "@-a/b", "@a/-b", "A", "@A/b"])
def test_npm_2_5_scope_and_name_are_checked_separately(name: str) -> None:
    with pytest.raises(NameInvalid):
        names.check_new_name(name)


VERSIONS = [
    "0.0.0",
    "1.2.3",
    "10.20.30",
    "1.0.0-alpha",
    "1.0.0-alpha.1",
    "1.0.0-0.3.7",
    "1.0.0-x-y-z.--",
    "1.0.0+b.001",
]
NOT_VERSIONS = [
    *(
        "",
        "1",
        "1.2",
        "v1.2.3",
        "=1.2.3",
        "01.2.3",
        "1.2.3-",
        "1.2.3-01",
        "1.2.3+",
        "1.2.3-a..b",
        "1.2.3 ",
        "x",
        "1.2.3\n",
    ),
    *("1.2.\u0663", "1.2.3-\u00e9", "9007199254740993.0.0", "1.0.0-" + "a" * 300, "latest", "1.2.3.4"),
]


@pytest.mark.parametrize("version", VERSIONS)
def test_npm_2_8_versions_are_strict_semver(version: str) -> None:
    assert names.check_version(version) == version and names.is_version(version)


@pytest.mark.parametrize("version", NOT_VERSIONS)
def test_npm_2_8_what_is_no_strict_version_is_refused(version: str) -> None:
    with pytest.raises(NameInvalid):
        names.check_version(version)


def test_npm_2_8_versions_sort_by_precedence() -> None:
    ordered = [
        *(
            "not a version",
            "0.9.9",
            "1.0.0-0",
            "1.0.0-2",
            "1.0.0-11",
            "1.0.0-alpha",
            "1.0.0-alpha.1",
            "1.0.0-alpha.beta",
        ),
        *(
            "1.0.0-beta",
            "1.0.0-beta.2",
            "1.0.0-beta.11",
            "1.0.0-rc.1",
            "1.0.0",
            "1.0.0+a",
            "1.0.0+b",
            "1.9.0",
            "1.10.0",
        ),
    ]
    shuffled = random.Random(1).sample(ordered, len(ordered))
    assert sorted(shuffled, key=names.version_key) == ordered


@given(st.text(max_size=40), st.text(max_size=40))
def test_R1_any_texts_can_be_sorted(one: str, other: str) -> None:
    sorted([one, other, "1.0.0-1", "1.0.0-a"], key=handler.version_key)


def test_npm_2_8_build_metadata_does_not_count() -> None:
    assert handler.version_identity("1.0.0+a") == handler.version_identity("1.0.0+b") == "1.0.0"
    assert names.is_stable("1.0.0+a-b") and not names.is_stable("1.0.0-a+b") and not names.is_stable("x")


@pytest.mark.parametrize(
    "tag", ["latest", "beta", "next-11", "v", "release_1", "canary.2", "x1", "1.x-y", "v1.2.3.4", "X-1"]
)
def test_npm_7_3_4_tags(tag: str) -> None:
    assert names.check_tag(tag) == tag


@pytest.mark.parametrize(
    "tag",
    [
        *(
            "",
            "1",
            "v1",
            "1.x",
            "x",
            "X",
            "1.2.3",
            "v1.2.3",
            "1.2.3-beta",
            "~1",
            "~1.2",
            "1.X.x",
            "1.2.3-a.b",
            "1.2.3beta",
        ),
        *(">1", "^1", "a b", "a/b", "..", ".", "-a", "a" * 129, "*", "a\n", "\u00e9", "a%20b"),
    ],
)
def test_npm_7_3_4_A9_ranges_and_odd_tags_are_refused(tag: str) -> None:
    with pytest.raises(NameInvalid):
        names.check_tag(tag)


def test_npm_5_1_the_tarball_s_name() -> None:
    assert names.tarball_name("@s/n", "1.0.0-a+b") == "n-1.0.0-a+b.tgz"
    with pytest.raises(NameInvalid):
        names.tarball_name("a" * 200, "1.0.0-" + "b" * 100)


# --- 2.1, 2.2: one resource, several spellings -----------------------------------------------------------------------

BASE = b"/npm/team/repo/"


def decoded(target: bytes) -> str:
    return decode_target(handler.plain_target(target))


@pytest.mark.parametrize("scope", [b"@s%2fn", b"@s%2Fn", b"@s/n", b"%40s%2fn", b"%40s%2Fn", b"%40s/n"])
@pytest.mark.parametrize(
    "pattern",
    [b"%s", b"%s/1.0.0", b"%s/-/n-1.0.0.tgz", b"%s/-rev/1-a", b"-/package/%s/dist-tags/t", b"%s/-/%s-1.0.0.tgz"],
)
def test_npm_2_1_2_2_spellings_of_a_scope_are_one(scope: bytes, pattern: bytes) -> None:
    count = pattern.count(b"%s")
    target = BASE + pattern % ((scope,) * count)
    assert decoded(target) == (BASE + pattern % ((b"@s/n",) * count)).decode()


def test_npm_3_5_4_a_doubled_slash_after_the_repository_is_one() -> None:
    assert decoded(b"/npm/team/repo//pnpm/10.0.0") == "/npm/team/repo/pnpm/10.0.0"


@pytest.mark.parametrize(
    "target",
    [
        *(
            b"a%2fb",
            b"@s%252fn",
            b"@s%2f..%2f..",
            b"@s%2f..",
            b"@s%2f%2e%2e",
            b"@s%2f/n",
            b"@s//n",
            b"@s%2f%2fn",
            b"@%2fn",
        ),
        *(b"@s%2fn%2f1.0.0", b"@s%5cn", b"a//b", b"%2fetc", b"@s%00%2fn", b"@s%2f%00", b"@s%2fn/-%2fx", b"..%2fx"),
        b"@s%63%2fn",
    ],
)
def test_A1_A2_no_other_encoded_separator_is_taken(target: bytes) -> None:
    with pytest.raises(NameInvalid):
        decoded(BASE + target)


@given(st.binary(max_size=60))
def test_A1_plain_targets_stay_plain(raw: bytes) -> None:
    once = handler.plain_target(BASE + raw)
    try:
        decode_target(once)
    except NameInvalid:
        return
    assert handler.plain_target(once) == once
