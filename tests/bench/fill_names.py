"""Fill a PyPI repository with many projects of one release each, through the ORM: for the page that lists them all.

    python -m tests.bench.fill_names NAMESPACE/REPOSITORY NAMES.json

Runs in the environment of the server (REPOMAN_DATA …), which may be running. The releases have no files.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import django


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "repoman.settings")
    django.setup()
    from django.db import transaction
    from django.db.models import F

    from repoman.catalog.models import Package, Repository, Version
    from repoman.core import clock

    key, names = sys.argv[1], json.loads(Path(sys.argv[2]).read_text())
    now = clock.now()
    with transaction.atomic(durable=True):
        holder = Repository.objects.get(key=key)
        revision = holder.revision
        packages = [
            Package(
                repository=holder,
                name=name,
                display_name=name,
                created_at=now,
                changed_at=now,
                revision=revision + 1 + at,
            )  # fmt: skip
            for at, name in enumerate(names)
        ]
        Package.objects.bulk_create(packages, batch_size=500)
        Version.objects.bulk_create(
            [
                Version(package=package, name="1.0", first_seen_at=now, added_revision=package.revision)
                for package in packages
            ],
            batch_size=500,
        )
        Repository.objects.filter(pk=holder.pk).update(revision=F("revision") + len(names))


if __name__ == "__main__":
    main()
