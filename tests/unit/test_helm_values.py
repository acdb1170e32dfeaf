"""values.yaml as JSON (helm.md section 5; THREATS B3, B4): whatever was published can be looked at."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from formats.helm.values import TEXT_BYTES, read_values


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a: 1\nb: [x, {c: null}]", {"a": 1, "b": ["x", {"c": None}]}),
        ("# only\n# comments", {}), ("---\n", {}), ("null", {}), ("text", {}), ("- a", {}),
        ("80: a\n1.10: b\ny: c\n~: d", {"80": "a", "1.1": "b", "true": "c", "~": "d"}),
        ("a: 1\na: 2", {"a": 2}),
        ("a: !!str 1\nb: !custom {c: 1}", {"a": "1", "b": {"c": 1}}),
        ("x: &x {a: 1, b: 2}\nz:\n  b: 3\n  <<: *x", {"x": {"a": 1, "b": 2}, "z": {"a": 1, "b": 3}}),
        ("x: &x {a: 1}\nw: &y {a: 2, b: 2}\nz: {<<: [*x, *y]}", {"x": {"a": 1}, "w": {"a": 2, "b": 2},
        "z": {"a": 1, "b": 2}}),
        ("x: &x {a: 1}\nw: &y {<<: *x, b: 2}\nz: {<<: *y}", {"x": {"a": 1}, "w": {"a": 1, "b": 2},
        "z": {"a": 1, "b": 2}}),
        ("<<: 1", {"<<": 1}),
        ("a: b\n---\na: c", {"a": "b"}),
        # what cannot be read has no values
        ("a: [", {}), ("? [a]\n: b", {}), ("a: *b", {}), ("a: " + "[" * 65 + "]" * 65, {}), ("\tx: 1", {}),
    ],
)  # fmt: skip
def test_helm_section_5_values(text: str, found: dict[str, Any]) -> None:
    assert read_values(text.encode()) == found


def test_values_in_other_encodings_have_none() -> None:
    assert read_values(b"a: \xff") == {} == read_values("a: 1".encode("utf-16"))


@pytest.mark.parametrize(
    "text",
    [
        "a0: &a0 [x, x, x, x, x, x, x, x]\n"
        + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 8)}]\n" for n in range(1, 9)),
        "a0: &a0 {a: 1, b: 2}\n"
        + "".join(f"a{n}: &a{n} {{x: {{<<: *a{n - 1}}}, y: *a{n - 1}}}\n" for n in range(1, 30)),
        f"a: &a {'x' * 100_000}\nb: [" + "*a, " * (TEXT_BYTES // 100_000) + "*a]",
        "a0: &a0 "
        + "[" * 60
        + "]" * 60
        + "\n"
        + "".join(f"a{n}: &a{n} {'[' * 50}*a{n - 1}{']' * 50}\n" for n in range(1, 9)),
    ],
    ids=["many", "merged", "long", "deep"],
)
def test_b4_anchors_do_not_explode(text: str) -> None:
    assert read_values(text.encode()) == {}


def test_what_is_read_can_be_sent() -> None:
    text = (
        "a0: &a0 "
        + "[" * 60
        + "]" * 60
        + "\na1: &a1 "
        + "[" * 40
        + "*a0"
        + "]" * 40
        + "\nx: [.inf, .nan, 18446744073709551615]"
    )
    found = read_values(text.encode())
    assert orjson.loads(orjson.dumps({"values": found}))["values"]["x"] == [None, None, 2**64 - 1]
