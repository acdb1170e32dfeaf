"""What of an upstream's answers becomes rows, and what claims promise."""

from __future__ import annotations

import datetime
import hashlib
import threading
from pathlib import Path
from typing import Any

import orjson
import pytest

from repoman.blobs import store
from repoman.catalog.models import Artifact, Namespace, Repository
from repoman.core import clock
from repoman.core.actor import system_actor
from repoman.core.errors import NotFound, QuotaExceeded, Unavailable, UpstreamFailed
from repoman.core.fetch import NeedFetch, Outcome, Plan
from repoman.core.format import handler_for
from repoman.core.refs import FileRef, ListingRef
from repoman.services import fetches
from repoman.services.adopt import adopt
from repoman.sources import state
from repoman.sources.base import Asked
from repoman.sources.models import Fill, UpstreamDocument, UpstreamState
from repoman.sources.records import load_listing
from repoman.sources.remote import RECHECK_SECONDS, RemoteSource, document_key, is_here, plan_key

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def remote(namespace: Namespace) -> Repository:
    return make(namespace, "files", "generic")


def make(namespace: Namespace, name: str, format: str, **settings: Any) -> Repository:
    return Repository.objects.create(
        namespace=namespace,
        name=name,
        key=f"{namespace.name}/{name}",
        format=format,
        type=Repository.Type.REMOTE,
        remote={"url": "https://upstream.example/", "generation": 0, **settings},
        created_at=clock.now(),
    )


def plan_for(remote: Repository, ref: FileRef | ListingRef, kind: str = "file", generation: int = 0) -> Plan:
    key = plan_key(remote.pk, generation, "GET", ref)
    return Plan(remote.pk, key, kind, ref, "https://upstream.example/x", is_document=kind == "listing")


def came(plan: Plan, data: bytes, **headers: str) -> Outcome:
    if plan.is_document:
        return Outcome(plan, 200, headers, plan.url, body=data, size=len(data))
    return Outcome(plan, 200, headers, plan.url, staged=store.stage(data), size=len(data))


def page(name: str, content: bytes) -> bytes:
    file = {
        "filename": f"{name}-1.0.tar.gz",
        "url": f"https://files.example/{name}-1.0.tar.gz",
        "hashes": {"sha256": hashlib.sha256(content).hexdigest()},
        "size": len(content),
    }
    return orjson.dumps({"meta": {"api-version": "1.1"}, "name": name, "versions": ["1.0"], "files": [file]})


def test_a_file_and_what_says_that_it_is_current(blob_store: Any, remote: Repository) -> None:
    plan = plan_for(remote, FileRef("a.txt", "a.txt"))
    outcome = came(plan, b"one", etag='"1"')
    adopt(plan, outcome)
    assert outcome.error is None and outcome.staged is None
    row = UpstreamDocument.objects.get(repository=remote)
    assert row.key == document_key(plan.ref) and row.etag == '"1"' and row.fresh_until > clock.now()
    assert is_here(plan, handler_for("generic"))
    UpstreamDocument.objects.update(fresh_until=clock.now() - datetime.timedelta(seconds=1))
    assert not is_here(plan, handler_for("generic"))
    adopt(plan, Outcome(plan, 304, {"etag": '"1"'}))
    assert is_here(plan, handler_for("generic")), "a 304 makes it fresh again"
    assert UpstreamDocument.objects.get(repository=remote).etag == '"1"'


def test_K5_what_was_asked_under_other_settings_is_not_taken(blob_store: Any, remote: Repository) -> None:
    plan = plan_for(remote, FileRef("a.txt", "a.txt"))
    outcome = came(plan, b"of the old upstream")
    Repository.objects.filter(pk=remote.pk).update(remote={**(remote.remote or {}), "generation": 1})
    adopt(plan, outcome)
    assert isinstance(outcome.error, Unavailable)
    assert not Artifact.objects.exists() and not UpstreamDocument.objects.exists()
    assert list(blob_store.list()) == []
    assert fetches.prepare(plan, is_alone=True).is_outdated


def test_G13_listings_name_the_bytes_that_are_held(blob_store: Any, namespace: Namespace) -> None:
    remote = make(namespace, "python", "pypi")
    listing = plan_for(remote, ListingRef("versions", "demo"), "listing")
    adopt(listing, came(listing, page("demo", b"first"), **{"content-type": "application/vnd.pypi.simple.v1+json"}))
    file = plan_for(remote, FileRef("demo", "demo-1.0.tar.gz"))
    adopt(file, came(file, b"first"))
    for _ in range(2):
        changed = came(listing, page("demo", b"second"), **{"content-type": "application/vnd.pypi.simple.v1+json"})
        adopt(listing, changed)
        assert changed.error is None
    row = UpstreamDocument.objects.get(key=document_key(listing.ref))
    (entry,) = load_listing(row).entries
    assert entry.files[0].digests["sha256"] == hashlib.sha256(b"first").hexdigest()
    from repoman.events.models import Event

    assert Event.objects.filter(kind="upstream:changed").count() == 1


def test_V5_a_checksum_past_its_time_is_that_of_the_file_asked_for_anew(blob_store: Any, namespace: Namespace) -> None:
    """Who asks for the checksum first, as another remote does, gets that of the file it will get."""
    remote = make(namespace, "java", "maven")
    ref = FileRef("org.example:demo", "1-SNAPSHOT/demo-1-SNAPSHOT.jar")
    plan, beside = plan_for(remote, ref), plan_for(remote, FileRef(ref.package, f"{ref.path}.sha1"), "digest")
    adopt(plan, came(plan, b"one"))
    rows = UpstreamDocument.objects.filter(key=document_key(ref))
    outcomes = {beside.key: Outcome(beside, 404, error=NotFound("no"))}

    def told() -> str:
        return RemoteSource(remote, Asked(system_actor("test"), outcomes)).digest(ref, "sha256")

    rows.update(fresh_until=clock.now())
    assert told() == hashlib.sha256(b"one").hexdigest(), "just after the file was got"
    rows.update(checked_at=clock.now() - datetime.timedelta(seconds=RECHECK_SECONDS + 1))
    with pytest.raises(NeedFetch) as needed:
        told()
    (asked,) = needed.value.plans
    assert (asked.ref, asked.kind, asked.is_awaited) == (ref, "file", True)
    new = came(plan, b"two")
    adopt(plan, new)
    outcomes[plan.key] = new
    assert told() == hashlib.sha256(b"two").hexdigest()


def test_T3_a_fixed_file_that_nothing_measured_is_refused(blob_store: Any, namespace: Namespace) -> None:
    remote = make(namespace, "python", "pypi")
    plan = plan_for(remote, FileRef("demo", "demo-1.0.tar.gz"))
    outcome = came(plan, b"perhaps all")
    outcome.size = None
    adopt(plan, outcome)
    assert isinstance(outcome.error, UpstreamFailed) and not Artifact.objects.exists()
    assert list(blob_store.list()) == []


def test_A3_gone_is_forgotten_and_failed_is_not(blob_store: Any, remote: Repository) -> None:
    plan = plan_for(remote, FileRef("a.txt", "a.txt"))
    key = (remote.pk, 0, document_key(plan.ref))
    adopt(plan, came(plan, b"one"))
    adopt(plan, Outcome(plan, 500, error=UpstreamFailed("broken", reason="status")), seconds=3)
    assert UpstreamDocument.objects.exists() and state.failed_lately(*key) is not None
    adopt(plan, Outcome(plan, 404, error=NotFound("gone")))
    assert not UpstreamDocument.objects.exists() and state.is_known_absent(*key)
    assert state.failed_lately(*key) is None


def test_B7_trouble_is_the_upstream_s_and_ends_with_it(blob_store: Any, remote: Repository) -> None:
    plan = plan_for(remote, FileRef("a.txt", "a.txt"))
    adopt(plan, Outcome(plan, 200, error=QuotaExceeded("full")))
    assert state.trouble_of(remote) is None
    adopt(plan, Outcome(plan, 502, error=UpstreamFailed("broken", reason="status")))
    found = state.trouble_of(remote)
    assert found is not None and found["error"] == "broken" and found["status"] == 502
    # Another process (here: after a restart) sees that it is well again.
    state._noted.clear()
    adopt(plan, came(plan, b"one"))
    assert state.trouble_of(remote) is None and UpstreamState.objects.count() == 1


@pytest.mark.parametrize("kind", ["files", "rows"])
def test_G8_S1_one_of_many_gets_a_claim_and_the_others_hear_how_it_went(tmp_path: Path, kind: str) -> None:
    claims = fetches.FileClaims(tmp_path / "claims") if kind == "files" else fetches.RowClaims()
    taken: list[bool] = []

    def take() -> None:
        from django.db import connections

        taken.append(claims.take("1.0:GET:a")[0])
        connections.close_all()

    threads = [threading.Thread(target=take) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == [False] * 11 + [True]
    assert claims.look("1.0:GET:a") == (False, None)
    claims.renew("1.0:GET:a")
    full = QuotaExceeded("full", quota_bytes=5, namespace="team")
    claims.give_back("1.0:GET:a", full)
    is_over, error = claims.look("1.0:GET:a")
    assert is_over and isinstance(error, QuotaExceeded) and error.detail == full.detail
    is_ours, error = claims.take("1.0:GET:a")
    assert not is_ours and isinstance(error, QuotaExceeded)
    assert claims.take("1.0:GET:b") == (True, None)
    claims.give_back("1.0:GET:b", None)
    assert claims.look("1.0:GET:b") == (True, None)
    assert not Fill.objects.filter(key="1.0:GET:b").exists()
    assert claims.take("1.0:GET:b") == (True, None)
    claims.give_back("1.0:GET:b", None)
