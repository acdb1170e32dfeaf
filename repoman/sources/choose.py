"""Which source answers for a repository."""

from __future__ import annotations

from repoman.catalog.models import Repository

from .base import Asked, Source
from .local import LocalSource
from .remote import RemoteSource
from .virtual import VirtualSource


def source_for(repository: Repository, asked: Asked) -> Source:
    match repository.type:
        case Repository.Type.REMOTE:
            return RemoteSource(repository, asked)
        case Repository.Type.VIRTUAL:
            return VirtualSource(repository, asked)
    return LocalSource(repository)
