"""The clients. Each is a thread with names of its own, but with layers that many share, so that they meet at the blobs."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx

from tests.oci import CONFIG, MANIFEST
from tests.running import NO_TLS

from .mirrors import Mirrors
from .model import Known, Ledger, Manifest, Place, Session, Slot, content, digest_of
from .packages import Packages

OCTETS = {"Content-Type": "application/octet-stream"}
# An outcome that the client cannot know: no answer, or one that says that something on the way failed.
UNKNOWN = frozenset({0, 500, 502, 503, 504})
LARGEST_LAYER = 300_000
LARGEST_FILE = 2_000_000
TAGS = ("v1", "v2", "v3", "latest")
FILES = 8


class Stopped(Exception):
    """The storm is over, or the server is gone."""


class Client(threading.Thread):
    """`known` outlives the rounds; a client is made anew for each. `is_strict`: the grace is long enough that a client
    must never see its layers collected."""

    def __init__(
        self,
        number: int,
        place: Place,
        mirrors: Mirrors,
        *,
        known: Known,
        ledger: Ledger,
        rng: random.Random,
        stop: threading.Event,
        is_strict: bool,
    ) -> None:
        super().__init__(name=f"client-{number}", daemon=True)
        self.number = number
        self.place = place
        self.http = httpx.Client(base_url=place.url, auth=place.sign_in, timeout=60, verify=NO_TLS)
        self.mirrors = mirrors
        self.repositories = place.images
        self.raws = place.raws
        self.tight = place.tight
        self.shared = place.shared
        self.known = known
        self.ledger = ledger
        self.rng = rng
        self.stop = stop
        self.is_strict = is_strict

    @property
    def acts(self) -> list[tuple[Callable[[], None], int]]:
        return [
            (self.push_image, 6),
            (self.delete_image, 2),
            (self.delete_tag, 1),
            (self.put_file, 5),
            (self.delete_file, 1),
            (self.read, 3),
            (self.leave_session, 1),
            (self.resume_session, 1),
            (self.read_mirror, 4),
            *Packages(self).acts,
        ]

    def run(self) -> None:
        acts = self.acts
        try:
            while not self.stop.is_set():
                act = self.rng.choices([act for act, _ in acts], [weight for _, weight in acts])[0]
                act()
        except Stopped:
            return
        except Exception as error:
            self.ledger.fail(f"client {self.number}: {type(error).__name__}: {error}")
        finally:
            self.http.close()

    # talking

    def send(
        self, method: str, path: str, expected: tuple[int, ...], *, is_mirrored: bool = False, **options: Any
    ) -> httpx.Response:
        """The answer; status 0 where there was none. A status that is neither expected nor an outage is a failure.

        `is_mirrored`: what an upstream has; its outages need no Retry-After.
        """
        try:
            answer = self.http.request(method, path, **options)
        except httpx.TransportError as error:
            answer = httpx.Response(
                0, text=f"{type(error).__name__}: {error}", request=httpx.Request(method, self.http.base_url)
            )
        self.ledger.count(f"{method} {answer.status_code}")
        if answer.status_code == 500:
            self.ledger.fail(f"{method} {path}: 500 {answer.text[:300]}")
        elif answer.status_code not in expected and answer.status_code not in UNKNOWN:
            self.ledger.fail(f"{method} {path}: {answer.status_code} {answer.text[:300]}")
        elif answer.status_code in (502, 503, 504):
            self.ledger.count("declared outages")
            if "retry-after" not in answer.headers and (answer.status_code == 503 or not is_mirrored):
                self.ledger.fail(f"{method} {path}: {answer.status_code} without Retry-After: {answer.text[:200]}")
        if answer.status_code == 0:
            if self.stop.is_set():
                raise_after = True
            else:
                raise_after = False
                time.sleep(0.05)  # one process was killed, or all: the next request tells
            answer.extensions["over"] = raise_after
        return answer

    # images

    def push_image(self) -> None:
        repository = self.rng.choice(self.repositories)
        package = self.rng.choice((f"own/{self.number}", f"own/{self.number}/deep"))
        layers = [
            self.rng.choice(self.shared) if self.rng.random() < 0.6 else content(self.rng, LARGEST_LAYER)
            for _ in range(self.rng.randint(1, 3))
        ]
        parts = [CONFIG, *layers]
        for data in parts:
            if not self.push_blob(repository, package, data):
                return
        document = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": _descriptor(CONFIG, "application/vnd.oci.image.config.v1+json"),
                "layers": [_descriptor(layer, "application/vnd.oci.image.layer.v1.tar") for layer in layers],
                "annotations": {"nonce": self.rng.randbytes(8).hex()},
            }
        ).encode()
        manifest = Manifest(repository, package, document, tuple(digest_of(data) for data in parts))
        tag = self.rng.choice(TAGS) if self.rng.random() < 0.8 else ""
        # Known before it is sent: afterwards this thread may not get to it.
        manifest.slot.unknown(True)
        self.known.manifests[(repository, package, manifest.digest)] = manifest
        slot = self.known.tags.setdefault((repository, package, tag), Slot()) if tag else None
        before = set(slot.possible) if slot else set()
        if slot:
            slot.unknown(manifest.digest)
        answer = self.send(
            "PUT",
            f"/v2/{repository}/{package}/manifests/{tag or manifest.digest}",
            (201, 400, 404),
            content=document,
            headers={"Content-Type": MANIFEST},
        )
        if answer.status_code == 201:
            self.ledger.count("manifests acknowledged")
            manifest.slot.acknowledged(True)
            if slot:
                slot.acknowledged(manifest.digest)
        elif answer.status_code in (400, 404):
            self.ledger.count("manifests refused")
            if self.is_strict:
                self.ledger.fail(f"a manifest was refused beside the collector: {answer.text[:300]}")
            manifest.slot.acknowledged(None)
            if slot:
                slot.possible = before
        self.end_if_over(answer)

    def push_blob(self, repository: str, package: str, data: bytes) -> bool:
        """Whether the registry says that it has the blob now."""
        digest = digest_of(data)
        base = f"/v2/{repository}/{package}/blobs"
        if self.rng.random() < 0.5:
            answer = self.send("HEAD", f"{base}/{digest}", (200, 404))
            self.end_if_over(answer)
            if answer.status_code == 200:
                return True
        how = self.rng.random()
        if how < 0.2:
            source = f"{self.rng.choice(self.repositories)}/{package}"
            answer = self.send("POST", f"{base}/uploads/", (201, 202), params={"mount": digest, "from": source})
            self.end_if_over(answer)
            if answer.status_code == 201:
                self.ledger.count("blobs mounted")
                return True
            if answer.status_code != 202:
                return False
            return self.fill_session(Session(answer.headers["Location"], data))
        if how < 0.6:
            answer = self.send(
                "POST", f"{base}/uploads/", (201, 202), params={"digest": digest}, content=data, headers=OCTETS
            )
            self.end_if_over(answer)
            return answer.status_code == 201
        answer = self.send("POST", f"{base}/uploads/", (202,))
        self.end_if_over(answer)
        return answer.status_code == 202 and self.fill_session(Session(answer.headers["Location"], data))

    def fill_session(self, session: Session, *, is_left: bool = False) -> bool:
        """Send what is missing, in pieces, and close the session; with `is_left` stop before the end."""
        data = session.data
        while session.kept < len(data):
            piece = data[session.kept : session.kept + self.rng.randint(1, max(1, len(data)))]
            if is_left and session.kept + len(piece) >= len(data):
                return False
            session.sent = max(session.sent, session.kept + len(piece))
            answer = self.send(
                "PATCH",
                session.location,
                (202,),
                content=_chunks(piece) if self.rng.random() < 0.5 else piece,
                headers=OCTETS,
            )
            self.end_if_over(answer)
            if answer.status_code != 202:
                return False
            session.kept += len(piece)
            session.location = answer.headers["Location"]
        # Killed between the end of the bytes and the row that names them, the server has neither: the upload starts anew.
        expected = (201, 404) if session.is_finished else (201,)
        session.is_finished = True
        answer = self.send("PUT", session.location, expected, params={"digest": digest_of(data)})
        self.end_if_over(answer)
        return answer.status_code == 201

    def leave_session(self) -> None:
        if len(self.known.sessions) >= 3:
            return
        package = f"{self.rng.choice(self.repositories)}/own/{self.number}"
        answer = self.send("POST", f"/v2/{package}/blobs/uploads/", (202,))
        self.end_if_over(answer)
        if answer.status_code == 202:
            session = Session(answer.headers["Location"], self.rng.randbytes(self.rng.randint(2, 50_000)))
            self.known.sessions.append(session)
            self.fill_session(session, is_left=True)

    def resume_session(self) -> None:
        """What was acknowledged must still be there, across kills; the rest is sent again."""
        if not self.known.sessions:
            return
        session = self.known.sessions[0]
        answer = self.send("GET", session.location, (204, 404))
        self.end_if_over(answer)
        if answer.status_code == 404:
            if not session.is_finished:
                self.ledger.fail(f"session {session.location} is gone; {session.kept} bytes were acknowledged")
            self.known.sessions.remove(session)
            return
        if answer.status_code != 204:
            return
        stands = _offset(answer.headers.get("Range", "0-0"), session)
        if not session.kept <= stands <= max(session.sent, session.kept):
            self.ledger.fail(f"session {session.location} stands at {stands}, acknowledged {session.kept}")
        session.kept = stands
        session.location = answer.headers.get("Location", session.location)
        if self.fill_session(session):
            self.ledger.count("sessions resumed")
            self.known.sessions.remove(session)

    def delete_image(self) -> None:
        there = [one for one in self.known.manifests.values() if one.slot.known]
        if len(there) < 4:
            return
        manifest = self.rng.choice(there)
        manifest.slot.unknown(None)
        tags = [
            slot
            for (repository, package, _), slot in self.known.tags.items()
            if (repository, package) == (manifest.repository, manifest.package) and manifest.digest in slot.possible
        ]
        for slot in tags:
            slot.unknown(None)
        answer = self.send(
            "DELETE", f"/v2/{manifest.repository}/{manifest.package}/manifests/{manifest.digest}", (202,)
        )
        if answer.status_code == 202:
            self.ledger.count("manifests deleted")
            manifest.slot.acknowledged(None)
            for slot in tags:
                slot.possible.discard(manifest.digest)
        self.end_if_over(answer)

    def delete_tag(self) -> None:
        there = [(key, slot) for key, slot in self.known.tags.items() if slot.known]
        if not there:
            return
        (repository, package, tag), slot = self.rng.choice(there)
        slot.unknown(None)
        answer = self.send("DELETE", f"/v2/{repository}/{package}/manifests/{tag}", (202,))
        if answer.status_code == 202:
            self.ledger.count("tags deleted")
            slot.acknowledged(None)
        self.end_if_over(answer)

    # files

    def put_file(self) -> None:
        repository = self.rng.choice([*self.raws, self.tight])
        path = f"own/{self.number}/{self.rng.randrange(FILES)}.bin"
        data = self.rng.choice(self.shared) if self.rng.random() < 0.3 else content(self.rng, LARGEST_FILE)
        slot = self.known.files.setdefault((repository, path), Slot())
        before = set(slot.possible)
        slot.unknown(digest_of(data))
        answer = self.send(
            "PUT",
            f"/generic/{repository}/{path}",
            (200, 201, 403) if repository == self.tight else (200, 201),
            content=_chunks(data) if self.rng.random() < 0.5 else data,
        )
        if answer.status_code in (200, 201):
            self.ledger.count("files acknowledged")
            slot.acknowledged(digest_of(data))
        elif answer.status_code == 403:
            self.ledger.count("files over quota")
            slot.possible = before
        self.end_if_over(answer)

    def delete_file(self) -> None:
        there = [(key, slot) for key, slot in self.known.files.items() if slot.known]
        if not there:
            return
        (repository, path), slot = self.rng.choice(there)
        slot.unknown(None)
        answer = self.send("DELETE", f"/generic/{repository}/{path}", (200, 202, 204))
        if answer.status_code in (200, 202, 204):
            self.ledger.count("files deleted")
            slot.acknowledged(None)
        self.end_if_over(answer)

    # reading in the storm

    def read(self) -> None:
        files = list(self.known.files.items())
        tags = list(self.known.tags.items())
        if files and self.rng.random() < 0.5:
            (repository, path), slot = self.rng.choice(files)
            answer = self.send("GET", f"/generic/{repository}/{path}", (200, 404))
            found = digest_of(answer.content) if answer.status_code == 200 else None
        elif tags:
            (repository, package, tag), slot = self.rng.choice(tags)
            answer = self.send(
                "GET", f"/v2/{repository}/{package}/manifests/{tag}", (200, 404), headers={"Accept": MANIFEST}
            )
            found = digest_of(answer.content) if answer.status_code == 200 else None
        else:
            return
        if answer.status_code in (200, 404) and found not in slot.possible:
            self.ledger.fail(f"{answer.request.url} gave {found}, possible are {slot.possible}")
        self.end_if_over(answer)

    def read_mirror(self) -> None:
        """Whatever the upstream does: right bytes, or an error."""
        item = self.mirrors.choose(self.rng)
        if item is None:
            return
        headers = {"Accept": item.accept} if item.accept else {}
        answer = self.send("GET", item.path, (200,), is_mirrored=True, headers=headers)
        if answer.status_code == 200:
            self.ledger.count(f"{item.format} fetched")
            if fault := item.fault_in(answer):
                self.ledger.fail(f"{item.path} is a success with {fault}")
        self.end_if_over(answer)

    def end_if_over(self, answer: httpx.Response) -> None:
        if answer.extensions.get("over"):
            raise Stopped


class Reader(Client):
    """Only reads what upstreams have, as often as it can; now and then what is held goes, and has to be fetched again."""

    @property
    def acts(self) -> list[tuple[Callable[[], None], int]]:
        return [(self.read_mirror, 10), (self.evict, 1)]

    def evict(self) -> None:
        item = self.mirrors.choose(self.rng)
        if item is None or item.evict is None:
            return
        where, parameters = item.evict
        answer = self.send("DELETE", where, (204, 404), params=parameters)
        if answer.status_code == 204:
            self.ledger.count("copies evicted")
        self.end_if_over(answer)


def _descriptor(data: bytes, media_type: str) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest_of(data), "size": len(data)}


def _chunks(data: bytes) -> Iterator[bytes]:
    for start in range(0, len(data), 70_000):
        yield data[start : start + 70_000]


def _offset(header: str, session: Session) -> int:
    """The number of bytes an upload's Range (`0-<last>`) says are kept. "0-0" may mean none or one byte."""
    last = int(header.rpartition("-")[2])
    if last == 0:
        return session.kept if session.kept in (0, 1) else 1
    return last + 1


