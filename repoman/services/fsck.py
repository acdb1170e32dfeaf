"""Every invariant of the data, checked beside a running server; repaired on request where that loses nothing.

`CHECKS` is the list; each check's docstring is the invariant. Finding is streaming, in pages by primary key. What a check
suspects is looked at again, alone and as it stands now, before it is reported, so a push or a collection that runs
meanwhile is no finding. Repairs look once more, under the locks that writers take.

A *problem* is a broken invariant. A *notice* is something an operator may want to know that breaks none: bytes that the
collector will reclaim, say.
"""

from __future__ import annotations

import datetime
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from django.conf import settings
from django.db.models import BigIntegerField, Count, Exists, F, Max, OuterRef, Q, QuerySet, Subquery, Sum
from django.db.models.functions import Coalesce, Greatest

from repoman.blobs import store
from repoman.blobs.drivers.base import BlobMissing, SinkBusy, SinkLost, StoreCorrupt, StoreError
from repoman.blobs.models import Blob, Tombstone, Upload
from repoman.catalog.models import (
    Artifact,
    Burned,
    Holding,
    Namespace,
    Package,
    Repository,
    Tag,
    Version,
    VersionArtifact,
)
from repoman.core import clock
from repoman.core.actor import system_actor
from repoman.core.digest import Digest
from repoman.core.errors import FileNotFound, Unavailable
from repoman.core.format import handler_for, handlers
from repoman.core.refs import FileRef, ListingRef
from repoman.jobs.progress import Progress, silent
from repoman.policy import quota
from repoman.sources.models import Fill, UpstreamDocument
from repoman.sources.remote import document_key

from . import delete, upload
from .collect import nameless, pages
from .publish import ABOUT, about_of
from .release import for_update, lock_blobs, lock_namespace, release
from .transactions import write

PAGE = 500
IDLE_SECONDS = 120  # sessions that a request used more recently are not touched
OLD_TOMBSTONE_SECONDS = 2 * 86400
OLD_CLAIM_SECONDS = 3600
INDEX_KEY = document_key(ListingRef("packages"))


@dataclass(slots=True)
class Problem:
    """One broken invariant. `subject` names the thing, `affected` every artifact that suffers from it."""

    check: str
    subject: str
    message: str
    affected: list[str] = field(default_factory=list)
    repaired: bool = False

    def as_dict(self) -> dict[str, Any]:
        return {
            "check": self.check,
            "subject": self.subject,
            "message": self.message,
            "affected": self.affected,
            "repaired": self.repaired,
        }


@dataclass(slots=True)
class Notice:
    """Something that breaks no invariant, summed up: `count` of it with `bytes` in all, and the first few names."""

    count: int = 0
    bytes: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, name: str, size: int = 0) -> None:
        self.count += 1
        self.bytes += size
        if len(self.examples) < 20:
            self.examples.append(name)


@dataclass(slots=True)
class Report:
    """`checked` counts what each check looked at; `hashed_bytes` what was read and hashed."""

    checked: dict[str, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    notices: dict[str, Notice] = field(default_factory=dict)
    hashed_bytes: int = 0

    @property
    def remaining(self) -> int:
        return sum(1 for problem in self.problems if not problem.repaired)

    def as_dict(self, *, most_problems: int | None = None) -> dict[str, Any]:
        shown = self.problems if most_problems is None else self.problems[:most_problems]
        return {
            "clean": self.remaining == 0,
            "checked": self.checked,
            "problems": len(self.problems),
            "repaired": len(self.problems) - self.remaining,
            "bytes": self.hashed_bytes,
            "items": [problem.as_dict() for problem in shown],
            "notices": {
                name: {"count": notice.count, "bytes": notice.bytes, "examples": notice.examples}
                for name, notice in self.notices.items()
            },
        }


class _Run:
    """What a check needs: options, the report, and a place to say how far it is."""

    def __init__(self, *, rehash: bool, repair: bool, progress: Progress, tell: Callable[[Problem], None]) -> None:
        self.rehash = rehash
        self.repair = repair
        self.report = Report()
        self.check = ""
        self._progress = progress
        self._tell = tell

    def seen(self, count: int = 1) -> None:
        self.report.checked[self.check] = self.report.checked.get(self.check, 0) + count
        self.step()

    def step(self) -> None:
        self._progress(
            self.check, {"checked": self.report.checked.get(self.check, 0), "bytes": self.report.hashed_bytes}
        )

    def problem(
        self, subject: str, message: str, affected: list[str] | None = None, *, repair: Callable[[], bool] | None = None
    ) -> None:
        """Report it; with `repair`, try that if repairs were asked for. It returns whether all is well now."""
        found = Problem(self.check, subject, message, affected or [])
        if self.repair and repair is not None:
            found.repaired = repair()
        self.report.problems.append(found)
        self._tell(found)

    def notice(self, name: str, subject: str, size: int = 0) -> None:
        self.report.notices.setdefault(name, Notice()).add(subject, size)


def fsck(
    *,
    rehash: bool = False,
    repair: bool = False,
    only: tuple[str, ...] = (),
    progress: Progress = silent,
    tell: Callable[[Problem], None] = lambda problem: None,
) -> Report:
    """Run every check, or those named in `only`. `rehash` reads all bytes; `tell` hears each problem as it is found.

    Raises ValueError for a name that is not a check's, Unavailable where the store cannot be judged at all.
    """
    unknown = set(only) - {check.__name__ for check in CHECKS}
    if unknown:
        raise ValueError(f"no such check: {', '.join(sorted(unknown))}")
    store.driver().check()
    run = _Run(rehash=rehash, repair=repair, progress=progress, tell=tell)
    for check in CHECKS:
        if not only or check.__name__ in only:
            run.check = check.__name__
            run.report.checked[run.check] = 0
            run.step()
            check(run)
    return run.report


def _pages(rows: QuerySet[Any], key: str = "pk") -> Iterator[list[Any]]:
    """All rows in the order of the key, PAGE at a time; each page is its own query, so nothing is held open."""
    last: Any = None
    while True:
        found = list((rows if last is None else rows.filter(**{f"{key}__gt": last})).order_by(key)[:PAGE])
        if not found:
            return
        yield found
        last = found[-1].pk


def affected_by(blob_id: int) -> list[str]:
    """Every artifact and version, live or in the trash, whose bytes this blob is: `ns/repo package path (trash)`."""
    names: list[str] = []
    for model, name in ((Artifact, "path"), (Version, "name")):
        rows = model.objects.filter(blob_id=blob_id).values_list(
            "package__repository__key", "package__name", name, "removed_revision"
        )
        for key, package, own, removed in rows.order_by("package__repository__key", "package__name", name).iterator():
            shown = package if package == own else f"{package} {own}"
            names.append(f"{key} {shown}" + ("" if removed is None else " (trash)"))
    return names


# --- bytes -----------------------------------------------------------------------------------------------------------


def blob_bytes(run: _Run) -> None:
    """Every blob row's object is in the store with the size and the bytes of its digest (bytes: with `rehash`, or where
    the object's stamp is not the stored one, or the blob is suspect).

    Repair: what cannot be served is marked suspect, so that reads fail at once and the next upload of the same bytes
    heals it; it stays a problem until then. A suspect that proves intact, and a changed stamp over the right bytes, are
    put right.
    """
    for page in _pages(Blob.objects.all()):
        intact: list[int] = []
        for blob in page:
            fault, hashed = _fault_of(run, blob)
            if fault:
                _report_blob(run, blob, fault)
            elif blob.state == Blob.State.SUSPECT:
                run.problem(
                    f"sha256:{blob.digest}",
                    "marked suspect, but its bytes are intact",
                    affected_by(blob.pk),
                    repair=_restorer(blob),
                )
            elif hashed:
                intact.append(blob.pk)
        if intact:
            now = clock.now()
            write(lambda keys=intact, now=now: Blob.objects.filter(pk__in=keys).update(verified_at=now))  # type: ignore[misc]
        run.seen(len(page))


def _fault_of(run: _Run, blob: Blob) -> tuple[str, bool]:
    """What is wrong with the object ("" if nothing), and whether it was hashed."""
    driver = store.driver()
    try:
        stat = driver.stat(blob.storage_key)
        if stat is None:
            return "its object is missing from the store", False
        if stat.size != blob.size:
            return f"its object has {stat.size} bytes instead of {blob.size}", False
        if not run.rehash and stat.stamp == blob.stamp and blob.state == Blob.State.PRESENT:
            return "", False
        actual = _hash(run, blob.storage_key)
        if actual != blob.digest:
            return f"its object's bytes have the digest sha256:{actual}", True
        if stat.stamp != blob.stamp:
            run.problem(
                f"sha256:{blob.digest}",
                "its object was touched by something else (the bytes are right; each read hashes them again)",
                repair=_restamper(blob, stat.stamp),
            )
        return "", True
    except BlobMissing:
        return "its object is missing from the store", False
    except StoreCorrupt as error:
        return f"its object cannot be read: {error.message}", False


def _hash(run: _Run, key: str) -> str:
    import hashlib

    hasher = hashlib.sha256()
    with store.driver().open(key) as opened:
        offset = 0
        while offset < opened.size:
            piece = opened.pread(offset, min(store.PIECE, opened.size - offset))
            hasher.update(piece)
            offset += len(piece)
            run.report.hashed_bytes += len(piece)
            run.step()
    return hasher.hexdigest()


def _report_blob(run: _Run, blob: Blob, fault: str) -> None:
    current = Blob.objects.filter(pk=blob.pk).first()
    if current is None or current.storage_key != blob.storage_key:
        return  # collected or healed since the page was read
    fault = _fault_of(run, current)[0]
    if not fault:
        return

    def suspect() -> bool:
        write(lambda: Blob.objects.filter(pk=blob.pk, storage_key=blob.storage_key).update(state=Blob.State.SUSPECT))
        return False  # the bytes are not back

    run.problem(f"sha256:{blob.digest}", fault, affected_by(blob.pk), repair=suspect)


def _restorer(blob: Blob) -> Callable[[], bool]:
    def restore() -> bool:
        rows = Blob.objects.filter(pk=blob.pk, storage_key=blob.storage_key)
        return write(lambda: rows.update(state=Blob.State.PRESENT)) == 1

    return restore


def _restamper(blob: Blob, stamp: str) -> Callable[[], bool]:
    def restamp() -> bool:
        rows = Blob.objects.filter(pk=blob.pk, storage_key=blob.storage_key)
        return write(lambda: rows.update(stamp=stamp)) == 1

    return restamp


def object_rows(run: _Run) -> None:
    """Every object in the store is named by a blob or a tombstone, or is younger than the grace and an upload's life.

    Others are no loss: they are counted in the notice `objects_without_row`, and the collector removes them. Repair:
    they are removed now.
    """
    life = max(settings.CONFIGURATION["REPOMAN_COLLECT_GRACE"], settings.CONFIGURATION["REPOMAN_UPLOAD_TTL"])
    oldest = clock.seconds() - life
    for page in pages(store.driver().list(), PAGE):
        for found in nameless(page):
            if found.modified > oldest:
                run.notice("objects_in_grace", found.key, found.size)
            elif run.repair and nameless([found]):
                store.discard([found.key])
                run.notice("objects_removed", found.key, found.size)
            else:
                run.notice("objects_without_row", found.key, found.size)
        run.seen(len(page))


def tombstones(run: _Run) -> None:
    """No tombstone names a live blob's object: its bytes would be removed under it.

    Repair: the tombstone is taken away. Tombstones that have waited for two days are counted in a notice: the store
    refuses to remove their objects.
    """
    old = clock.now() - datetime.timedelta(seconds=OLD_TOMBSTONE_SECONDS)
    for page in _pages(Tombstone.objects.all()):
        keys = [row.storage_key for row in page]
        alive = {blob.storage_key: blob for blob in Blob.objects.filter(storage_key__in=keys)}
        for row in page:
            blob = alive.get(row.storage_key)
            if blob is not None:
                run.problem(
                    row.storage_key,
                    "a tombstone names the object of a live blob",
                    affected_by(blob.pk),
                    repair=lambda row=row: write(lambda: Tombstone.objects.filter(pk=row.pk).delete()[0]) == 1,  # type: ignore[misc]
                )
            elif row.created_at < old:
                run.notice("old_tombstones", row.storage_key, row.size)
        run.seen(len(page))


# --- who holds what --------------------------------------------------------------------------------------------------


def holdings_present(run: _Run) -> None:
    """A namespace holds every blob that an artifact or version in it names, live or in the trash.

    Without it the blob is not counted. Repair: the Holding is made and its size added to what the namespace uses,
    whatever the quota.
    """
    for model in (Artifact, Version):
        own = Holding.objects.filter(
            blob_id=OuterRef("blob_id"), namespace_id=OuterRef("package__repository__namespace_id")
        )
        for page in _pages(model.objects.exclude(blob=None).select_related("package__repository__namespace")):
            # One statement is one snapshot; the page was another, but rows and Holdings come and go together.
            missing = model.objects.filter(pk__in=[row.pk for row in page]).exclude(blob=None).filter(~Exists(own))
            for row in missing.select_related("package__repository__namespace", "blob"):
                _report_unheld(run, row)
            run.seen(len(page))


def _report_unheld(run: _Run, row: Any) -> None:
    namespace = row.package.repository.namespace
    name = row.path if isinstance(row, Artifact) else row.name

    def repair() -> bool:
        def block() -> bool:
            if not lock_blobs([row.blob_id]):
                return False
            lock_namespace(namespace.pk)
            _, made = Holding.objects.get_or_create(namespace=namespace, blob_id=row.blob_id)
            if made:
                Namespace.objects.filter(pk=namespace.pk).update(used_bytes=F("used_bytes") + row.blob.size)
            return True

        return write(block)

    run.problem(
        f"sha256:{row.blob.digest}",
        f"namespace '{namespace.name}' does not hold it although content names it",
        [f"{row.package.repository.key} {row.package.name} {name}"],
        repair=repair,
    )


def holdings_needed(run: _Run) -> None:
    """A namespace holds only blobs that an artifact or version in it names, live or in the trash.

    Otherwise bytes are kept and charged for nothing. Repair: the Holding is dropped and its size given back.
    """
    artifact = Artifact.objects.filter(
        blob_id=OuterRef("blob_id"), package__repository__namespace_id=OuterRef("namespace_id")
    )
    version = Version.objects.filter(
        blob_id=OuterRef("blob_id"), package__repository__namespace_id=OuterRef("namespace_id")
    )
    for page in _pages(Holding.objects.all()):
        idle = Holding.objects.filter(pk__in=[row.pk for row in page]).filter(~Exists(artifact), ~Exists(version))
        for row in idle.select_related("namespace", "blob"):
            run.problem(
                f"sha256:{row.blob.digest}",
                f"namespace '{row.namespace.name}' holds it although nothing in it names it",
                repair=_releaser(row),
            )
        run.seen(len(page))


def _releaser(row: Holding) -> Callable[[], bool]:
    def block() -> bool:
        locked = lock_blobs([row.blob_id])
        lock_namespace(row.namespace_id)
        release(row.namespace_id, locked)
        return bool(locked)

    return lambda: write(block)


def used_bytes(run: _Run) -> None:
    """What a namespace uses is the sum of the sizes of the blobs it holds. Repair: counted anew under its lock."""
    _compare_sums(run, "used_bytes", Holding.objects.filter(namespace=OuterRef("pk")).values("namespace"), "blob__size")


def reserved_bytes(run: _Run) -> None:
    """What a namespace reserves is the sum of what its unfinished uploads reserve. Repair: counted anew."""
    rows = Upload.objects.filter(repository__namespace=OuterRef("pk")).values("repository__namespace")
    _compare_sums(run, "reserved_bytes", rows, "reserved")


def _compare_sums(run: _Run, name: str, rows: QuerySet[Any], column: str) -> None:
    total = Coalesce(
        Subquery(rows.order_by().annotate(total=Sum(column)).values("total"), output_field=BigIntegerField()), 0
    )
    for page in _pages(Namespace.objects.all()):
        wrong = (
            Namespace.objects.filter(pk__in=[row.pk for row in page])
            .annotate(actual=total)
            .exclude(**{name: F("actual")})
        )
        for row in wrong:

            def repair(row: Namespace = row) -> bool:
                def block() -> bool:
                    lock_namespace(row.pk)  # first the lock, then a statement that sees what was committed before it
                    current = Namespace.objects.annotate(actual=total).get(pk=row.pk)
                    Namespace.objects.filter(pk=row.pk).update(**{name: current.actual})
                    return True

                return write(block)

            run.problem(
                row.name, f"{name} is {getattr(row, name)}, but what it counts sums up to {row.actual}", repair=repair
            )
        run.seen(len(page))


# --- the log of each repository --------------------------------------------------------------------------------------


def live_once(run: _Run) -> None:
    """In a package at most one live file has a path, one live version a name, and one live tag a name."""
    for model, name in ((Artifact, "path"), (Version, "name"), (Tag, "name")):
        twins = (
            model.objects.filter(removed_revision=None)
            .values("package__repository__key", "package__name", name)
            .annotate(count=Count("pk"))
            .filter(count__gt=1)
        )
        for row in twins.order_by().iterator():
            run.problem(
                f"{row['package__repository__key']} {row['package__name']} {row[name]}",
                f"{row['count']} live {model.__name__.lower()}s have this name",
            )
        run.seen(model.objects.filter(removed_revision=None).count())


def tag_targets(run: _Run) -> None:
    """A live tag points to a live version of its own package. Repair: none; removing or moving it is a decision."""
    wrong = Tag.objects.filter(removed_revision=None).filter(
        Q(version__removed_revision__isnull=False) | ~Q(version__package_id=F("package_id"))
    )
    for page in _pages(wrong.select_related("package__repository", "version")):
        for row in page:
            run.problem(
                f"{row.package.repository.key} {row.package.name}:{row.name}",
                f"the tag points to '{row.version.name}', which is not a live version of its package",
            )
    run.seen(Tag.objects.filter(removed_revision=None).count())


def version_parts(run: _Run) -> None:
    """The files that a live version names are live files of its package. Repair: none; upload the files again."""
    wrong = VersionArtifact.objects.filter(version__removed_revision=None).filter(
        Q(artifact__removed_revision__isnull=False) | ~Q(artifact__package_id=F("version__package_id"))
    )
    for page in _pages(wrong.select_related("version__package__repository", "artifact")):
        for row in page:
            version = row.version
            name = f"{version.package.repository.key} {version.package.name} {version.name}"
            run.problem(
                name, f"it names the file '{row.artifact.path}', which is not a live file of its package", [name]
            )
    run.seen(Version.objects.filter(removed_revision=None).count())


def owned_files(run: _Run) -> None:
    """A live file of a format whose versions own their files is named by a live version of its package.

    Without one it can be fetched by its address, and no listing shows it. Repair: in a remote it is closed, for it is only
    a copy and will be fetched again. In a local repository none: closing it would begin its end. Publishing the same bytes
    again gives it to its version. Where files are published one by one, those of a local repository may wait for theirs.
    """
    owning = [name for name, handler in handlers().items() if handler.versions_own_files]
    waiting = [name for name, handler in handlers().items() if handler.files_may_wait]
    naming = VersionArtifact.objects.filter(
        artifact=OuterRef("pk"), version__removed_revision=None, version__package=OuterRef("package")
    )
    live = Artifact.objects.filter(removed_revision=None, package__repository__format__in=owning)
    # A repository that is being deleted loses its versions first.
    lone = live.filter(~Exists(naming)).exclude(package__repository__state=Repository.State.DELETING)
    lone = lone.exclude(package__repository__format__in=waiting, package__repository__type=Repository.Type.LOCAL)
    for page in _pages(lone.select_related("package__repository")):
        for row in page:
            package = row.package
            name = f"{package.repository.key} {package.name} {row.path}"
            is_copy = package.repository.type == Repository.Type.REMOTE
            repair = (lambda row=row: _close_file(row)) if is_copy else None  # type: ignore[misc]
            run.problem(name, "no live version of its package names it", [name], repair=repair)
    run.seen(live.count())


def _close_file(row: Artifact) -> bool:
    try:
        delete.remove_file(row.package.repository, system_actor("fsck"), FileRef(row.package.name, row.path))
    except FileNotFound:
        pass  # gone since it was found
    return True


def companions(run: _Run) -> None:
    """A live file that speaks of another file's bytes stands beside no other bytes. Repair: none; which of the two is right
    is a decision."""
    speaking = Artifact.objects.filter(removed_revision=None, metadata__has_key=ABOUT)
    for page in _pages(speaking.select_related("package__repository")):
        for row in page:
            for path, digest in about_of(row.metadata).items():
                beside = Artifact.objects.filter(package=row.package, path=path, removed_revision=None)
                if beside.exclude(blob__digest=digest).exists():
                    name = f"{row.package.repository.key} {row.package.name} {row.path}"
                    run.problem(name, f"it speaks of other bytes than '{path}' has", [name])
        run.seen(len(page))


def burned_names(run: _Run) -> None:
    """What is burned in a local repository, a version's or a file's name by its format, is not live there.

    Repair: where the very content that was burned is live again, the burn is lifted; removing it burns it anew. None where
    other content took the name: which of the two is right is a decision.
    """
    for kind, names in (("version", "name"), ("file", "path")):
        model: Any = Version if kind == "version" else Artifact
        formats = [name for name, handler in handlers().items() if handler.burns == kind]
        rows = Burned.objects.filter(
            package__repository__format__in=formats, package__repository__type=Repository.Type.LOCAL
        )
        live = model.objects.filter(package=OuterRef("package"), removed_revision=None, **{names: OuterRef("name")})
        for page in _pages(rows.filter(Exists(live)).select_related("package__repository")):
            for row in page:
                is_same = row.digest == "" or row.digest in _digests_of(row, kind)
                run.problem(
                    f"{row.package.repository.key} {row.package.name} {row.name}",
                    f"this {kind} is live although its name is burned"
                    + ("" if is_same else f", and it is not what was there (sha256:{row.digest})"),
                    repair=_lifter(row) if is_same else None,
                )
        run.seen(rows.count())


def _digests_of(row: Burned, kind: str) -> set[str]:
    """What stands under the burned name now."""
    if kind == "file":
        files = Artifact.objects.filter(package=row.package_id, path=row.name)
    else:
        named = Version.objects.filter(package=row.package_id, name=row.name, removed_revision=None)
        files = Artifact.objects.filter(versions__in=named)
    return set(files.filter(removed_revision=None).values_list("blob__digest", flat=True))


def _lifter(row: Burned) -> Callable[[], bool]:
    return lambda: write(lambda: Burned.objects.filter(pk=row.pk, burned_at=row.burned_at).delete()[0]) == 1


def revisions(run: _Run) -> None:
    """A repository's revision is at least that of any change stamped in it; a row's removal comes after it was added,
    and has a time exactly if it has a revision. Repair: the revision is raised."""
    for page in _pages(Repository.objects.all()):
        for row in page:
            highest = _highest(row.pk)
            if highest > row.revision:
                current = Repository.objects.filter(pk=row.pk).first()
                if current is not None and highest > current.revision:
                    run.problem(
                        row.key,
                        f"its revision is {current.revision}, but content is stamped {highest}",
                        repair=lambda row=row: write(lambda: _raise_revision(row.pk)),  # type: ignore[misc]
                    )
        run.seen(len(page))
    odd = (
        Q(removed_revision__isnull=True, removed_at__isnull=False)
        | Q(removed_revision__isnull=False, removed_at__isnull=True)
        | Q(removed_revision__lt=F("added_revision"))
    )
    for model in (Artifact, Version, Tag):
        for found in _pages(model.objects.filter(odd).select_related("package__repository")):
            for one in found:
                run.problem(
                    f"{one.package.repository.key} {one.package.name} {model.__name__.lower()} {one.pk}",
                    f"it was added at {one.added_revision} and removed at {one.removed_revision} ({one.removed_at})",
                )


def package_revisions(run: _Run) -> None:
    """A package's revision is at least that of every row stamped in it, and at most its repository's.

    Documents about the package are kept until it moves, so one behind its rows would hide them. Repair: the package's
    revision is raised to the highest stamp in it; the repository's to the package's.
    """
    for page in _pages(Package.objects.all()):
        # One statement is one snapshot: rows and their package's revision come together.
        odd = (
            Package.objects.filter(pk__in=[row.pk for row in page])
            .annotate(highest=_highest_stamp())
            .filter(Q(revision__lt=F("highest")) | Q(revision__gt=F("repository__revision")))
        )
        for row in odd.select_related("repository"):
            if row.revision < row.highest:
                message = f"its revision is {row.revision}, but content in it is stamped {row.highest}"
            else:
                message = f"its revision is {row.revision}, but its repository's is {row.repository.revision}"
            run.problem(
                f"{row.repository.key} {row.name}",
                message,
                repair=lambda row=row: write(lambda: _raise_package(row)),  # type: ignore[misc]
            )
        run.seen(len(page))


def _highest_stamp() -> Any:
    """Of the package's rows, as an expression."""
    stamps = [
        Coalesce(
            Subquery(
                model.objects.filter(package=OuterRef("pk"))
                .order_by()
                .values("package")
                .annotate(highest=Max(column))
                .values("highest"),
                output_field=BigIntegerField(),
            ),
            0,
        )
        for model in (Artifact, Version, Tag)
        for column in ("added_revision", "removed_revision")
    ]
    return Greatest(*stamps)


def _raise_package(row: Package) -> bool:
    list(for_update(Repository.objects.filter(pk=row.repository_id), skip_locked=False))
    current = Package.objects.annotate(highest=_highest_stamp()).filter(pk=row.pk).first()
    if current is not None:
        revision = max(current.revision, current.highest)
        Package.objects.filter(pk=row.pk).update(revision=revision, changed_at=clock.now())
        Repository.objects.filter(pk=row.repository_id).update(revision=Greatest(F("revision"), revision))
    return True


def _highest(repository_id: int) -> int:
    """The highest revision stamped on anything in the repository."""
    highest = 0
    for model in (Artifact, Version, Tag):
        found = model.objects.filter(package__repository_id=repository_id).aggregate(
            added=Max("added_revision"), removed=Max("removed_revision")
        )
        highest = max(highest, found["added"] or 0, found["removed"] or 0)
    return highest


def _raise_revision(repository_id: int) -> bool:
    list(for_update(Repository.objects.filter(pk=repository_id), skip_locked=False))
    Repository.objects.filter(pk=repository_id).update(revision=Greatest(F("revision"), _highest(repository_id)))
    return True


# --- uploads ---------------------------------------------------------------------------------------------------------


def uploads(run: _Run) -> None:
    """An upload session's kept bytes are in the store, as many as its offset says.

    Sessions used in the last two minutes are left alone. Repair: a session whose bytes are lost is ended, as its next
    request would find it; its reservation is given back.
    """
    idle = clock.now() - datetime.timedelta(seconds=IDLE_SECONDS)
    rows = Upload.objects.filter(touched_at__lt=idle).filter(Q(lease="") | Q(leased_until__lt=idle))
    for page in _pages(rows.select_related("repository")):
        for row in page:
            fault = _upload_fault(row)
            if fault and Upload.objects.filter(pk=row.pk, resume=row.resume, lease=row.lease).exists():
                run.problem(
                    f"upload {row.pk} in {row.repository.key} {row.package}",
                    fault,
                    repair=lambda row=row: write(lambda: _end_upload(row)),  # type: ignore[misc]
                )
        run.seen(len(page))


def _upload_fault(row: Upload) -> str:
    if not row.resume:
        return f"it stands at {row.offset}, but keeps no bytes" if row.offset else ""
    try:
        sink = store.driver().sink(row.resume)
    except SinkBusy:
        return ""
    except SinkLost:
        if upload.finished_bytes(row) is not None:
            return ""  # the request that finished it was killed; repeating it goes on from there
        return f"it stands at {row.offset}, but its bytes are lost"
    size = sink.size
    try:
        again = sink.suspend(durable=False)
    except StoreError as error:
        raise Unavailable("the blob store failed while an upload was looked at") from error
    if again != row.resume:  # a store whose tokens change: the old one stays good until the new one is used
        write(lambda: Upload.objects.filter(pk=row.pk, resume=row.resume).update(resume=again))
    return f"it stands at {row.offset}, but only {size} bytes are kept" if size < row.offset else ""


def _end_upload(row: Upload) -> bool:
    current = for_update(Upload.objects.filter(pk=row.pk, resume=row.resume, lease=row.lease)).first()
    if current is None:
        return True
    Upload.objects.filter(pk=row.pk).delete()
    upload.note_end(row.pk)
    quota.charge(row.repository.namespace_id, reserved=-current.reserved)
    return True


# --- upstreams -------------------------------------------------------------------------------------------------------


def upstream_documents(run: _Run) -> None:
    """What is kept of an upstream's listing unpacks, and has the digest that its mark says.

    Repair: the row is dropped. It is only a cache; the upstream is asked again.
    """
    for page in _pages(UpstreamDocument.objects.defer("records").select_related("repository")):
        for row in page:
            current = UpstreamDocument.objects.filter(pk=row.pk).first()
            if current is not None and (fault := _document_fault(current)):
                same = UpstreamDocument.objects.filter(pk=row.pk, checked_at=current.checked_at)
                if handler_for(row.repository.format).is_indexed:  # what names it is read anew with it
                    same = UpstreamDocument.objects.filter(Q(pk__in=same) | Q(repository=row.repository, key=INDEX_KEY))
                run.problem(
                    f"{row.repository.key} {row.key}",
                    fault,
                    repair=lambda same=same: write(lambda: same.delete()[0]) > 0,  # type: ignore[misc]
                )
        run.seen(len(page))


def _document_fault(row: UpstreamDocument) -> str:
    if row.key.startswith(("tag:", "version:", "file:")):
        return ""  # validators alone
    try:
        plain = zlib.decompress(bytes(row.records or b""))
    except zlib.error:
        return "its records do not unpack"
    return "" if Digest.of(plain).hex == row.mark else "its records are not those of its mark"


def claims(run: _Run) -> None:
    """A claim of a fetch ends with the fetch, or a moment after its process died.

    One that is long over keeps nobody from fetching: it is only counted, in the notice `old_claims`, and the job
    `expire_uploads` removes it.
    """
    old = clock.now() - datetime.timedelta(seconds=OLD_CLAIM_SECONDS)
    for page in _pages(Fill.objects.all()):
        for row in page:
            if row.until < old:
                run.notice("old_claims", row.key)
        run.seen(len(page))


CHECKS: tuple[Callable[[_Run], None], ...] = (
    blob_bytes,
    object_rows,
    tombstones,
    holdings_present,
    holdings_needed,
    used_bytes,
    reserved_bytes,
    live_once,
    tag_targets,
    version_parts,
    owned_files,
    companions,
    burned_names,
    revisions,
    package_revisions,
    uploads,
    upstream_documents,
    claims,
)


def descriptions() -> Mapping[str, str]:
    """Each check's name and the invariant it holds, for people."""
    return {check.__name__: " ".join((check.__doc__ or "").split()) for check in CHECKS}
