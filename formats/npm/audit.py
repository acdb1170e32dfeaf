"""Audits: which advisories concern the packages a client has (contract, section 10).

`advisories` is the one place where they come from. Nothing is known of any package yet, and that is what the answers say.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from repoman.core import strictjson
from repoman.core.errors import BadRequest, ContentInvalid, TooLarge
from repoman.core.format import Repo
from repoman.core.wire import BodyPlan, Document, DocumentBody, Head, Request, Response

from .views import answer

SENT_BYTES = 4 * 1024 * 1024
UNPACKED_BYTES = 8 * 1024 * 1024
NAMES_MOST = 50_000
SEVERITIES = ("info", "low", "moderate", "high", "critical")


@dataclass(frozen=True, slots=True)
class Advisory:
    """`id` is a stable number, `severity` one of SEVERITIES, `vulnerable` a semver range (10.2 to 10.5)."""

    id: int
    url: str
    title: str
    severity: str
    vulnerable: str
    weaknesses: tuple[str, ...] = ()
    score: float = 0.0
    vector: str = ""


def advisories(repo: Repo, packages: Mapping[str, Sequence[str]]) -> Mapping[str, Sequence[Advisory]]:
    """What is known of these packages (name → versions): only names that are affected.

    The seam for a source of advisories. Names must not leave this server on the way (10.10).
    """
    return {}


def admit(repo: Repo, head: Head) -> BodyPlan:
    coding = (head.headers.get("content-encoding") or "identity").strip().lower()
    if coding not in ("identity", "", "gzip", "x-gzip"):
        raise BadRequest("an audit is sent as it is, or packed with gzip")
    return DocumentBody(SENT_BYTES)


def bulk(repo: Repo, request: Request) -> Response:
    """`{name: [versions]}` in, `{name: [advisories]}` out."""
    given = _body(request)
    packages: dict[str, list[str]] = {}
    for name, versions in given.items():
        if not isinstance(versions, list) or not all(isinstance(version, str) for version in versions):
            raise ContentInvalid("the body maps names to lists of versions")
        packages[name] = versions
    if len(packages) > NAMES_MOST:
        raise TooLarge(f"an audit may have {NAMES_MOST} names")
    found = advisories(repo, packages)
    return answer({name: [_short(advisory) for advisory in found[name]] for name in sorted(found)})


def tree(repo: Repo, request: Request) -> Response:
    """The older form, with a tree of dependencies in the body (10.12). Yarn 1 and pnpm 10 read `metadata`."""
    given = _body(request)
    packages: dict[str, list[str]] = {}
    total = 0
    for name, dependency in _dependencies(given):
        total += 1
        version = dependency.get("version")
        if isinstance(version, str):
            packages.setdefault(name, []).append(version)
    counts = dict.fromkeys(SEVERITIES, 0)
    found: dict[str, dict[str, object]] = {}
    for name, known in advisories(repo, packages).items():
        for advisory in known:
            counts[advisory.severity] += 1
            found[str(advisory.id)] = {
                **_short(advisory),
                "module_name": name,
                "patched_versions": "",
                "findings": [{"version": version, "paths": [name]} for version in packages.get(name, [])],
            }
    return answer(
        {
            "actions": [],
            "advisories": found,
            "muted": [],
            "metadata": {
                "vulnerabilities": counts,
                "dependencies": total,
                "devDependencies": 0,
                "optionalDependencies": 0,
                "totalDependencies": total,
            },
        }
    )


def _dependencies(given: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every dependency in the tree, however deep."""
    pending = [given.get("dependencies")]
    while pending:
        level = pending.pop()
        for name, dependency in level.items() if isinstance(level, dict) else ():
            if isinstance(dependency, dict):
                yield name, dependency
                pending.append(dependency.get("dependencies"))


def _short(advisory: Advisory) -> dict[str, object]:
    return {
        "id": advisory.id,
        "url": advisory.url,
        "title": advisory.title,
        "severity": advisory.severity,
        "vulnerable_versions": advisory.vulnerable,
        "cwe": list(advisory.weaknesses),
        "cvss": {"score": advisory.score, "vectorString": advisory.vector or None},
    }


def _body(request: Request) -> Mapping[str, Any]:
    """1.7: npm, Bun and Yarn 1 pack the body. Raises ContentInvalid, TooLarge."""
    assert isinstance(request.body, Document)
    data = request.body.data
    if (request.headers.get("content-encoding") or "").strip().lower() in ("gzip", "x-gzip"):
        data = _unpacked(data)
    found = strictjson.load(data)
    if not isinstance(found, dict):
        raise ContentInvalid("the body is not a JSON object")
    return found


def _unpacked(data: bytes) -> bytes:
    inflate = zlib.decompressobj(31)
    try:
        found = inflate.decompress(data, UNPACKED_BYTES + 1)
    except zlib.error:
        raise ContentInvalid("the body is not valid gzip") from None
    if len(found) > UNPACKED_BYTES:
        raise TooLarge(f"the body unpacks to more than {UNPACKED_BYTES} bytes")
    if not inflate.eof or inflate.unused_data:
        raise ContentInvalid("the body is not one whole gzip stream")
    return found
