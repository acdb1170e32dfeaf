"""Digests that clients send before the files that they are of.

What is announced is not there: it has no name, no bytes that count and no revision. It is kept until the file comes, which
must then have that digest, but for a short time only: of a deploy that was cut, nothing stands in the way of the next one.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping

from repoman.blobs import store
from repoman.catalog import selectors, writes
from repoman.catalog.models import Announced, Repository
from repoman.core import clock
from repoman.core.errors import ContentInvalid
from repoman.core.records import BlobRef, NewFile, Staged
from repoman.core.refs import FileRef
from repoman.db.prepared import Prepared

from .transactions import write

KEPT = datetime.timedelta(minutes=15)

_told = Prepared(
    lambda repository_id, package, path: Announced.objects.filter(
        repository_id=repository_id, package=package, path=path
    ).values_list("algorithm", "hex", "told_at")
)


class Unhashed(Exception):
    """A file has a digest to be compared with that was not computed while it came."""

    def __init__(self, path: str, algorithm: str) -> None:
        self.path = path
        self.algorithm = algorithm


def announce(repository: Repository, ref: FileRef, algorithm: str, told: str) -> bool:
    """Keep it; the last one that was told counts. False where the file is there by now, to be compared at once."""

    def block() -> bool:
        writes.lock_repository(repository)  # whoever publishes the file has committed, or will see this
        if selectors.live_artifact(repository.pk, ref.package, ref.path) is not None:
            return False
        now = clock.now()
        Announced.objects.filter(repository=repository, told_at__lt=now - KEPT).delete()
        Announced.objects.update_or_create(
            repository=repository,
            package=ref.package,
            path=ref.path,
            algorithm=algorithm,
            defaults={"hex": told, "told_at": now},
        )
        return True

    return write(block)


def of(repository: Repository, ref: FileRef) -> Mapping[str, str]:
    """Algorithm → hex of what is announced of the file."""
    since = clock.now() - KEPT
    rows = _told.all(repository.pk, ref.package, ref.path)
    return {algorithm: told for algorithm, told, told_at in rows if told_at >= since}


def retract(repository: Repository, ref: FileRef, algorithm: str) -> bool:
    """Whether there was anything to take back."""

    def block() -> bool:
        writes.lock_repository(repository)
        rows = Announced.objects.filter(repository=repository, package=ref.package, path=ref.path, algorithm=algorithm)
        return rows.delete()[0] > 0

    return write(block)


def judge(repository: Repository, package: str, new: NewFile) -> None:
    """Inside the transaction that makes the file visible, with the repository locked: it has what was announced, which is
    not needed any more. Raises ContentInvalid, Unhashed."""
    told = of(repository, FileRef(package, new.path))
    actual = {**new.staged.others, new.staged.digest.algorithm: new.staged.digest.hex}
    for algorithm, expected in sorted(told.items()):
        if algorithm not in actual:
            raise Unhashed(new.path, algorithm)
        if actual[algorithm] != expected:
            raise ContentInvalid(
                f"'{new.path}' has the {algorithm} {actual[algorithm]}, not {expected} as was uploaded before it; nothing "
                f"was stored (send the right checksum, or wait for {KEPT.seconds // 60} minutes)",
                expected=expected,
                actual=actual[algorithm],
            )
    if told:
        Announced.objects.filter(repository=repository, package=package, path=new.path).delete()


def digest_of(staged: Staged, algorithm: str) -> str:
    """Read from the store, outside of any transaction."""
    return store.other_digest(BlobRef(staged.digest, staged.size, staged.storage_key, staged.stamp), algorithm)
