"""Publishing, tagging, noting, removing and bringing back releases of npm and PyPI packages that all clients share.

Every release has one client, which knows its files exactly; but all of them publish to the same few packages, so they meet
at the package's row, its document and its tags. Now and then a client sends several contents of one release at once: one
of them wins.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx

from formats.npm import samples as npm
from formats.pypi import samples as pypi
from formats.pypi.listing import SIMPLE_JSON
from tests.protocol.pypi_client import BOUNDARY, form

from .model import Release, Removal, Slot, content

if TYPE_CHECKING:
    from .storm import Client

PACKAGES = {"npm": ("alpha", "@scope/beta"), "pypi": ("gamma", "delta-lib")}
REFUSED = {"npm": 403, "pypi": 400}
LARGEST = 60_000
RELEASES_MOST = 60
Send = Callable[[], httpx.Response]


@dataclass(frozen=True)
class Candidate:
    """One content of a file, and how to publish it."""

    digest: str
    send: Send


def packument_path(repository: str, package: str) -> str:
    return f"/npm/{repository}/{package.replace('/', '%2f')}"


def dist_tags_path(repository: str, package: str) -> str:
    return f"/npm/{repository}/-/package/{package.replace('/', '%2f')}/dist-tags"


def tarball(package: str, version: str) -> str:
    return f"{package.rpartition('/')[2]}-{version}.tgz"


def file_path(release: Release, name: str) -> str:
    if release.format == "npm":
        return f"/npm/{release.repository}/{release.package}/-/{name}"
    return f"/pypi/{release.repository}/files/{release.package}/{name}"


def rest(release: Release, what: str) -> str:
    return f"/api/v1/repositories/{release.repository}/{what}"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Packages:
    def __init__(self, client: Client) -> None:
        self.client = client
        self.rng = client.rng
        self.known = client.known
        self.ledger = client.ledger
        self.acts: list[tuple[Callable[[], None], int]] = [
            (self.publish_npm, 3),
            (self.publish_pypi, 3),
            (self.tag, 2),
            (self.note, 2),
            (self.remove, 2),
            (self.undelete, 1),
            (self.publish_burned, 1),
            (self.read, 3),
        ]

    # publishing

    def _begin(self, format: str, repositories: list[str]) -> Release:
        self.known.published += 1
        version = f"{self.client.number}.0.{self.known.published}"
        return Release(format, self.rng.choice(repositories), self.rng.choice(PACKAGES[format]), version, {})

    def _is_full(self) -> bool:
        return sum(release.is_there for release in self.known.releases) >= RELEASES_MOST

    def publish_npm(self) -> None:
        if self._is_full():
            return
        release = self._begin("npm", self.client.place.npm)
        slot: Slot[str] = Slot()
        release.files[tarball(release.package, release.version)] = slot
        self.known.releases.append(release)
        tag = f"own-{self.client.number}" if self.rng.random() < 0.6 else None
        tagged = self._dist_tag(release) if tag else None
        before = set(tagged.possible) if tagged else set()
        if tagged:
            tagged.unknown(release.version)
        answers = self._contest(slot, [self._npm_candidate(release, tag) for _ in range(self._rivals())], "npm")
        if tagged and None not in slot.possible:
            tagged.acknowledged(release.version)
        elif tagged and slot.possible == {None}:
            tagged.possible = before
        self._end(answers)

    def _npm_candidate(self, release: Release, tag: str | None) -> Candidate:
        name, version = release.package, release.version
        data = npm.tarball(npm.manifest(name, version), {"index.js": content(self.rng, LARGEST)})
        document = npm.document(name, version, data, tag=tag)
        path = packument_path(release.repository, name)
        expected = (200, 201, REFUSED["npm"])
        return Candidate(sha256(data), lambda: self.client.send("PUT", path, expected, json=document))

    def _dist_tag(self, release: Release) -> Slot[str]:
        key = (release.repository, release.package, f"own-{self.client.number}")
        return self.known.dist_tags.setdefault(key, Slot())

    def publish_pypi(self) -> None:
        """An sdist, and often a wheel after it: two publications of one version."""
        if self._is_full():
            return
        release = self._begin("pypi", self.client.place.pypi)
        kinds = (pypi.sdist, pypi.wheel) if self.rng.random() < 0.6 else (pypi.sdist,)
        for kind in kinds:
            filename = kind(release.package, release.version).filename
            slot = release.files[filename] = Slot()
            if len(release.files) == 1:
                self.known.releases.append(release)
            candidates = [self._pypi_candidate(release, kind) for _ in range(self._rivals())]
            self._end(self._contest(slot, candidates, "pypi"))

    def _pypi_candidate(self, release: Release, kind: Callable[..., pypi.Sample]) -> Candidate:
        more = {f"{pypi.stem(release.package, release.version)}/data.bin": content(self.rng, LARGEST)}
        sample = kind(release.package, release.version, text=self.rng.randbytes(8).hex(), files=more)
        body = form(sample)
        headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
        path = f"/pypi/{release.repository}/"
        expected = (200, REFUSED["pypi"])
        return Candidate(sample.sha256, lambda: self.client.send("POST", path, expected, content=body, headers=headers))

    def _rivals(self) -> int:
        return 1 if self.rng.random() < 0.7 else 3

    def _contest(self, slot: Slot[str], candidates: list[Candidate], format: str) -> list[httpx.Response]:
        """Publish them all at once under one name that is free: one wins, or nobody knows."""
        for one in candidates:
            slot.unknown(one.digest)
        with ThreadPoolExecutor(len(candidates)) as pool:
            answers = list(pool.map(lambda one: one.send(), candidates))
        won = [one.digest for one, answer in zip(candidates, answers, strict=True) if answer.is_success]
        lost = [one for one, answer in zip(candidates, answers, strict=True) if answer.status_code == REFUSED[format]]
        open_ = {one.digest for one in candidates if one not in lost and one.digest not in won}
        if len(candidates) > 1:
            self.ledger.count(f"{format} contests")
        if len(won) > 1:
            self.ledger.fail(f"{len(won)} contents of one release were accepted: {answers[0].request.url}")
        if won:
            self.ledger.count(f"{format} published")
            slot.acknowledged(won[0])
        elif not open_:
            self.ledger.fail(f"a release whose name was free was refused: {answers[0].text[:300]}")
            slot.acknowledged(None)
        else:  # whoever was refused lost to one of those
            slot.possible = {*open_} if lost else {None, *open_}
        return answers

    def publish_burned(self) -> None:
        """What was removed never comes back by publishing."""
        gone = [release for release in self.known.releases if all(slot.is_removed for slot in release.files.values())]
        if gone:
            release = self.rng.choice(gone)
            answer = self.try_burned(release)
            if answer.is_success:
                self.ledger.fail(f"a burned release was published again: {release}")
            self._end([answer])

    def try_burned(self, release: Release) -> httpx.Response:
        if release.format == "npm":
            path = packument_path(release.repository, release.package)
            data = npm.tarball(npm.manifest(release.package, release.version), {"index.js": content(self.rng, 100)})
            document = npm.document(release.package, release.version, data, tag=None)
            return self.client.send("PUT", path, (REFUSED["npm"],), json=document)
        sample = pypi.sdist(release.package, release.version, text="burned")
        headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
        path = f"/pypi/{release.repository}/"
        return self.client.send("POST", path, (REFUSED["pypi"],), content=form(sample), headers=headers)

    # tags and notes

    def _there(self, *formats: str) -> list[Release]:
        return [release for release in self.known.releases if release.format in formats and release.is_there]

    def tag(self) -> None:
        there = self._there("npm")
        if not there:
            return
        release = self.rng.choice(there)
        slot = self._dist_tag(release)
        path = f"{dist_tags_path(release.repository, release.package)}/own-{self.client.number}"
        if slot.known and self.rng.random() < 0.3:
            slot.unknown(None)
            answer = self.client.send("DELETE", path, (200,))
            wanted = None
        else:
            slot.unknown(release.version)
            answer = self.client.send("PUT", path, (200, 201), json=release.version)
            wanted = release.version
        if answer.is_success:
            self.ledger.count("dist-tags set")
            slot.acknowledged(wanted)
        self._end([answer])

    def note(self) -> None:
        there = [release for release in self._there("npm", "pypi") if not release.was_removed]
        if not there:
            return
        release = self.rng.choice(there)
        text = self.rng.choice(("", "old", "broken", "see the next one"))
        release.note.unknown(text or None)
        if release.format == "npm" and self.rng.random() < 0.5:
            document = {
                "_id": release.package,
                "name": release.package,
                "versions": {release.version: {"name": release.package, "deprecated": text}},
            }
            answer = self.client.send(
                "PUT", packument_path(release.repository, release.package), (200, 201), json=document
            )
        else:
            body: dict[str, Any] = {"deprecated": text}
            if release.format == "pypi":
                body = {"yanked": bool(text), **({"yanked_reason": text} if text else {})}
            where = {"package": release.package, "version": release.version}
            answer = self.client.send("PATCH", rest(release, "versions"), (200,), params=where, json=body)
        if answer.is_success:
            self.ledger.count(f"{release.format} notes")
            release.note.acknowledged(text or None)
        self._end([answer])

    # removing and bringing back

    def remove(self) -> None:
        there = self._there("npm", "pypi")
        if len(there) < 4:
            return
        release = self.rng.choice(there)
        if release.format == "pypi" and self.rng.random() < 0.4:
            self._remove_file(release, self.rng.choice(list(release.files)))
        elif release.format == "npm" and self.rng.random() < 0.5:
            self._unpublish(release)
        else:
            where = {"package": release.package, "version": release.version}
            self._take_away(
                release, lambda: self.client.send("DELETE", rest(release, "versions"), (204,), params=where)
            )

    def _remove_file(self, release: Release, name: str) -> None:
        where = {"package": release.package, "name": name}
        self._take_away(release, lambda: self.client.send("DELETE", rest(release, "files"), (204,), params=where), name)

    def _unpublish(self, release: Release) -> None:
        """As npm does it: the document without the version. Another client's change in between is a conflict."""
        path = packument_path(release.repository, release.package)
        read = self.client.send("GET", f"{path}?write=true", (200,))
        self._end([read])
        if read.status_code != 200:
            return
        document = read.json()
        if document["versions"].pop(release.version, None) is None:
            self.ledger.fail(f"{path} does not list {release.version}")
            return
        where = f"{path}/-rev/{document['_rev']}"
        self._take_away(release, lambda: self.client.send("PUT", where, (200, 201, 409), json=document))

    def _take_away(self, release: Release, send: Send, file: str = "") -> None:
        """The whole release, or one file of it."""
        was_removed, release.was_removed = release.was_removed, True
        names = [file] if file else list(release.files)
        files = {name: release.files[name].known or "" for name in names}
        tags = [] if file else self._tags_of(release)
        for slot in (*(release.files[name] for name in names), *tags):
            slot.unknown(None)
        answer = send()
        if answer.is_success:
            self.ledger.count(f"{release.format} removed")
            for name in names:
                release.files[name].acknowledged(None)
            for tag in tags:
                tag.possible.discard(release.version)
            kind, subject = ("file", f"/{file}") if file else ("version", f" {release.version}")
            release.removals.append(Removal(f"{kind}:delete", release.package + subject, files))
        elif answer.status_code == 409:
            self.ledger.count("removals that came too late")
            release.was_removed = was_removed
            for name, digest in files.items():
                release.files[name].acknowledged(digest)
            for tag in tags:
                tag.possible.discard(None)
        self._end([answer])

    def _tags_of(self, release: Release) -> list[Slot[str]]:
        tags = self.known.dist_tags.items()
        return [
            slot for (*where, _), slot in tags if tuple(where) == release.where[1:] and release.version in slot.possible
        ]

    def undelete(self) -> None:
        removed = [release for release in self.known.releases if release.removals]
        if not removed:
            return
        release = self.rng.choice(removed)
        removal = release.removals.pop()
        revision = self._revision_of(release, removal)
        if revision is None:
            return
        slots = {name: release.files[name] for name in removal.files}
        for name, slot in slots.items():
            slot.unknown(removal.files[name])
        tag = self._dist_tag(release) if release.format == "npm" else None
        before = set(tag.possible) if tag else set()
        if tag and None in before:
            tag.unknown(release.version)
        answer = self.client.send("POST", rest(release, "undelete"), (200, 404), json={"revision": revision})
        if answer.status_code == 404:  # the trash is empty
            for slot in slots.values():
                slot.acknowledged(None)
            if tag:
                tag.possible = before
        elif answer.status_code == 200:
            back = {(one["kind"], one["name"]) for one in answer.json()["restored"]}
            for name, slot in slots.items():
                slot.acknowledged(removal.files[name] if ("file", name) in back else None)
            if tag:
                tag.possible = {release.version} if ("tag", f"own-{self.client.number}") in back else before
            self.ledger.count("releases brought back" if back else "releases not brought back")
        self._end([answer])

    def _revision_of(self, release: Release, removal: Removal) -> int | None:
        where = {"repository": release.repository, "kind": removal.kind, "limit": 1000}
        answer = self.client.send("GET", "/api/v1/audit", (200,), params=where, auth=self.client.place.admin)
        self._end([answer])
        if answer.status_code != 200:
            return None
        found = [event["revision"] for event in answer.json()["items"] if event["subject"] == removal.subject]
        if not found:
            self.ledger.fail(f"{removal} has no event")
        return found[0] if found else None

    # reading

    def read(self) -> None:
        """As an installer: the document, and the file that it names."""
        if not self.known.releases:
            return
        release = self.rng.choice(self.known.releases)
        name, slot = self.rng.choice(list(release.files.items()))
        answer = self.client.send("GET", file_path(release, name), (200, 404))
        if answer.status_code in (200, 404):
            found = sha256(answer.content) if answer.status_code == 200 else None
            if found not in slot.possible:
                self.ledger.fail(f"{answer.request.url} gave {found}, possible are {slot.possible}")
        self._end([answer])
        listed = self.client.send("GET", *listing_of(release), headers={"Accept": accept_of(release)})
        if listed.status_code in (200, 404) and len(slot.possible) == 1:
            found = digest_listed(release, name, listed) if listed.status_code == 200 else None
            if (found is None) != (slot.known is None):
                self.ledger.fail(f"{listed.request.url} lists {found} for {name}, possible is {slot.possible}")
        self._end([listed])

    def _end(self, answers: list[httpx.Response]) -> None:
        for answer in answers:
            self.client.end_if_over(answer)


def listing_of(release: Release) -> tuple[str, tuple[int, ...]]:
    if release.format == "npm":
        return packument_path(release.repository, release.package), (200, 404)
    return f"/pypi/{release.repository}/simple/{release.package}/", (200, 404)


def accept_of(release: Release) -> str:
    return "application/json" if release.format == "npm" else SIMPLE_JSON


def digest_listed(release: Release, name: str, answer: httpx.Response) -> str | None:
    """What the package's document says of the file; None where it does not name it."""
    document = json.loads(answer.content)
    if release.format == "npm":
        manifest = document["versions"].get(release.version)
        return manifest["dist"]["integrity"] if manifest else None
    return next((file["hashes"]["sha256"] for file in document["files"] if file["filename"] == name), None)
