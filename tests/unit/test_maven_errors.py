"""What Maven's clients are told when something is refused."""

from __future__ import annotations

import json

from formats.maven import handler
from repoman.core.errors import Conflict, FileNotFound


def test_maven_r1_refusals_are_problems_with_the_sentence_as_reason() -> None:
    answer = handler.error(Conflict("it is there already"), mount="/maven/a/b", head=False)
    assert answer.status == 409 and answer.reason == "it is there already"
    assert dict(answer.headers)["Content-Type"] == "application/problem+json"
    assert json.loads(answer.content)["detail"] == "it is there already"  # type: ignore[arg-type]


def test_maven_u3_what_is_not_there_is_no_problem_since_clients_go_on() -> None:
    """Maven 3.9.16 gives up a deploy after a 404 that is `application/problem+json`."""
    answer = handler.error(FileNotFound("no such file"), mount="/maven/a/b", head=False)
    assert answer.status == 404 and answer.reason == "no such file"
    assert dict(answer.headers)["Content-Type"] == "text/plain; charset=utf-8"
    assert answer.content == b"no such file\n"
