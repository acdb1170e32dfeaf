"""Search: `GET /-/v1/search` (contract, section 9). Names first, then what latest versions say of themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from repoman.core.clock import now
from repoman.core.errors import BadRequest, NotFound
from repoman.core.format import Repo
from repoman.core.records import Listing
from repoman.core.refs import ListingRef
from repoman.core.wire import Request, Response

from . import listing, names
from .views import answer, package_names

SIZE = 20
SIZE_MOST = 250
NAMES_MOST = 1_000
FROM_MOST = NAMES_MOST
TEXT_CHARACTERS = 512


@dataclass(frozen=True, slots=True)
class Wanted:
    """`words` must be in the name, description or keywords; the rest as the qualifiers of 9.5 say."""

    words: tuple[str, ...]
    scope: str = ""
    keywords: tuple[str, ...] = ()
    author: str = ""
    maintainer: str = ""

    @property
    def looks_inside(self) -> bool:
        """Whether the names alone do not decide."""
        return len(self.words) + bool(self.scope) > 1 or bool(self.keywords or self.author or self.maintainer)


def search(repo: Repo, request: Request) -> Response:
    text = request.query.get("text") or ""
    if len(text) > TEXT_CHARACTERS:
        raise BadRequest(f"'text' may have {TEXT_CHARACTERS} characters")
    wanted = wanted_of(text)
    size, start = request.query.count("size", SIZE, SIZE_MOST), request.query.count("from", 0, FROM_MOST)
    part = f"@{wanted.scope}/" if wanted.scope else max(wanted.words, key=len, default="")
    found = [name for name in package_names(repo, part, NAMES_MOST) if _fits_name(wanted, name)]
    looks_inside = wanted.looks_inside
    if not found and wanted.words:  # in no name: perhaps in descriptions or keywords
        found, looks_inside = package_names(repo, "", SIZE_MOST), True
    found.sort(key=lambda name: _rank(wanted, name))
    objects = []
    total = len(found)
    if looks_inside:
        found = found[:SIZE_MOST]  # each is opened to be judged
        hits = [hit for hit in (_hit(repo, name) for name in found) if hit is not None and _fits(wanted, hit)]
        total, objects = len(hits), hits[start : start + size]
    else:
        objects = [hit for hit in (_hit(repo, name) for name in found[start : start + size]) if hit is not None]
    shown = [_object(hit, 1 - position / (len(objects) + 1)) for position, hit in enumerate(objects)]
    return answer({"objects": shown, "total": total, "time": now().strftime("%a %b %d %Y %H:%M:%S GMT+0000 (UTC)")})


def wanted_of(text: str) -> Wanted:
    words: list[str] = []
    qualifiers: dict[str, str] = {}
    for word in text.split():
        key, colon, value = word.partition(":")
        if colon and value and key in ("scope", "keywords", "author", "maintainer", "is", "not"):
            qualifiers[key] = value.lower()
        else:
            words.append(word.lower())
    return Wanted(
        words=tuple(words),
        scope=qualifiers.get("scope", "").removeprefix("@"),
        keywords=tuple(part for part in qualifiers.get("keywords", "").split(",") if part),
        author=qualifiers.get("author", ""),
        maintainer=qualifiers.get("maintainer", ""),
    )


def _fits_name(wanted: Wanted, name: str) -> bool:
    return not wanted.scope or name.startswith(f"@{wanted.scope}/")


def _rank(wanted: Wanted, name: str) -> tuple[int, str]:
    """Exact names first, then those that begin alike."""
    word = wanted.words[0] if wanted.words else ""
    base = names.split(name)[1]
    if word in (name.lower(), base.lower()):
        return (0, name)
    return (1 if base.lower().startswith(word) else 2, name)


def _hit(repo: Repo, name: str) -> dict[str, Any] | None:
    """What is told of one package: from its latest version. None if it went meanwhile."""
    try:
        found = repo.listing(ListingRef("versions", name))
    except NotFound:
        return None
    return _described(name, found) if found.entries else None


def _described(name: str, found: Listing) -> dict[str, Any]:
    latest = listing.effective_tags(found.tags, [entry.name for entry in found.entries])[names.LATEST]
    entry = next(entry for entry in found.entries if entry.name == latest)
    manifest = entry.metadata
    people = [_person(person) for person in _items(manifest.get("maintainers"))]
    keywords = [word for word in _items(manifest.get("keywords")) if isinstance(word, str)]
    described: dict[str, Any] = {
        "name": name,
        "scope": names.split(name)[0] or "unscoped",
        "version": latest,
        "description": manifest["description"] if isinstance(manifest.get("description"), str) else "",
        "keywords": keywords,
        "links": _links(manifest),
        # npm reads names out of these without looking whether they are there (9.3).
        "publisher": _person(manifest.get("_npmUser")),
        "maintainers": people or [_person(manifest.get("_npmUser"))],
    }
    if entry.modified is not None:
        described["date"] = listing.moment(entry.modified)
    author = manifest.get("author")
    if isinstance(author, Mapping) and isinstance(author.get("name"), str):
        described["author"] = {"name": author["name"]}
    elif isinstance(author, str):
        described["author"] = {"name": author}
    return described


def _items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _person(value: Any) -> dict[str, str]:
    if isinstance(value, Mapping):
        return {"username": str(value.get("name") or ""), "email": str(value.get("email") or "")}
    return {"username": value if isinstance(value, str) else "", "email": ""}


def _links(manifest: Mapping[str, Any]) -> dict[str, str]:
    found = {}
    repository, bugs = manifest.get("repository"), manifest.get("bugs")
    for key, value in (
        ("homepage", manifest.get("homepage")),
        ("repository", repository.get("url") if isinstance(repository, Mapping) else repository),
        ("bugs", bugs.get("url") if isinstance(bugs, Mapping) else bugs),
    ):
        if isinstance(value, str):
            found[key] = value
    return found


def _fits(wanted: Wanted, hit: Mapping[str, Any]) -> bool:
    keywords = {word.lower() for word in hit["keywords"]}
    text = f"{hit['name']}\n{hit['description']}\n{' '.join(sorted(keywords))}".lower()
    return (
        _fits_name(wanted, hit["name"])
        and all(word in text for word in wanted.words)
        and (not wanted.keywords or bool(keywords & set(wanted.keywords)))
        and (not wanted.author or wanted.author in hit.get("author", {}).get("name", "").lower())
        and (not wanted.maintainer or wanted.maintainer in {person["username"] for person in hit["maintainers"]})
    )


def _object(hit: dict[str, Any], score: float) -> dict[str, Any]:
    detail = {"quality": score, "popularity": score, "maintenance": score}
    return {"package": hit, "score": {"final": score, "detail": detail}, "searchScore": score, "flags": {}}
