"""The points where policy is asked. Rules come from the RULES setting; one that fails refuses (fail closed)."""

from __future__ import annotations

import importlib
from abc import ABC
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from repoman.core.actor import Actor


@dataclass(frozen=True, slots=True)
class TagMove:
    """A tag that points to `old_version` is about to point to `new_version` (empty: removed)."""

    actor: Actor
    repository_key: str
    options: Any
    package: str
    tag: str
    old_version: str
    new_version: str


class Rule(ABC):  # noqa: B024  a rule overrides only what it judges
    """One policy. Each method raises a RepomanError (Forbidden, Conflict) to refuse, with a message for people."""

    def judge_tag_move(self, move: TagMove) -> None:
        return None


@lru_cache(maxsize=1)
def rules() -> tuple[Rule, ...]:
    from django.conf import settings

    return tuple(importlib.import_module(name).rule for name in settings.RULES)


def judge_tag_move(move: TagMove) -> None:
    for rule in rules():
        rule.judge_tag_move(move)
