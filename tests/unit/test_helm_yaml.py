"""YAML as Helm reads it (helm.md I6, 13.3; THREATS B7, B9). What is expected was printed by Go's own library."""

from __future__ import annotations

import math
import time

import pytest

from formats.helm.chartyaml import Reader, load, resolve, text_of
from repoman.core.errors import ContentInvalid
from tests.tools.effort import allowed

SCALARS = {
    "1.10": "1.1", "1": "1", "1e3": "1000", "0123": "83", "08": "8", "0o7": "7", "0x1F": "31", "1_000": "1000",
    "yes": "true",
    "y": "true", "Off": "false", "null": "", "~": "", "": "", "2024-01-02": "2024-01-02",
    "2024-1-2 3:4:5": "2024-1-2 3:4:5",
    "123456789012345678901234567890": "1.2345679e+29", "18446744073709551615": "18446744073709551615", "-1": "-1",
    "+1": "1",
    ".5": "0.5", ".inf": "+Inf", "-.INF": "-Inf", ".nan": "NaN", "20240101.5": "2.0240102e+07", "1:30:00": "1:30:00",
    "16777217.0": "1.6777216e+07", "0.00001": "1e-05", "1e20": "1e+20", "0b101": "5", "1.": "1", "1.2.3": "1.2.3",
    "3.4e39": "+Inf",
    "1e400": "1e400", "0xZ": "0xZ", "-": "-", ".": ".", "1_": "1", "-0x1": "-1", "0": "0", "-0.0": "-0",
    "100000.5": "100000.5",
    "1e6": "1e+06", "2001-99-99": "2001-99-99", "Yes": "true", "YEs": "YEs", "é": "é",
}  # fmt: skip


@pytest.mark.parametrize("plain", SCALARS)
def test_helm_i6_plain_scalars_where_text_is_wanted(plain: str) -> None:
    assert text_of(resolve(plain)) == SCALARS[plain]


def test_helm_i6_quoted_scalars_stay_what_they_are() -> None:
    found = load(b"a: '1.10'\nb: \"yes\"\nc: |\n  1\nd: >-\n  null\ne: 1.10\nf: yes\ng: ~\n")
    assert found == {"a": "1.10", "b": "yes", "c": "1\n", "d": "null", "e": 1.1, "f": True, "g": None}
    assert isinstance(resolve(".nan"), float) and math.isnan(float(resolve(".nan") or 0))


def test_the_first_document_counts_and_json_is_yaml() -> None:
    assert load(b"a: 1\n---\nb: 2\n") == {"a": 1}
    assert load(b'\xef\xbb\xbf{"a": ["x", {"b": null}]}') == {"a": ["x", {"b": None}]}
    assert load(b"a: &x {b: 1}\nc: [*x, *x]\n") == {"a": {"b": 1}, "c": [{"b": 1}, {"b": 1}]}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"a: !!python/object/apply:os.system [x]", "tag"),
        (b"a: !!str 1", "tag"),
        (b"!!map {a: 1}", "tag"),
        (b"? !x a\n: b", "tag"),
        (b"1: a", "no text"),
        (b"yes: a", "no text"),
        (b"? [a]\n: b", "plain text"),
        (b"? {a: b}\n: b", "plain text"),
        (b"a: 1\na: 2", "twice"),
        (b"x: &x {a: 1}\n<<: *x", "<<"),
        (b"a: *nothing", "alias"),
        (b"a: &a [*a]", "alias"),
        (b"a: {b", "read"),
        (b"a: 'b", "read"),
        (b"a:\n\t- b", "read"),
        (b"\xff\xfe", "UTF-8"),
        (b"", "empty"),
        (b"a: [" + b"[" * 80 + b"]" * 81, "deeper"),
        (b"a: " + b"{a: " * 70 + b"1" + b"}" * 70, "deeper"),
        (b"a: [" + b"1," * 200_000 + b"1]", "more than"),
    ],
)  # fmt: skip
def test_b7_b9_what_is_refused(text: bytes, words: str) -> None:
    with pytest.raises(ContentInvalid, match=words) as refused:
        load(text)
    assert "os.system" not in refused.value.message or "tag" in refused.value.message


def test_b9_an_alias_bomb_costs_nothing() -> None:
    lines = [b"a0: &a0 [x,x,x,x,x,x,x,x,x,x]"]
    lines += [b"a%d: &a%d [%s]" % (n, n, b",".join([b"*a%d" % (n - 1)] * 10)) for n in range(1, 20)]
    begun = time.process_time()
    with pytest.raises(ContentInvalid, match="more than"):
        load(b"\n".join(lines))
    assert time.process_time() - begun < allowed(2)


def test_helm_v4_an_upstreams_index_is_read_leniently() -> None:
    reader = Reader(b"a: 1\na: 2\nyes: 3\n1.50: 4\n<<: {b: 5}\nc: !!binary eA==\nd: !x [1]\n", is_strict=False)
    assert reader.value() == {"a": 2, "true": 3, "1.5": 4, "<<": {"b": 5}, "c": "eA==", "d": [1]}
