"""Documents name only what can be had: bytes that turn out to be lost leave them, and come back with the next upload."""

from __future__ import annotations

import os
from typing import Any

import pytest

from repoman.blobs import store
from repoman.blobs.models import Blob
from repoman.catalog import selectors
from repoman.core.actor import ALL_ACTIONS, Actor
from repoman.core.errors import FileNotFound
from repoman.core.records import NewFile, NewVersion, Publication
from repoman.core.refs import FileRef
from repoman.events.models import Event
from repoman.services import publish
from repoman.services.handle import RepositoryHandle

from .content import make_repository

pytestmark = pytest.mark.django_db(transaction=True)
WHEEL = "demo-1.0-py3-none-any.whl"


def upload(repository: Any, actor: Actor) -> None:
    files = {WHEEL: b"wheel", f"{WHEEL}.metadata": b"metadata"}
    new = tuple(NewFile(path, store.stage(data)) for path, data in files.items())
    version = NewVersion("1.0", files=tuple(files))
    publish.publish(repository, actor, ALL_ACTIONS, Publication("demo", files=new, version=version))


def paths(repository: Any) -> list[str]:
    found = selectors.versions(repository.pk, "demo")
    return [file.path for entry in (found.entries if found else ()) for file in entry.files]


def test_c5_pypi_17_4_what_is_lost_is_not_advertised_until_it_is_back(
    namespace: Any, blob_store: Any, actor: Actor
) -> None:
    repository = make_repository(namespace, "python", "pypi")
    upload(repository, actor)
    blob = Blob.objects.get(digest=store.stage(b"metadata").digest.hex)
    os.unlink(f"{blob_store.root}/{blob.storage_key}")
    before = selectors.package(repository.pk, "demo")
    entry = RepositoryHandle(actor, repository).open(FileRef("demo", f"{WHEEL}.metadata"))
    with pytest.raises(FileNotFound):
        store.reader(entry.blob)
    assert paths(repository) == [WHEEL]
    lost = selectors.package(repository.pk, "demo")
    assert before is not None and lost is not None and lost.revision > before.revision
    upload(repository, actor)
    assert paths(repository) == [WHEEL, f"{WHEEL}.metadata"]
    back = selectors.package(repository.pk, "demo")
    assert back is not None and back.revision > lost.revision
    kinds = list(Event.objects.filter(kind__startswith="blob:").order_by("pk").values_list("kind", flat=True))
    assert kinds == ["blob:suspect", "blob:healed"]
