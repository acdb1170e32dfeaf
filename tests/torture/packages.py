"""Publishing, tagging, noting, removing and bringing back releases of packages that all clients share.

Every release has one client, which knows its files exactly; but all of them publish to the same few packages, so they meet
at the package's row, its document and its tags. Now and then a client sends several contents of one release at once: one
of them wins.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx

from .kinds import KINDS, Kind, Npm, Upload, dist_tags_path, packument_path, sha256
from .model import Release, Removal, Slot

if TYPE_CHECKING:
    from .storm import Client

RELEASES_MOST = 90
NPM = Npm()
Send = Callable[[], httpx.Response]


@dataclass(frozen=True)
class Candidate:
    """One content of a file, and how to publish it."""

    digest: str
    send: Send


def kind_of(release: Release) -> Kind:
    return KINDS[release.format]


def rest(release: Release, what: str) -> str:
    return f"/api/v1/repositories/{release.repository}/{what}"


class Packages:
    def __init__(self, client: Client) -> None:
        self.client = client
        self.rng = client.rng
        self.known = client.known
        self.ledger = client.ledger
        self.acts: list[tuple[Callable[[], None], int]] = [
            (self.publish_npm, 3),
            *((lambda kind=kind: self.publish(kind), 3) for kind in KINDS.values() if kind.format != "npm"),
            (self.tag, 2),
            (self.note, 2),
            (self.remove, 2),
            (self.undelete, 1),
            (self.publish_burned, 1),
            (self.read, 3),
        ]

    # publishing

    def _begin(self, kind: Kind) -> Release:
        self.known.published += 1
        version = f"{self.client.number}.0.{self.known.published}"
        repository = self.rng.choice(self.client.place.packages[kind.format])
        return Release(kind.format, repository, self.rng.choice(kind.packages), version, {})

    def _is_full(self) -> bool:
        return sum(release.is_there for release in self.known.releases) >= RELEASES_MOST

    def publish_npm(self) -> None:
        if self._is_full():
            return
        release = self._begin(NPM)
        (name,) = NPM.names(self.rng, release.package, release.version)
        slot: Slot[str] = Slot()
        release.files[name] = slot
        self.known.releases.append(release)
        tag = f"own-{self.client.number}" if self.rng.random() < 0.6 else None
        tagged = self._dist_tag(release) if tag else None
        before = set(tagged.possible) if tagged else set()
        if tagged:
            tagged.unknown(release.version)
        rivals = [NPM.upload(self.rng, release, name, tag) for _ in range(self._rivals())]
        answers = self._contest(slot, NPM, rivals)
        if tagged and None not in slot.possible:
            tagged.acknowledged(release.version)
        elif tagged and slot.possible == {None}:
            tagged.possible = before
        self._end(answers)

    def _dist_tag(self, release: Release) -> Slot[str]:
        key = (release.repository, release.package, f"own-{self.client.number}")
        return self.known.dist_tags.setdefault(key, Slot())

    def publish(self, kind: Kind) -> None:
        """The files of one release, one after the other."""
        if self._is_full():
            return
        release = self._begin(kind)
        names = kind.names(self.rng, release.package, release.version)
        for name in names:
            slot = release.files[name] = Slot()
            if len(release.files) == 1:
                self.known.releases.append(release)
            rivals = [kind.upload(self.rng, release, name) for _ in range(self._rivals())]
            self._end(self._contest(slot, kind, rivals))
        for upload in kind.afterwards(self.rng, release):
            self._end([self._send(upload, (200, 201))])

    def _send(self, upload: Upload, expected: tuple[int, ...]) -> httpx.Response:
        return self.client.send(upload.method, upload.path, expected, **upload.options)

    def _rivals(self) -> int:
        return 1 if self.rng.random() < 0.7 else 3

    def _contest(self, slot: Slot[str], kind: Kind, uploads: list[Upload]) -> list[httpx.Response]:
        """Publish them all at once under one name that is free: one wins, or nobody knows."""
        format = kind.format
        expected = (200, 201, kind.refused)
        candidates = [
            Candidate(upload.digest, lambda upload=upload: self._send(upload, expected))  # type: ignore[misc]
            for upload in uploads
        ]
        for one in candidates:
            slot.unknown(one.digest)
        with ThreadPoolExecutor(len(candidates)) as pool:
            answers = list(pool.map(lambda one: one.send(), candidates))
        won = [one.digest for one, answer in zip(candidates, answers, strict=True) if answer.is_success]
        lost = [one for one, answer in zip(candidates, answers, strict=True) if answer.status_code == kind.refused]
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
        burned = (release for release in self.known.releases if kind_of(release).burns)
        gone = [release for release in burned if all(slot.is_removed for slot in release.files.values())]
        if gone:
            release = self.rng.choice(gone)
            answer = self.try_burned(release)
            if answer.is_success:
                self.ledger.fail(f"a burned release was published again: {release}")
            self._end([answer])

    def try_burned(self, release: Release) -> httpx.Response:
        kind = kind_of(release)
        return self._send(kind.upload(self.rng, release, next(iter(release.files))), (kind.refused,))

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
        there = [release for release in self._there(*KINDS) if kind_of(release).has_notes and not release.was_removed]
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
        there = self._there(*KINDS)
        if len(there) < 4:
            return
        release = self.rng.choice(there)
        if release.format != "npm" and self.rng.random() < 0.4:
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
        kind = kind_of(release)
        answer = self.client.send("GET", kind.file_path(release, name), (200, 404))
        if answer.status_code in (200, 404):
            found = sha256(answer.content) if answer.status_code == 200 else None
            if found not in slot.possible:
                self.ledger.fail(f"{answer.request.url} gave {found}, possible are {slot.possible}")
        self._end([answer])
        path, headers = kind.document_path(release, name)
        listed = self.client.send("GET", path, (200, 404), headers=headers)
        if listed.status_code in (200, 404) and len(slot.possible) == 1:
            found = kind.digest_listed(release, name, listed) if listed.status_code == 200 else None
            if (found is None) != (slot.known is None):
                self.ledger.fail(f"{listed.request.url} lists {found} for {name}, possible is {slot.possible}")
        self._end([listed])

    def _end(self, answers: list[httpx.Response]) -> None:
        for answer in answers:
            self.client.end_if_over(answer)
