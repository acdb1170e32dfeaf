"""Short words for pushing, ageing and looking, for tests of what happens to content later."""

from __future__ import annotations

import datetime
import hashlib
import os
import threading
from collections.abc import Callable
from typing import Any

from django.db import connections

from repoman.blobs import store
from repoman.blobs.models import Blob, Upload
from repoman.catalog.models import Artifact, Namespace, Repository, Tag, Version
from repoman.core import clock
from repoman.core.actor import ALL_ACTIONS, Actor
from repoman.core.records import NewFile, NewVersion, Publication
from repoman.core.refs import FileRef, VersionRef
from repoman.core.wire import SessionBody
from repoman.services import delete, publish, upload
from repoman.services.fsck import fsck

MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def make_repository(namespace: Namespace, name: str = "images", format: str = "oci", **fields: Any) -> Repository:
    return Repository.objects.create(
        namespace=namespace, name=name, key=f"{namespace.name}/{name}", format=format, created_at=clock.now(), **fields
    )


def push(repository: Repository, actor: Actor, data: bytes, package: str = "app") -> str:
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    publish.attach(repository, actor, package, digest, store.stage(data))
    return digest


def release(
    repository: Repository, actor: Actor, document: bytes, files: tuple[str, ...], *tags: str, package: str = "app"
) -> str:
    staged = store.stage(document)
    version = NewVersion(str(staged.digest), staged, MANIFEST, files=files)
    publish.publish(repository, actor, ALL_ACTIONS, Publication(package, version=version, tags=tags))
    return str(staged.digest)


def releases(repository: Repository, actor: Actor, first: int, last: int) -> None:
    """Versions of the npm package `demo`, from `first`.0.0 on, each with its tarball and as the latest."""
    for number in range(first, last):
        path = f"demo-{number}.0.0.tgz"
        publication = Publication(
            "demo",
            files=(NewFile(path, store.stage(b"tarball %d" % number), metadata={"shasum": "0" * 40}),),
            version=NewVersion(f"{number}.0.0", files=(path,), metadata={"name": "demo", "version": f"{number}.0.0"}),
            tags=("latest",),
        )
        publish.publish(repository, actor, ALL_ACTIONS, publication)


def put(repository: Repository, actor: Actor, path: str, data: bytes, **more: Any) -> Any:
    publication = Publication(path, files=(NewFile(path, store.stage(data)),), may_replace=True, **more)
    return publish.publish(repository, actor, ALL_ACTIONS, publication)


def remove_version(repository: Repository, actor: Actor, digest: str, package: str = "app") -> int:
    return delete.remove_version(repository, actor, VersionRef(package, digest))


def remove_file(repository: Repository, actor: Actor, path: str) -> int:
    return delete.remove_file(repository, actor, FileRef(path, path))


def begin_session(repository: Repository, actor: Actor, data: bytes) -> str:
    state = upload.begin(repository, actor, "app", "sha256")
    sink = upload.open_session(repository, actor, SessionBody(state.upload_id, "app"))
    sink.append(data)
    sink.finish()
    return state.upload_id


def row_of(upload_id: str) -> str:
    """The key of a session's row: the first part of its id."""
    return upload_id.partition(".")[0]


def age(seconds: float, driver: Any = None) -> None:
    """Everything there is happened `seconds` earlier; objects in the store as well, with a driver of files."""
    before = clock.now() - datetime.timedelta(seconds=seconds)
    Artifact.objects.update(touched_at=before)
    Blob.objects.update(touched_at=before)
    Upload.objects.update(touched_at=before)
    for model in (Artifact, Version, Tag):
        model.objects.filter(removed_revision__isnull=False).update(removed_at=before)
    if driver is not None:
        for found in list(driver.list()):
            path = f"{driver.root}/{found.key}"
            os.utime(path, (before.timestamp(), before.timestamp()))
            Blob.objects.filter(storage_key=found.key).update(stamp=driver.stat(found.key).stamp)


def objects(driver: Any) -> set[str]:
    return {found.key for found in driver.list()}


def used(namespace: Namespace) -> int:
    namespace.refresh_from_db()
    return namespace.used_bytes


def assert_sound(**options: Any) -> None:
    """No invariant is broken."""
    report = fsck(rehash=True, **options)
    assert report.problems == [], [problem.as_dict() for problem in report.problems]


def together(*acts: Callable[[], object]) -> list[BaseException | None]:
    """Run the acts in threads that start at one moment; what each raised, in their order."""
    barrier = threading.Barrier(len(acts))
    raised: list[BaseException | None] = [None] * len(acts)

    def one(number: int) -> None:
        try:
            barrier.wait(30)
            acts[number]()
        except BaseException as error:
            raised[number] = error
        finally:
            connections.close_all()

    threads = [threading.Thread(target=one, args=(number,)) for number in range(len(acts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised
