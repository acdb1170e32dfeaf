"""Reclaiming bytes beside a running server.

A blob is alive while a namespace holds it (`Holding`). What nothing holds goes in this order, and a collector that is
killed anywhere leaves at most bytes that a later run finds:

    1. files that only a version keeps, named by none, and promised to nobody within the grace → row and Holding
    2. blobs without a Holding, past the grace → row away, a Tombstone with its storage key in the same transaction
    3. tombstones → bytes away, then the tombstone
    4. objects that no row and no tombstone names, past the grace and the life of an upload → bytes away

Before that it ends idle uploads and empties the trash, by their own settings. Steps 1 and 2 lock first and look second
(`release.py`), so a publisher that names something either keeps it or finds it gone; storage keys are never used twice,
so a late removal only ever meets a dead one.
"""

from __future__ import annotations

import datetime
import logging
import time
from collections.abc import Iterator, Mapping

from django.conf import settings
from django.db.models import Exists, OuterRef, Q, QuerySet

from repoman.blobs import store
from repoman.blobs.drivers.base import Driver, Listed, StoreError, StoreForeign
from repoman.blobs.models import Blob, BlobDigest, Tombstone, Upload
from repoman.catalog.models import Artifact, Holding, Version, VersionArtifact
from repoman.core import clock
from repoman.core.errors import Conflict
from repoman.jobs.lease import LeaseBusy, NamedLease
from repoman.jobs.progress import Progress, silent

from .expire import expire_uploads
from .purge import purge
from .release import Removed, lock_blobs, remove_rows
from .transactions import write

BATCH = 200
KEYS = 500
# The breaker: a run that would take more than this share, and more than this count, stops and asks.
BREAKER_SHARE = 0.5
BREAKER_COUNT = 1_000
# Objects without rows are looked up twice, this long apart (less if the grace is less), and so many at most in a run.
SECOND_LOOK_SECONDS = 30.0
MOST_OBJECTS = 100_000
_log = logging.getLogger("repoman.collect")


class CollectionRefused(Conflict):
    """The collection would remove an unusual share of everything; look first, then run it with force."""

    code = "collection_refused"


def collect(
    *,
    grace_seconds: int | None = None,
    force: bool = False,
    objects: bool = True,
    dry_run: bool = False,
    progress: Progress = silent,
) -> dict[str, int]:
    """Collect what nothing refers to, unused for `grace_seconds` (REPOMAN_COLLECT_GRACE; 0 is literal).

    `objects`: also step 4, which lists the whole store. `dry_run` only counts. Returns counts of `files`, `blobs`,
    `objects` and the `bytes` taken from the store. Raises LeaseBusy while another collection runs, CollectionRefused
    (the breaker; `force` overrides it), Unavailable.
    """
    configured: int = settings.CONFIGURATION["REPOMAN_COLLECT_GRACE"]
    grace = configured if grace_seconds is None else grace_seconds
    with NamedLease("collect") as lease:

        def report(step: str, counts: Mapping[str, int]) -> None:
            lease.renew()
            progress(step, counts)

        driver = store.driver()
        driver.check()  # a store that is not there, or not ours, is no evidence of anything
        run = _Collection(driver, grace, force, dry_run, report)
        if not dry_run:
            run.clean_up()
        run.files()
        run.blobs()
        if not dry_run:
            run.tombstones()
        if objects:
            run.objects()
        return run.counts


class _Collection:
    """One run. `counts` is what it did, or would do."""

    def __init__(self, driver: Driver, grace: int, force: bool, dry_run: bool, report: Progress) -> None:
        self._driver = driver
        self._grace = grace
        self._force = force
        self._dry_run = dry_run
        self._report = report
        self._before = clock.now() - datetime.timedelta(seconds=grace)
        self.counts = {"files": 0, "blobs": 0, "objects": 0, "bytes": 0, "released_bytes": 0, "pending": 0, "busy": 0}

    def clean_up(self) -> None:
        """What has ended by its own settings: idle uploads, and the trash."""
        expired = expire_uploads(progress=self._report)
        self.counts["uploads"] = expired["uploads"]
        try:
            purged = purge(progress=self._report)
        except LeaseBusy:
            return  # another purge does it
        self.counts["purged_versions"] = purged["versions"]
        self.counts["purged_files"] = purged["files"]
        self.counts["released_bytes"] += purged["bytes"]

    def _refuse(self, what: str, doomed: int, of: int) -> None:
        if self._force or doomed <= BREAKER_COUNT or doomed <= of * BREAKER_SHARE:
            return
        raise CollectionRefused(
            f"{doomed} of {of} {what} would be removed at once, which is more than half. Check the clock and whether the "
            "database is complete and belongs to this store; if that is what you want, run it again with force",
            what=what,
            doomed=doomed,
            of=of,
        )

    # 1

    def _unheld_files(self) -> QuerySet[Artifact]:
        named = VersionArtifact.objects.filter(artifact=OuterRef("pk"))
        return Artifact.objects.filter(
            ~Exists(named), removed_revision=None, held_by_version=True, touched_at__lte=self._before
        )

    def files(self) -> None:
        rows = self._unheld_files()
        doomed = rows.count()
        self._refuse("files kept by versions", doomed, Artifact.objects.filter(held_by_version=True).count())
        if self._dry_run:
            self.counts["files"] = doomed
            return
        still = Q(removed_revision=None, held_by_version=True, touched_at__lte=self._before)
        last = 0
        while True:
            found = list(
                rows.filter(pk__gt=last).order_by("pk").values_list("pk", "package__repository__namespace_id")[:BATCH]
            )
            if not found:
                return
            last = found[-1][0]
            for namespace_id in sorted({namespace for _, namespace in found}):
                keys = [key for key, namespace in found if namespace == namespace_id]
                removed = write(lambda n=namespace_id, k=keys: remove_rows(n, artifacts=k, still=still))  # type: ignore[misc]
                self._count(removed)
            self._report("files", self.counts)

    def _count(self, removed: Removed) -> None:
        self.counts["files"] += removed.artifacts
        self.counts["released_bytes"] += removed.released_bytes
        self.counts["busy"] += removed.busy

    # 2

    def _unheld_blobs(self) -> QuerySet[Blob]:
        """Without a Holding; and, should a Holding be missing that ought to be there, without a row naming it."""
        holding = Holding.objects.filter(blob=OuterRef("pk"))
        artifact = Artifact.objects.filter(blob=OuterRef("pk"))
        version = Version.objects.filter(blob=OuterRef("pk"))
        return Blob.objects.filter(~Exists(holding), touched_at__lte=self._before).filter(
            ~Exists(artifact), ~Exists(version)
        )

    def blobs(self) -> None:
        rows = self._unheld_blobs()
        doomed = rows.count()
        self._refuse("blobs", doomed, Blob.objects.count())
        if self._dry_run:
            self.counts["blobs"] = doomed
            self.counts["bytes"] += sum(rows.values_list("size", flat=True).iterator())
            return
        last = 0
        while True:
            keys = list(rows.filter(pk__gt=last).order_by("pk").values_list("pk", flat=True)[:BATCH])
            if not keys:
                return
            last = keys[-1]
            self.counts["blobs"] += write(lambda keys=keys: self._bury(keys))  # type: ignore[misc]
            self._report("blobs", self.counts)

    def _bury(self, keys: list[int]) -> int:
        locked = lock_blobs(keys)
        dead = list(self._unheld_blobs().filter(pk__in=locked))
        now = clock.now()
        Tombstone.objects.bulk_create(
            [Tombstone(storage_key=row.storage_key, store=row.store, size=row.size, created_at=now) for row in dead],
            ignore_conflicts=True,
        )
        BlobDigest.objects.filter(blob__in=dead).delete()
        Blob.objects.filter(pk__in=[row.pk for row in dead]).delete()
        return len(dead)

    # 3

    def tombstones(self) -> None:
        """One failure keeps none of the others; what could not be removed is tried by the next run."""
        last = 0
        while True:
            rows = list(Tombstone.objects.filter(pk__gt=last).order_by("pk")[:BATCH])
            if not rows:
                return
            last = rows[-1].pk
            alive = set(
                Blob.objects.filter(storage_key__in=[row.storage_key for row in rows]).values_list(
                    "storage_key", flat=True
                )
            )
            done: list[int] = []
            for row in rows:
                if row.storage_key in alive:  # never by our hand; a database put together from two would say so
                    _log.error("tombstone_of_live_blob", extra={"storage_key": row.storage_key})
                    self.counts["pending"] += 1
                elif self._remove_object(row.storage_key):
                    self.counts["bytes"] += row.size
                    done.append(row.pk)
                else:
                    self.counts["pending"] += 1
            if done:
                write(lambda done=done: Tombstone.objects.filter(pk__in=done).delete())  # type: ignore[misc]
            self._report("tombstones", self.counts)

    def _remove_object(self, key: str) -> bool:
        try:
            self._driver.delete(key)
        except StoreForeign:
            raise
        except StoreError as error:
            _log.warning("object_not_removed", extra={"storage_key": key, "error": str(error)})
            return False
        return True

    # 4

    def objects(self) -> None:
        """An object without a row is what a killed upload left, or one whose row is just being written: hence the age by
        the store's own clock, and the second look."""
        life = max(self._grace, settings.CONFIGURATION["REPOMAN_UPLOAD_TTL"])
        oldest = clock.seconds() - life
        doomed: list[Listed] = []
        seen = 0
        for page in pages(self._driver.list()):
            seen += len(page)
            old = [found for found in page if found.modified <= oldest]
            if len(doomed) < MOST_OBJECTS:
                doomed += nameless(old)
            self._report("objects", self.counts | {"seen": seen})
        self._refuse("objects in the store", len(doomed), seen)
        if self._dry_run:
            self.counts["objects"] = len(doomed)
            self.counts["bytes"] += sum(found.size for found in doomed)
            return
        if doomed:
            self._wait(min(SECOND_LOOK_SECONDS, float(self._grace)))
        for page in pages(iter(doomed)):
            for found in nameless(page):
                if self._remove_object(found.key):
                    self.counts["objects"] += 1
                    self.counts["bytes"] += found.size
                else:
                    self.counts["pending"] += 1
            self._report("objects", self.counts)

    def _wait(self, seconds: float) -> None:
        until = clock.monotonic() + seconds
        while clock.monotonic() < until:
            time.sleep(min(1.0, max(0.0, until - clock.monotonic())))
            self._report("objects", self.counts)


def pages(objects: Iterator[Listed], size: int = KEYS) -> Iterator[list[Listed]]:
    page: list[Listed] = []
    for found in objects:
        page.append(found)
        if len(page) >= size:
            yield page
            page = []
    if page:
        yield page


def nameless(objects: list[Listed]) -> list[Listed]:
    """Those that neither a blob, a tombstone nor an unfinished upload names."""
    if not objects:
        return []
    keys = [found.key for found in objects]
    named = set(Blob.objects.filter(storage_key__in=keys).values_list("storage_key", flat=True))
    named |= set(Tombstone.objects.filter(storage_key__in=keys).values_list("storage_key", flat=True))
    named |= set(Upload.objects.filter(target__in=keys).values_list("target", flat=True))
    return [found for found in objects if found.key not in named]
