"""Fill a Maven or Helm repository with the files of a folder, through the ORM: thousands take seconds instead of minutes.

    python -m tests.bench.fill_files NAMESPACE/REPOSITORY FOLDER

Runs in the environment of the server (REPOMAN_DATA …), which may be running. The rows are those that as many uploads leave,
without their events; bytes are written without syncing. In the folder lie POMs by their paths, each a version of its own,
or charts.
"""

from __future__ import annotations

import hashlib
import io
import os
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import django

CHUNK = 2000


@dataclass(frozen=True, slots=True)
class Made:
    """A version with its one file, and what the format keeps of both."""

    package: str
    version: str
    path: str
    data: bytes
    media_type: str = ""
    metadata: Mapping[str, object] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)
    about: Mapping[str, object] = field(default_factory=dict)


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "repoman.settings")
    django.setup()
    from django.conf import settings

    from repoman.catalog.models import Repository

    key, folder = sys.argv[1], Path(sys.argv[2])
    made = READERS[Repository.objects.get(key=key).format](folder)
    while chunk := list(islice(made, CHUNK)):
        _insert(key, chunk, Path(settings.CONFIGURATION.blobs))


def _poms(folder: Path) -> Iterator[Made]:
    from formats.maven import package
    from formats.maven.names import ALGORITHMS, Place, parse

    for file in sorted(folder.rglob("*.pom")):
        place = parse(str(file.relative_to(folder)))
        assert isinstance(place, Place)
        data = file.read_bytes()
        facts = package.pom(io.BytesIO(data), len(data))
        digests = {name: hashlib.new(name, data, usedforsecurity=False).hexdigest() for name in ALGORITHMS}
        metadata = {**digests, "pom": dict(facts.metadata)}
        yield Made(place.package, place.version, place.path, data, "", metadata, digests, facts.metadata)


def _charts(folder: Path) -> Iterator[Made]:
    from formats.helm import listing, package, views

    for file in sorted(folder.glob("*.tgz")):
        data = file.read_bytes()
        facts = package.inspect(file.name, io.BytesIO(data), len(data))
        metadata = {listing.ENTRY: facts.metadata["entry"]}
        yield Made(facts.name, facts.version, file.name, data, views.CHART_TYPE, metadata)


READERS: Mapping[str, Callable[[Path], Iterator[Made]]] = {"maven": _poms, "helm": _charts}


def _insert(key: str, made: Iterable[Made], root: Path) -> None:
    from django.db import transaction
    from django.db.models import F

    from repoman.blobs.drivers.base import storage_key
    from repoman.blobs.models import Blob, BlobDigest
    from repoman.catalog.models import Artifact, Holding, Namespace, Package, Repository, Version, VersionArtifact
    from repoman.core import clock

    now = clock.now()
    digests: list[BlobDigest] = []
    versions: list[Version] = []
    artifacts: list[Artifact] = []
    by_package: dict[str, list[tuple[Made, str]]] = defaultdict(list)
    for item in made:
        by_package[item.package].append((item, hashlib.sha256(item.data).hexdigest()))
    wanted = [digest for items in by_package.values() for _, digest in items]
    with transaction.atomic(durable=True):
        holder = Repository.objects.select_for_update().get(key=key)
        revision = holder.revision
        blobs = {blob.digest: blob for blob in Blob.objects.filter(digest__in=wanted)}
        new: list[Blob] = []
        for name, items in by_package.items():
            package, _ = Package.objects.get_or_create(
                repository=holder, name=name, defaults={"display_name": name, "created_at": now}
            )
            for item, digest in items:
                revision += 1
                if digest not in blobs:
                    where = storage_key(digest, clock.new_id())
                    blobs[digest] = Blob(
                        digest=digest, size=len(item.data), storage_key=where, stamp=_stored(root / where, item.data),
                        created_at=now, touched_at=now,
                    )  # fmt: skip
                    new.append(blobs[digest])
                blob = blobs[digest]
                digests += [BlobDigest(blob=blob, algorithm=name, hex=value) for name, value in item.digests.items()]
                versions.append(
                    Version(
                        package=package,
                        name=item.version,
                        metadata=dict(item.about),
                        first_seen_at=now,
                        added_revision=revision,
                    )  # fmt: skip
                )
                artifacts.append(
                    Artifact(
                        package=package,
                        path=item.path,
                        blob=blob,
                        media_type=item.media_type,
                        metadata=dict(item.metadata),
                        first_seen_at=now,
                        touched_at=now,
                        added_revision=revision,
                    )  # fmt: skip
                )
            Package.objects.filter(pk=package.pk).update(revision=revision, changed_at=now)
        Blob.objects.bulk_create(new)
        BlobDigest.objects.bulk_create(digests, ignore_conflicts=True)
        Version.objects.bulk_create(versions)
        Artifact.objects.bulk_create(artifacts)
        VersionArtifact.objects.bulk_create(
            VersionArtifact(version=version, artifact=artifact)
            for version, artifact in zip(versions, artifacts, strict=True)
        )
        held = Holding.objects.filter(namespace_id=holder.namespace_id, blob__digest__in=wanted)
        known = set(held.values_list("blob__digest", flat=True))
        added = [blob for digest, blob in blobs.items() if digest not in known]
        Holding.objects.bulk_create(Holding(namespace_id=holder.namespace_id, blob=blob) for blob in added)
        used = sum(blob.size for blob in added)
        Namespace.objects.filter(pk=holder.namespace_id).update(used_bytes=F("used_bytes") + used)
        Repository.objects.filter(pk=holder.pk).update(revision=revision)


def _stored(file: Path, data: bytes) -> str:
    """Write it; what the store notes of it to see whether it was changed."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    return str(file.stat().st_mtime_ns)


if __name__ == "__main__":
    main()
