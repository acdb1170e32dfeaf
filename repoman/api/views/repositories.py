"""Repositories, what they hold, and why somebody may or may not use them."""

from __future__ import annotations

import dataclasses
from typing import Any

from django.db.models import QuerySet
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from repoman.access import permissions
from repoman.catalog.models import Repository as RepositoryRow
from repoman.core.actor import Action
from repoman.core.errors import BadRequest
from repoman.core.format import handlers
from repoman.services import contents, repositories
from repoman.services.handle import VIRTUAL_OPTIONS, own_options
from repoman.services.undelete import undelete
from repoman.sources.state import trouble_of

from ..base import ApiView, Parameter, call
from ..bodies import LARGEST, Body, Flag, Free, Text, Whole

FORCE = Parameter("force", "Also when it is a member of virtual repositories: take it out of them.", bool)
PACKAGE = Parameter("package", "The package's name.", required=True)
VERSION = Parameter("version", "A version; for images a tag or a digest.")
PURGE = Parameter("purge", "Skip the trash, so that the bytes no longer count; for owners.", bool)


class RepositoryShown(serializers.Serializer[Any]):
    namespace = serializers.CharField()
    name = serializers.CharField()
    key = serializers.CharField()
    format = serializers.CharField()
    type = serializers.CharField()
    url = serializers.CharField(help_text="The base address that a client is given.")
    description = serializers.CharField()
    anonymous_read = serializers.BooleanField()
    state = serializers.CharField()
    options = serializers.DictField()
    remote = serializers.DictField(allow_null=True)
    upstream_trouble = serializers.DictField(
        allow_null=True, help_text="What was wrong when the upstream was asked last: error, status, since."
    )
    members = serializers.ListField(child=serializers.CharField())
    deploy_target = serializers.CharField(allow_null=True)
    revision = serializers.IntegerField()
    created_at = serializers.DateTimeField()


_READ_ONLY = frozenset(
    {"namespace", "key", "url", "revision", "created_at", "created_by", "owner", "tenant", "size", "upstream_trouble"}
)


class RepositoryNew(Body):
    fixed = _READ_ONLY | {"state"}
    name = Text(max_length=200)
    format = Text(max_length=32)
    type = Text(max_length=8)
    description = Text(lines=True, max_length=10_000, required=False, allow_blank=True)
    anonymous_read = Flag(required=False)
    options = Free(required=False)
    remote = Free(required=False, allow_null=True)
    members = serializers.ListField(child=Text(max_length=127), required=False, max_length=1000)
    deploy_target = Text(max_length=127, required=False, allow_null=True)


class RepositoryChange(Body):
    fixed = _READ_ONLY | {"name", "format", "type"}
    description = Text(lines=True, max_length=10_000, required=False, allow_blank=True)
    anonymous_read = Flag(required=False)
    state = Text(max_length=16, required=False, help_text="active or read_only")
    options = Free(required=False, help_text="Merged; null takes one back to its default.")
    remote = Free(required=False, help_text="Merged; null clears, an absent password stays.")
    members = serializers.ListField(child=Text(max_length=127), required=False, max_length=1000)
    deploy_target = Text(max_length=127, required=False, allow_null=True)


def show_repository(row: RepositoryRow, base_url: str, seen: QuerySet[RepositoryRow]) -> dict[str, Any]:
    """`seen`: what the actor may know of; other members are left out."""
    handler = handlers().get(row.format)
    is_virtual = row.type == RepositoryRow.Type.VIRTUAL
    members: list[str] = []
    if is_virtual:
        keys = row.members.filter(member__in=seen).order_by("position").values_list("member__key", flat=True)
        members = list(keys)
    target = row.deploy_target.key if is_virtual and row.deploy_target is not None else None
    remote = None
    if row.remote is not None:
        remote = {name: value for name, value in row.remote.items() if name not in ("password", "generation")}
    options = dict(row.options)
    if handler is not None:
        options = dataclasses.asdict(handler.parse_options(own_options(row)))
        if is_virtual:
            options |= {**VIRTUAL_OPTIONS, **row.options}
    return {
        "namespace": row.namespace.name,
        "name": row.name,
        "key": row.key,
        "format": row.format,
        "type": row.type,
        "url": handler.client_url(base_url, row.key) if handler is not None else "",
        "description": row.description,
        "anonymous_read": row.anonymous_read,
        "state": row.state,
        "options": options,
        "remote": remote,
        "upstream_trouble": trouble_of(row) if row.remote is not None else None,
        "members": members,
        "deploy_target": target if target in members else None,
        "revision": row.revision,
        "created_at": row.created_at,
    }


