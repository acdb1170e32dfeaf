"""Which source answers for a repository."""

from __future__ import annotations

from repoman.catalog.models import Repository
from repoman.core.actor import Actor

from .base import Asked, Source
from .local import LocalSource
from .remote import RemoteSource
from .virtual import VirtualSource


def source_for(repository: Repository, asked: Asked, *, on_behalf_of: Actor | None = None) -> Source:
    """`on_behalf_of`: who wants to know what the asking actor gets, where that is somebody else."""
    match repository.type:
        case Repository.Type.REMOTE:
            return RemoteSource(repository, asked)
        case Repository.Type.VIRTUAL:
            return VirtualSource(repository, asked, on_behalf_of=on_behalf_of)
    return LocalSource(repository)
