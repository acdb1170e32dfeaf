"""The order of versions, which is the resolver's (its generic version scheme), and which versions are snapshots."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from formats.maven.handler import Maven
from formats.maven.versions import base_of, in_order, is_snapshot, version_key

# Each line in rising order, every two of it compared.
RISING = [
    ["1", "2", "3", "10", "100"],
    ["1.0", "1.9", "1.10", "1.100", "2"],
    ["1.1", "1.2", "1.123", "12.3"],
    ["1.2", "1.2.3", "1.2.4", "1.3"],
    ["1-alpha", "1-beta", "1-milestone", "1-rc", "1-SNAPSHOT", "1", "1-sp"],
    [
        "1.0-alpha-1",
        "1.0-alpha-2",
        "1.0-alpha-10",
        "1.0-beta-1",
        "1.0-rc-1",
        "1.0-rc-2",
        "1.0-SNAPSHOT",
        "1.0",
        "1.0-1",
    ],
    ["1-sp", "1-a", "1-abc", "1-foo", "1-xyz", "1-1"],  # words without a meaning are above sp, below numbers
    ["0.9-final", "1.0.0-alpha", "1.0.0", "1.0.0-sp-1", "1.0.0-jre", "1.0.1"],
    [
        "1.0a1",
        "1.0b1",
        "1.0m1",
        "1.0-rc1",
        "1.0",
        "1.0a",
        "1.0b",
        "1.0m",
    ],  # a, b, m only mean something before a number
    ["1-alpha1", "1-alpha2", "1-alpha10"],
    ["1.0-20240101.010101-1", "1.0-20240101.010101-2", "1.0-20240102.010101-1"],
    ["1.min", "1.0-alpha", "1", "1.5", "1.99999999999999999999", "1.max"],
    ["1-min", "1-alpha", "1", "1-sp", "1-foo", "1-7", "1-max"],
    ["2024.1", "2024.1.1", "2024.2", "20240101"],
    ["31.0-android", "31.0-jre", "31.0.1-android"],
    ["2.0.0.M1", "2.0.0.RC1", "2.0.0.RELEASE", "2.0.1.RELEASE"],
    ["5.0.0.Alpha1", "5.0.0.Beta1", "5.0.0.CR1", "5.0.0.Final", "5.0.0.SP1"],
    ["1.0.0+1", "1.0.0+a", "1.0.0+b"],
    ["2147483647", "2147483648", "9223372036854775808"],  # no number is too large
    ["a", "b", "1"],
    ["alpha", "beta", "0", "1"],
    ["1..1", "1.1"],  # nothing between separators is 0
    ["1.0.0.0-alpha", "1", "1.0.0.0.1"],
]

EQUAL = [
    [
        "1",
        "1.0",
        "1.0.0",
        "1.0.0.0",
        "1-0",
        "1.0-0",
        "01",
        "1-ga",
        "1-GA",
        "1-final",
        "1.0-release",
        "1.0.Final",
        "1_0",
    ],
    ["1-rc", "1-cr", "1-RC", "1.0-CR", "1.rc"],
    ["1a1", "1-a1", "1-alpha-1", "1.alpha.1", "1alpha1", "1-ALPHA_1"],
    ["1b2", "1-beta-2"],
    ["1m3", "1-milestone-3", "1.M3"],
    ["1-snapshot", "1-SNAPSHOT", "1.0-Snapshot"],
    ["1.2-3", "1.2.3", "1_2_3", "1.02.003"],
    ["0", "0.0", "", ".", "-"],
    ["1.max", "1.MAX", "1-max", "1.max."],
    ["1..0.1", "1.0.0.1"],
    ["1.x-0", "1.x", "1.x.ga"],
]


def compared(one: str, other: str) -> int:
    """By the scheme alone: -1, 0 or 1. Equal ones differ by their texts only, so a text that is larger on both sides
    of the other does not exist."""
    from formats.maven.versions import _compared_items, _items

    return (found := _compared_items(_items(one), _items(other))) and (1 if found > 0 else -1)


@pytest.mark.parametrize("line", RISING, ids=lambda line: line[0])
def test_maven_v2_rising(line: list[str]) -> None:
    for one, other in itertools.combinations(line, 2):
        assert (compared(one, other), compared(other, one)) == (-1, 1), (one, other)
        assert version_key(one) < version_key(other)


@pytest.mark.parametrize("line", EQUAL, ids=lambda line: line[0])
def test_maven_v3_equal_by_the_scheme_and_told_apart_by_their_text(line: list[str]) -> None:
    for one, other in itertools.permutations(line, 2):
        assert compared(one, other) == 0, (one, other)
        assert version_key(one) != version_key(other)
    assert in_order(line) == sorted(line)


def test_maven_e5_lexical_order_is_not_it() -> None:
    assert in_order(["1.10", "1.9", "1.2"]) == ["1.2", "1.9", "1.10"]


def test_maven_e6_v3_equal_versions_are_all_kept() -> None:
    assert in_order(["1.0.0", "1", "1.0", "1-ga"]) == ["1", "1-ga", "1.0", "1.0.0"]


PARTS = [
    "0",
    "1",
    "2",
    "10",
    "00",
    "a",
    "b",
    "m",
    "alpha",
    "rc",
    "cr",
    "ga",
    "final",
    "sp",
    "SNAPSHOT",
    "foo",
    "min",
    "max",
]
VERSIONS = st.lists(
    st.tuples(st.sampled_from(PARTS), st.sampled_from([".", "-", "_", "", "..", "-."])), min_size=1, max_size=5
).map(lambda parts: "".join(part + separator for part, separator in parts))


@settings(max_examples=1500, deadline=None)
@given(VERSIONS, VERSIONS, VERSIONS)
def test_maven_v2_the_order_is_total(one: str, other: str, third: str) -> None:
    key = version_key
    assert (key(one) == key(other)) == (one == other)
    assert (key(one) < key(other)) + (key(other) < key(one)) + (one == other) == 1
    if key(one) < key(other) < key(third):
        assert key(one) < key(third)


@settings(max_examples=200, deadline=None)
@given(st.lists(VERSIONS, unique=True, max_size=12), st.randoms())
def test_maven_g4_the_order_does_not_depend_on_where_it_began(versions: list[str], chance: random.Random) -> None:
    mixed = versions[:]
    chance.shuffle(mixed)
    assert in_order(mixed) == in_order(versions)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=40))
def test_maven_v2_any_text_has_its_place(text: str) -> None:
    assert not Maven().version_key(text) < Maven().version_key(text)
    assert compared(text, text) == 0


def test_maven_v2_long_versions_are_compared_in_bounded_work() -> None:
    long = "1." * 5_000
    assert compared(long, long + "9") == 0  # what nobody can deploy is not read to its end
    assert compared("9" * 5_000, "1") == 1


@pytest.mark.parametrize(
    ("version", "base"),
    [
        ("1.0-SNAPSHOT", "1.0-SNAPSHOT"),
        ("1.0-20240102.030405-7", "1.0-SNAPSHOT"),
        ("1.0-beta-2-20240102.030405-123456789", "1.0-beta-2-SNAPSHOT"),
        ("SNAPSHOT", "SNAPSHOT"),
        ("20240102.030405-7", "SNAPSHOT"),
        ("1.0SNAPSHOT", "1.0SNAPSHOT"),
        ("1.0-snapshot", "1.0-snapshot"),
    ],
)
def test_maven_v1_p2_snapshots(version: str, base: str) -> None:
    assert is_snapshot(version) and base_of(version) == base


@pytest.mark.parametrize(
    "version",
    [
        "1.0",
        "1.0-SNAPSHOT-1",
        "1.0-20240102.030405",
        "1.0-20240102-030405-7",
        "1.0-2024010.030405-7",
        "1.0-20240102.030405-7-sources",
        "1.0-20240102.030405-1234567890",
        "1.0.20240102.030405-7",
        "",
    ],
)
def test_maven_v1_what_is_no_snapshot(version: str) -> None:
    assert not is_snapshot(version) and base_of(version) == version
