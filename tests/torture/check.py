"""After the restart: whether every promise was kept. Reads as a client would, then lets fsck look from inside."""

from __future__ import annotations

import hashlib
import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

from tests.oci import MANIFEST
from tests.running import Server

from .kinds import KINDS, Judge, dist_tags_path, sha256
from .mirrors import Item, Mirrors
from .model import Known, Ledger, Manifest, Release, Slot, digest_of
from .packages import kind_of

THREADS = 4
TRIES = 5


class Checker:
    def __init__(self, server: Server, ledger: Ledger) -> None:
        self.server = server
        self.ledger = ledger
        self.http = server.admin
        self._seen_blobs: set[tuple[str, str]] = set()

    def check(self, everything: list[Known]) -> None:
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(self._manifest, [one for known in everything for one in known.manifests.values()]))
            list(pool.map(self._tag, [(key, slot) for known in everything for key, slot in known.tags.items()]))
            list(pool.map(self._file, [(key, slot) for known in everything for key, slot in known.files.items()]))
            packages: dict[tuple[str, str, str], list[Release]] = {}
            for release in (one for known in everything for one in known.releases):
                packages.setdefault(release.where, []).append(release)
            list(pool.map(self._package, packages.items()))
        self._dist_tags(everything)
        self._tag_lists(everything)

    def _get(self, path: str, **headers: str) -> httpx.Response:
        answer = self.http.get(path, headers=headers)
        if answer.status_code not in (200, 404):
            self.ledger.fail(f"after the restart {path} answers {answer.status_code} {answer.text[:200]}")
        return answer

    def _settle(self, what: str, slot: Slot[Any], found: object) -> None:
        """What was found is from now on the only possible state."""
        if found not in slot.possible:
            self.ledger.fail(f"{what} is {found}; possible were {slot.possible}")
        slot.acknowledged(found)

    def _manifest(self, one: Manifest) -> None:
        where = f"/v2/{one.repository}/{one.package}"
        answer = self._get(f"{where}/manifests/{one.digest}", Accept=MANIFEST)
        if answer.status_code == 200 and answer.content != one.document:
            self.ledger.fail(f"{where}/manifests/{one.digest} has other bytes")
        self._settle(f"{where}@{one.digest}", one.slot, True if answer.status_code == 200 else None)
        self.ledger.count("manifests checked")
        if answer.status_code == 200:
            for digest in one.parts:
                self._blob(where, digest)

    def _blob(self, where: str, digest: str) -> None:
        if (where, digest) in self._seen_blobs:
            return
        self._seen_blobs.add((where, digest))
        answer = self._get(f"{where}/blobs/{digest}")
        if answer.status_code != 200:
            self.ledger.fail(f"{where}/blobs/{digest} of a visible manifest answers {answer.status_code}")
        elif digest_of(answer.content) != digest:
            self.ledger.fail(f"{where}/blobs/{digest} has other bytes")
        self.ledger.count("blobs checked")

    def _tag(self, item: tuple[tuple[str, str, str], Slot[str]]) -> None:
        (repository, package, tag), slot = item
        answer = self._get(f"/v2/{repository}/{package}/manifests/{tag}", Accept=MANIFEST)
        found = digest_of(answer.content) if answer.status_code == 200 else None
        self._settle(f"{repository}/{package}:{tag}", slot, found)
        self.ledger.count("tags checked")

    def _file(self, item: tuple[tuple[str, str], Slot[str]]) -> None:
        (repository, path), slot = item
        with self.http.stream("GET", f"/generic/{repository}/{path}") as answer:
            if answer.status_code not in (200, 404):
                self.ledger.fail(f"after the restart {path} answers {answer.status_code}")
            hasher = hashlib.sha256()
            for piece in answer.iter_bytes():
                hasher.update(piece)
        found = f"sha256:{hasher.hexdigest()}" if answer.status_code == 200 else None
        self._settle(f"{repository}/{path}", slot, found)
        self.ledger.count("files checked")

    def _tag_lists(self, everything: list[Known]) -> None:
        """The list of tags names those that are there and no other."""
        for known in everything:
            packages: dict[tuple[str, str], set[str]] = {}
            for (repository, package, tag), slot in known.tags.items():
                packages.setdefault((repository, package), set())
                if slot.known:
                    packages[(repository, package)].add(tag)
            for (repository, package), expected in packages.items():
                answer = self._get(f"/v2/{repository}/{package}/tags/list")
                listed = set(answer.json()["tags"] or []) if answer.status_code == 200 else set()
                if listed != expected:
                    self.ledger.fail(f"{repository}/{package} lists {sorted(listed)} instead of {sorted(expected)}")

    # packages

    def _package(self, item: tuple[tuple[str, str, str], list[Release]]) -> None:
        """What the package's document names can be fetched with the digest that it says; and it names all, and only, what
        its publishers know."""
        (format, repository, package), releases = item
        kind = KINDS[format]
        listed = kind.listed(self._get, self.ledger.fail, releases)
        expected: set[tuple[str, str]] = set()
        for release in releases:
            notes = set()
            for name, slot in release.files.items():
                key = (release.version, name)
                found = self._installed(release, name, listed[key][0] if key in listed else None)
                self._settle(kind.file_path(release, name), slot, found)
                self.ledger.count(f"{format} files checked")
                if found is not None:
                    expected.add(key)
                    notes.add(listed[key][1] if key in listed else None)
            if len(notes) > 1:
                self.ledger.fail(f"{release} has several notes: {notes}")
            elif notes and kind.has_notes:
                self._settle(f"the note of {release.where} {release.version}", release.note, notes.pop())
        if listed.keys() != expected:
            self.ledger.fail(f"{repository}/{package} lists {sorted(listed.keys() ^ expected)} wrongly")

    def _installed(self, release: Release, name: str, says: Judge | None) -> str | None:
        path = kind_of(release).file_path(release, name)
        answer = self._get(path)
        if (answer.status_code == 200) != (says is not None):
            self.ledger.fail(f"{path} answers {answer.status_code}, listed: {says is not None}")
        if answer.status_code != 200:
            return None
        if says is not None and not says(answer.content):
            self.ledger.fail(f"{path} has not the digest that is listed")
        return sha256(answer.content)

    def _dist_tags(self, everything: list[Known]) -> None:
        for (repository, package, tag), slot in [item for known in everything for item in known.dist_tags.items()]:
            answer = self._get(dist_tags_path(repository, package))
            found = answer.json().get(tag) if answer.status_code == 200 else None
            self._settle(f"{repository}/{package}@{tag}", slot, found)
            self.ledger.count("dist-tags checked")

    # mirrors

    def mirrors(self, mirrors: Mirrors) -> None:
        """With an upstream that is well, everything can be had; and then also without it."""
        with ThreadPoolExecutor(THREADS) as pool:
            mirrors.is_well()
            list(pool.map(self._mirrored, mirrors.items))
            mirrors.is_down()
            list(pool.map(self._mirrored, mirrors.items))
            mirrors.is_well()

    def _mirrored(self, item: Item) -> None:
        """Tried again where the server remembers a failure for a moment."""
        for attempt in range(TRIES):
            answer = self.http.get(item.path, headers={"Accept": item.accept} if item.accept else {})
            if answer.status_code == 200:
                break
            time.sleep(0.5 * (attempt + 1))
        else:
            self.ledger.fail(f"{item.path} answers {answer.status_code} {answer.text[:200]}")
            return
        self.ledger.count("mirrored items checked")
        if fault := item.fault_in(answer):
            self.ledger.fail(f"after the restart {item.path} is a success with {fault}")

    def fsck(self) -> dict[str, object]:
        done = self.server.manage("fsck", "--rehash", "--json")
        try:
            report: dict[str, object] = json.loads(done.stdout)
        except ValueError:
            self.ledger.fail(f"fsck ended with {done.returncode}: {done.stdout[-500:]} {done.stderr[-1500:]}")
            return {}
        if not report["clean"] or done.returncode != 0:
            self.ledger.fail(f"fsck: {json.dumps(report['items'])[:3000]}")
        return report

    def quota(self, namespace: str) -> None:
        found = self.http.get(f"/api/v1/namespaces/{namespace}").json()
        if found["used_bytes"] > found["quota_bytes"]:
            self.ledger.fail(f"{namespace} uses {found['used_bytes']} of {found['quota_bytes']} bytes")
