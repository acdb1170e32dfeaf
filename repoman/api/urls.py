"""The addresses of the API, below /api/v1/. The first match wins; what matches nothing is a problem document too."""

from __future__ import annotations

from django.urls import URLPattern, path, re_path, register_converter

from .views.namespaces import (
    Namespace,
    NamespaceGrant,
    NamespaceGrants,
    Namespaces,
    RepositoryGrant,
    RepositoryGrants,
)
from .views.operations import Audit, Docs, Job, Jobs, Nothing, Schema
from .views.repositories import (
    Explain,
    Files,
    NamespaceRepositories,
    Packages,
    Repositories,
    Repository,
    Undelete,
    Versions,
)
from .views.users import OneToken, Tokens, User, Users


class _Word:
    def to_python(self, value: str) -> str:
        return value

    def to_url(self, value: str) -> str:
        return value


class KeyPart(_Word):
    regex = "[a-z0-9][a-z0-9._-]{0,62}"


class Username(_Word):
    regex = "[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}"


class Number:
    regex = "[0-9]{1,18}"

    def to_python(self, value: str) -> int:
        return int(value)

    def to_url(self, value: int) -> str:
        return str(value)


register_converter(KeyPart, "key_part")
register_converter(Username, "username")
register_converter(Number, "number")

_NAMESPACE = "namespaces/<key_part:namespace>"
_REPOSITORY = "repositories/<key_part:namespace>/<key_part:name>"

app_name = "api"
urlpatterns: list[URLPattern] = [
    path("users", Users.as_view()),
    path("users/<username:username>", User.as_view()),
    path("tokens", Tokens.as_view()),
    path("tokens/<number:token_id>", OneToken.as_view()),
    path("namespaces", Namespaces.as_view()),
    path(_NAMESPACE, Namespace.as_view()),
    path(f"{_NAMESPACE}/grants", NamespaceGrants.as_view()),
    path(f"{_NAMESPACE}/grants/<username:username>", NamespaceGrant.as_view()),
    path(f"{_NAMESPACE}/repositories", NamespaceRepositories.as_view()),
    path("repositories", Repositories.as_view()),
    path(_REPOSITORY, Repository.as_view()),
    path(f"{_REPOSITORY}/grants", RepositoryGrants.as_view()),
    path(f"{_REPOSITORY}/grants/<username:username>", RepositoryGrant.as_view()),
    path(f"{_REPOSITORY}/packages", Packages.as_view()),
    path(f"{_REPOSITORY}/versions", Versions.as_view()),
    path(f"{_REPOSITORY}/files", Files.as_view()),
    path(f"{_REPOSITORY}/undelete", Undelete.as_view()),
    path(f"{_REPOSITORY}/explain", Explain.as_view()),
    path("jobs", Jobs.as_view()),
    path("jobs/<number:job_id>", Job.as_view()),
    path("audit", Audit.as_view()),
    path("schema", Schema.as_view(), name="schema"),
    path("docs", Docs.as_view(url_name="api:schema"), name="docs"),
    re_path(r"", Nothing.as_view()),
]
