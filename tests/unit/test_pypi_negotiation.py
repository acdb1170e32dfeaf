"""Which form each client gets, from the Accept headers that they send."""

from __future__ import annotations

import pytest

from formats.pypi.listing import SIMPLE_HTML, SIMPLE_JSON, TEXT_HTML
from formats.pypi.negotiation import choose, content_type
from repoman.core.wire import Query

NONE = Query(b"")


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (f"{SIMPLE_JSON}, {SIMPLE_HTML}; q=0.1, text/html; q=0.01", SIMPLE_JSON),  # pip, PDM
        (f"{SIMPLE_JSON}, {SIMPLE_HTML};q=0.2, text/html;q=0.01", SIMPLE_JSON),  # uv
        (f"{SIMPLE_JSON}, */*;q=0.1", SIMPLE_JSON),  # Poetry
        ("*/*", TEXT_HTML),  # Hatch, curl
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", TEXT_HTML),  # browsers
        ("", TEXT_HTML),
        ("text/*", TEXT_HTML),
        ("application/*", SIMPLE_JSON),
        (SIMPLE_HTML, SIMPLE_HTML),
        (f"{SIMPLE_JSON};q=0.1, {SIMPLE_HTML}", SIMPLE_HTML),
        (f"{SIMPLE_JSON};q=0, */*", TEXT_HTML),
        (f"{SIMPLE_JSON};q=nonsense, text/html;q=0.1", TEXT_HTML),
        (SIMPLE_JSON.upper(), SIMPLE_JSON),
        ("image/png", TEXT_HTML),
        ("nonsense", TEXT_HTML),
        ("text/html;q=0", TEXT_HTML),
    ],
)
def test_pypi_3_3_to_3_5_quality_values(accept: str, expected: str) -> None:
    assert choose([accept], NONE)[0] == expected


def test_pypi_3_4_no_accept_header() -> None:
    assert choose([], NONE) == (TEXT_HTML, "html")


@pytest.mark.parametrize("form", ["json", "html"])
def test_pypi_3_2_latest_is_answered_with_a_concrete_type(form: str) -> None:
    assert choose([f"application/vnd.pypi.simple.latest+{form}"], NONE) == (
        f"application/vnd.pypi.simple.v1+{form}",
        form,
    )


def test_pypi_3_6_the_query_overrides_accept() -> None:
    assert choose(["text/html"], Query(b"format=application/vnd.pypi.simple.v1%2Bjson"))[0] == SIMPLE_JSON
    assert choose([SIMPLE_JSON], Query(b"format=text/html"))[0] == TEXT_HTML
    assert choose([SIMPLE_JSON], Query(b"format=nonsense"))[0] == SIMPLE_JSON


def test_pypi_3_7_3_9_the_types_are_exact() -> None:
    assert content_type(SIMPLE_JSON) == SIMPLE_JSON
    assert content_type(TEXT_HTML) == "text/html; charset=utf-8"


def test_pypi_3_1_several_headers_are_one_list() -> None:
    assert choose(["text/html;q=0.1", SIMPLE_JSON], NONE)[0] == SIMPLE_JSON