class Collector(threading.Thread):
    """Purges and collections in a loop, as an administrator asks for them."""

    def __init__(
        self, admin: httpx.Client, graces: tuple[int, ...], ledger: Ledger, rng: random.Random, stop: threading.Event
    ) -> None:
        super().__init__(name="collector", daemon=True)
        self.admin, self.graces, self.ledger, self.rng, self.stop = admin, graces, ledger, rng, stop

    def run(self) -> None:
        while not self.stop.is_set():
            if self.rng.random() < 0.4:
                job = {"kind": "purge", "arguments": {"window_seconds": 0}}
            else:
                job = {"kind": "collect", "arguments": {"grace_seconds": self.rng.choice(self.graces), "force": True}}
            try:
                self._do(job)
            except httpx.TransportError:
                self.stop.wait(0.1)

    def _do(self, job: dict[str, Any]) -> None:
        answer = self.admin.post("/api/v1/jobs", json=job)
        if answer.status_code != 202:
            self.ledger.count(f"job refused {answer.status_code}")
            self.stop.wait(0.2)
            return
        while not self.stop.is_set():
            found = self.admin.get(f"/api/v1/jobs/{answer.json()['id']}")
            if found.status_code == 200 and found.json()["state"] in ("succeeded", "failed"):
                self.ledger.count(f"{job['kind']} {found.json()['state']}")
                if found.json()["state"] == "failed":
                    self.ledger.fail(f"job {job}: {found.json()['error'][:500]}")
                elif job["kind"] == "collect":
                    self.ledger.count("blobs collected", found.json()["result"]["blobs"])
                return
            self.stop.wait(0.1)