class _Shows(ApiView):
    def _page(self, list_name: str, rows: QuerySet[RepositoryRow]) -> Response:
        ordered, seen = rows.order_by("key"), permissions.visible(self.actor)
        return self.page(
            list_name,
            [str],
            lambda after, limit: (ordered.filter(key__gt=after) if after else ordered)[:limit],
            lambda row: [row.key],
            RepositoryShown,
            lambda row: show_repository(row, self.base_url, seen),
        )

    def _one(self, row: RepositoryRow, status: int = 200) -> Response:
        shown = show_repository(row, self.base_url, permissions.visible(self.actor))
        return self.answer(RepositoryShown(shown).data, status)


class Repositories(_Shows):
    @call("repositories_list", "Repositories that you may know of", Action.MANAGE, answer=RepositoryShown, is_list=True)
    def get(self, request: Request) -> Response:
        return self._page("repositories", repositories.repositories(self.actor))


class NamespaceRepositories(_Shows):
    target = "namespace"

    @call(
        "namespaces_repositories_list",
        "Repositories of a namespace",
        Action.READ,
        answer=RepositoryShown,
        is_list=True,
    )
    def get(self, request: Request, namespace: str) -> Response:
        return self._page("namespace_repositories", repositories.repositories(self.actor, self.namespace))

    @call(
        "namespaces_repositories_create",
        "Create a repository",
        Action.MANAGE,
        body=RepositoryNew,
        answer=RepositoryShown,
        status=201,
    )
    def post(self, request: Request, namespace: str) -> Response:
        return self._one(repositories.create_repository(self.actor, namespace, **self.body(RepositoryNew)), 201)


class Repository(_Shows):
    target = "repository"
    manage_sees = True

    @call("repositories_retrieve", "One repository", Action.READ, answer=RepositoryShown)
    def get(self, request: Request, namespace: str, name: str) -> Response:
        return self._one(self.repository)

    @call("repositories_update", "Change a repository", Action.MANAGE, body=RepositoryChange, answer=RepositoryShown)
    def patch(self, request: Request, namespace: str, name: str) -> Response:
        changes = self.body(RepositoryChange, partial=True)
        return self._one(repositories.update_repository(self.actor, self.repository.key, changes))

    @call(
        "repositories_delete",
        "Delete a repository and what it holds",
        Action.MANAGE,
        status=204,
        parameters=[FORCE],
    )
    def delete(self, request: Request, namespace: str, name: str) -> Response:
        repositories.delete_repository(self.actor, self.repository.key, force=self.flag("force"))
        return self.answer(status=204)


# --- what it holds ---------------------------------------------------------------------------------------------------


class PackageShown(serializers.Serializer[Any]):
    name = serializers.CharField()


class VersionShown(serializers.Serializer[Any]):
    version = serializers.CharField()
    tags = serializers.ListField(child=serializers.CharField())
    bytes = serializers.IntegerField()
    media_type = serializers.CharField()
    artifact_type = serializers.CharField()
    subject = serializers.CharField()
    published_at = serializers.DateTimeField()
    uploaded_by = serializers.CharField()
    revision = serializers.IntegerField()
    yanked = serializers.BooleanField()
    deprecated = serializers.CharField()


class VersionChange(Body):
    fixed = frozenset({"version", "tags", "bytes", "published_at", "uploaded_by", "revision"})
    yanked = Flag(required=False)
    yanked_reason = Text(max_length=1000, required=False, allow_blank=True)
    deprecated = Text(max_length=1000, required=False, allow_blank=True, allow_null=True)


class FileShown(serializers.Serializer[Any]):
    name = serializers.CharField()
    bytes = serializers.IntegerField()
    digest = serializers.CharField()
    media_type = serializers.CharField()
    published_at = serializers.DateTimeField()
    uploaded_by = serializers.CharField()


class Packages(ApiView):
    target = "repository"

    @call(
        "contents_packages_list",
        "Packages of a repository",
        Action.READ,
        answer=PackageShown,
        is_list=True,
        parameters=[Parameter("q", "Only names that contain this.")],
    )
    def get(self, request: Request, namespace: str, name: str) -> Response:
        return self.page(
            "packages",
            [str],
            lambda after, limit: contents.packages(
                self.actor, self.repository, q=self.parameter("q"), after=after or "", limit=limit
            ),
            lambda item: [item.name],
            PackageShown,
            dataclasses.asdict,
        )


