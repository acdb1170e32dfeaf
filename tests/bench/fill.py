"""Fill a server's image with many tags, manifests and blobs through the ORM, which takes seconds instead of minutes.

    python -m tests.bench.fill COUNT NAMESPACE/REPOSITORY/IMAGE FILE.json

Runs in the environment of the server (REPOMAN_DATA …), which may be running. The rows are those that as many pushes
leave, without their events. Files are written, without syncing, only for what is going to be read: FILE gets tag,
manifest and layer digest of at most 20,000, of which those with `layer` (at most 1,000) have that file too.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import django

CHUNK = 2000
MOST_MANIFESTS, MOST_LAYERS = 20_000, 1000


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "repoman.settings")
    django.setup()
    count, name, output = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    namespace, repository, image = name.split("/", 2)
    items: list[dict[str, str]] = []
    for start in range(0, count, CHUNK):
        items += _chunk(f"{namespace}/{repository}", image, start, min(CHUNK, count - start), count)
    output.write_text(json.dumps(items))


def _chunk(key: str, image: str, start: int, count: int, total: int) -> list[dict[str, str]]:
    from django.conf import settings
    from django.db import transaction
    from django.db.models import F

    from repoman.blobs.drivers.base import storage_key
    from repoman.blobs.models import Blob
    from repoman.catalog.models import (
        Artifact,
        Holding,
        Namespace,
        Package,
        Repository,
        Tag,
        Version,
        VersionArtifact,
    )
    from repoman.core import clock
    from tests.bench import content

    root = Path(settings.CONFIGURATION.blobs)
    now = clock.now()
    shared = content.image("", 64).config  # one config for a chunk: what counts are tags, manifests and layers
    made = [content.image(f"t{start + at:07}", 64, shared) for at in range(count)]

    every = max(1, total // MOST_MANIFESTS), max(1, total // MOST_LAYERS)

    def stored(digest: str, data: bytes, is_read: bool) -> Blob:
        hex_digest = digest.removeprefix("sha256:")
        where = storage_key(hex_digest, clock.new_id())
        stamp = "0"
        if is_read:
            file = root / where
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
            stamp = str(file.stat().st_mtime_ns)
        return Blob(digest=hex_digest, size=len(data), storage_key=where, stamp=stamp, created_at=now, touched_at=now)

    rows = [stored(item.digest, item.manifest, (start + at) % every[0] == 0) for at, item in enumerate(made)]
    rows.append(stored(shared.digest, b"".join(shared.pieces), True))
    rows += [
        stored(item.layer.digest, b"".join(item.layer.pieces), (start + at) % every[1] == 0)
        for at, item in enumerate(made)
    ]
    with transaction.atomic(durable=True):
        Blob.objects.bulk_create(rows)
        blobs = {f"sha256:{row.digest}": row for row in rows}
        holder = Repository.objects.get(key=key)
        package, _ = Package.objects.get_or_create(
            repository=holder, name=image, defaults={"display_name": image, "created_at": now}
        )
        holder.refresh_from_db()
        revision = holder.revision

        def artifact(blob: content.Blob, at: int) -> Artifact:
            return Artifact(
                package=package, path=blob.digest, blob=blobs[blob.digest], held_by_version=True,
                first_seen_at=now, touched_at=now, added_revision=revision + 1 + at,
            )  # fmt: skip

        layers = [artifact(item.layer, at) for at, item in enumerate(made)]
        config = artifact(shared, 0)
        Artifact.objects.bulk_create([config, *layers])
        versions = [
            Version(
                package=package,
                name=item.digest,
                blob=blobs[item.digest],
                media_type=content.MANIFEST,
                artifact_type=content.CONFIG,
                first_seen_at=now,
                added_revision=revision + 1 + at,
            )  # fmt: skip
            for at, item in enumerate(made)
        ]
        Version.objects.bulk_create(versions)
        VersionArtifact.objects.bulk_create(
            [
                VersionArtifact(version=version, artifact=part)
                for version, layer in zip(versions, layers, strict=True)
                for part in (config, layer)
            ]
        )
        Tag.objects.bulk_create(
            [
                Tag(package=package, name=item.tag, version=version, moved_at=now, added_revision=revision + 1 + at)
                for at, (item, version) in enumerate(zip(made, versions, strict=True))
            ]
        )
        Holding.objects.bulk_create([Holding(namespace_id=holder.namespace_id, blob=row) for row in rows])
        Namespace.objects.filter(pk=holder.namespace_id).update(
            used_bytes=F("used_bytes") + sum(row.size for row in rows)
        )
        Repository.objects.filter(pk=holder.pk).update(revision=F("revision") + count)
    return [
        {
            "tag": item.tag,
            "manifest": item.digest,
            "layer": item.layer.digest if (start + at) % every[1] == 0 else "",
        }
        for at, item in enumerate(made)
        if (start + at) % every[0] == 0
    ]


if __name__ == "__main__":
    main()
