"""Tags that match one of the repository's `immutable_tags` patterns never move and are never removed."""

from __future__ import annotations

from fnmatch import fnmatchcase

from repoman.core.errors import Forbidden
from repoman.policy.gates import Rule, TagMove


class Immutability(Rule):
    def judge_tag_move(self, move: TagMove) -> None:
        patterns = getattr(move.options, "immutable_tags", ())
        if any(fnmatchcase(move.tag, pattern) for pattern in patterns):
            what = "moved" if move.new_version else "removed"
            raise Forbidden(
                f"tag '{move.tag}' of {move.repository_key}/{move.package} is immutable and cannot be {what}; "
                "publish under a new tag",
                tag=move.tag,
            )


rule = Immutability()