class Versions(ApiView):
    target = "repository"

    @call(
        "contents_versions_list",
        "Versions of a package, the newest first",
        Action.READ,
        answer=VersionShown,
        is_list=True,
        parameters=[PACKAGE, VERSION],
    )
    def get(self, request: Request, namespace: str, name: str) -> Response:
        return self.page(
            "versions",
            [int, str],
            lambda after, limit: contents.versions(
                self.actor,
                self.repository,
                self.parameter("package"),
                version=self.parameter("version"),
                after=after,
                limit=limit,
            ),
            lambda item: [item.revision, item.version],
            VersionShown,
            dataclasses.asdict,
        )

    @call(
        "contents_versions_update",
        "Yank or deprecate a version, where the format has it",
        Action.PUBLISH,
        body=VersionChange,
        answer=VersionShown,
        parameters=[PACKAGE, dataclasses.replace(VERSION, required=True)],
    )
    def patch(self, request: Request, namespace: str, name: str) -> Response:
        changes = self.body(VersionChange, partial=True)
        package, version = self.parameter("package"), self.parameter("version")
        shown = contents.annotate_version(self.actor, self.repository, package, version, changes)
        return self.answer(VersionShown(dataclasses.asdict(shown)).data)

    @call(
        "contents_versions_delete",
        "Remove a version; by a tag of an image only the tag",
        Action.DELETE,
        status=204,
        parameters=[PACKAGE, VERSION, Parameter("all", "Everything in the package.", bool), PURGE],
    )
    def delete(self, request: Request, namespace: str, name: str) -> Response:
        contents.remove_versions(
            self.actor,
            self.repository,
            self.parameter("package"),
            version=self.parameter("version"),
            everything=self.flag("all"),
            purge=self.flag("purge"),
        )
        return self.answer(status=204)


class Files(ApiView):
    target = "repository"

    @call(
        "contents_files_list",
        "Files of a package or of one of its versions",
        Action.READ,
        answer=FileShown,
        is_list=True,
        parameters=[PACKAGE, VERSION, Parameter("name", "Only the file of this name.")],
    )
    def get(self, request: Request, namespace: str, name: str) -> Response:
        return self.page(
            "files",
            [str],
            lambda after, limit: contents.files(
                self.actor,
                self.repository,
                self.parameter("package"),
                version=self.parameter("version"),
                name=self.parameter("name"),
                after=after or "",
                limit=limit,
            ),
            lambda item: [item.name],
            FileShown,
            dataclasses.asdict,
        )

    @call(
        "contents_files_delete",
        "Remove a file",
        Action.DELETE,
        status=204,
        parameters=[PACKAGE, VERSION, Parameter("name", "Which file; not needed where files are packages."), PURGE],
    )
    def delete(self, request: Request, namespace: str, name: str) -> Response:
        contents.remove_file(
            self.actor,
            self.repository,
            self.parameter("package"),
            name=self.parameter("name"),
            purge=self.flag("purge"),
        )
        return self.answer(status=204)


# --- undelete, explain -----------------------------------------------------------------------------------------------


class UndeleteAsked(Body):
    revision = Whole(min_value=1, max_value=LARGEST, help_text="The revision that removed it.")


class UndeleteShown(serializers.Serializer[Any]):
    revision = serializers.IntegerField(allow_null=True, help_text="The new revision; null: nothing came back.")
    restored = serializers.ListField(child=serializers.DictField())
    skipped = serializers.ListField(child=serializers.DictField())


class Undelete(ApiView):
    target = "repository"

    @call(
        "repositories_undelete",
        "Bring back what a revision removed",
        Action.DELETE,
        body=UndeleteAsked,
        answer=UndeleteShown,
    )
    def post(self, request: Request, namespace: str, name: str) -> Response:
        revision = self.body(UndeleteAsked)["revision"]
        return self.answer(UndeleteShown(dataclasses.asdict(undelete(self.repository, revision, self.actor))).data)


class ExplainShown(serializers.Serializer[Any]):
    actor = serializers.CharField()
    action = serializers.CharField()
    repository = serializers.CharField()
    path = serializers.CharField()
    allowed = serializers.BooleanField()
    grants = serializers.ListField(child=serializers.DictField())
    reasons = serializers.ListField(child=serializers.CharField())
    sources = serializers.ListField(
        child=serializers.DictField(),
        required=False,
        help_text="With a path that may be read: which repositories have a say, in the order they are asked.",
    )


_EXPLAINED = (Action.READ, Action.PUBLISH, Action.DELETE, Action.MANAGE)


class Explain(ApiView):
    target = "repository"
    manage_sees = True

    @call(
        "repositories_explain",
        "Why somebody may or may not do something here; about others only for owners",
        Action.READ,
        answer=ExplainShown,
        parameters=[
            Parameter("actor", "A user name, or anonymous; yourself if not given."),
            Parameter("action", f"One of {', '.join(_EXPLAINED)}; read if not given."),
            Parameter("path", "What it is about: what follows the repository in its address, as clients ask for it."),
        ],
    )
    def get(self, request: Request, namespace: str, name: str) -> Response:
        action = self.parameter("action") or Action.READ
        if action not in _EXPLAINED:
            raise BadRequest(f"parameter 'action' must be one of {', '.join(_EXPLAINED)}")
        said = repositories.explain(
            self.actor,
            self.repository.key,
            subject=self.parameter("actor") or None,
            action=Action(action),
            path=self.parameter("path"),
        )
        return self.answer(ExplainShown(said).data)
