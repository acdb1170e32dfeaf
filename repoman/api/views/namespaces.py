"""Namespaces, and roles on them and on repositories."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from repoman.access import permissions
from repoman.access.models import Grant
from repoman.catalog.models import Namespace as NamespaceRow
from repoman.catalog.models import Repository
from repoman.core.actor import Action, Role
from repoman.services import accounts

from ..base import ApiView, call
from ..bodies import LARGEST, Body, Choice, Text, Whole


class NamespaceShown(serializers.Serializer[Any]):
    name = serializers.CharField()
    description = serializers.CharField()
    quota_bytes = serializers.IntegerField(allow_null=True, help_text="null: no limit.")
    used_bytes = serializers.IntegerField(help_text="Each blob once; trash included until it is purged.")
    reserved_bytes = serializers.IntegerField(help_text="Held by unfinished uploads.")
    created_at = serializers.DateTimeField()


_READ_ONLY = frozenset({"used_bytes", "reserved_bytes", "created_at", "created_by", "owner"})


class NamespaceNew(Body):
    fixed = _READ_ONLY
    name = Text(max_length=200)
    description = Text(lines=True, max_length=10_000, required=False, allow_blank=True)
    quota_bytes = Whole(required=False, allow_null=True, min_value=0, max_value=LARGEST)


class NamespaceChange(Body):
    fixed = _READ_ONLY | {"name"}
    description = Text(lines=True, max_length=10_000, required=False, allow_blank=True)
    quota_bytes = Whole(required=False, allow_null=True, min_value=0, max_value=LARGEST)


def show_namespace(row: NamespaceRow) -> dict[str, Any]:
    return {str(name): getattr(row, str(name)) for name in NamespaceShown().fields}


class Namespaces(ApiView):
    @call("namespaces_list", "Namespaces in which you have a role", Action.MANAGE, answer=NamespaceShown, is_list=True)
    def get(self, request: Request) -> Response:
        permissions.check_management(self.actor)
        rows = permissions.visible_namespaces(self.actor).order_by("name")
        return self.page(
            "namespaces",
            [str],
            lambda after, limit: (rows.filter(name__gt=after) if after else rows)[:limit],
            lambda row: [row.name],
            NamespaceShown,
            show_namespace,
        )

    @call(
        "namespaces_create",
        "Create a namespace; you will own it",
        Action.MANAGE,
        body=NamespaceNew,
        answer=NamespaceShown,
        status=201,
    )
    def post(self, request: Request) -> Response:
        row = accounts.create_namespace(self.actor, **self.body(NamespaceNew))
        return self.answer(NamespaceShown(show_namespace(row)).data, 201)


class Namespace(ApiView):
    target = "namespace"

    @call("namespaces_retrieve", "One namespace, with its usage", Action.READ, answer=NamespaceShown)
    def get(self, request: Request, namespace: str) -> Response:
        return self.answer(NamespaceShown(show_namespace(self.namespace)).data)

    @call(
        "namespaces_update",
        "Change a namespace; its quota only administrators",
        Action.MANAGE,
        body=NamespaceChange,
        answer=NamespaceShown,
    )
    def patch(self, request: Request, namespace: str) -> Response:
        changes = self.body(NamespaceChange, partial=True)
        row = accounts.update_namespace(self.actor, namespace, changes)
        return self.answer(NamespaceShown(show_namespace(row)).data)

    @call("namespaces_delete", "Delete a namespace without repositories", Action.MANAGE, status=204)
    def delete(self, request: Request, namespace: str) -> Response:
        accounts.delete_namespace(self.actor, namespace)
        return self.answer(status=204)


class GrantShown(serializers.Serializer[Any]):
    username = serializers.CharField()
    role = serializers.CharField()
    created_at = serializers.DateTimeField()


class GrantSet(Body):
    fixed = frozenset({"username", "created_at"})
    role = Choice(choices=[str(role) for role in Role])


def show_grant(row: Grant) -> dict[str, Any]:
    return {"username": row.principal.username, "role": row.role, "created_at": row.created_at}


class _Grants(ApiView):
    @property
    def on(self) -> NamespaceRow | Repository:
        return self.namespace if self.target == "namespace" else self.repository

    def _list(self) -> Response:
        rows = accounts.grants(self.actor, self.on).order_by("principal__username")
        return self.page(
            "grants",
            [str],
            lambda after, limit: (rows.filter(principal__username__gt=after) if after else rows)[:limit],
            lambda row: [row.principal.username],
            GrantShown,
            show_grant,
        )

    def _put(self, username: str) -> Response:
        role = Role(self.body(GrantSet)["role"])
        row, is_new = accounts.set_grant(self.actor, self.on, username, role)
        return self.answer(GrantShown(show_grant(row)).data, 201 if is_new else 200)

    def _delete(self, username: str) -> Response:
        accounts.remove_grant(self.actor, self.on, username)
        return self.answer(status=204)


class NamespaceGrants(_Grants):
    target = "namespace"

    @call("grants_namespace_list", "Roles on a namespace", Action.MANAGE, answer=GrantShown, is_list=True)
    def get(self, request: Request, namespace: str) -> Response:
        return self._list()


class NamespaceGrant(_Grants):
    target = "namespace"

    @call(
        "grants_namespace_set",
        "Give a role on a namespace; it replaces another",
        Action.MANAGE,
        body=GrantSet,
        answer=GrantShown,
        statuses=(200, 201),
    )
    def put(self, request: Request, namespace: str, username: str) -> Response:
        return self._put(username)

    @call("grants_namespace_remove", "Take a role on a namespace back", Action.MANAGE, status=204)
    def delete(self, request: Request, namespace: str, username: str) -> Response:
        return self._delete(username)


class RepositoryGrants(_Grants):
    target = "repository"

    @call("grants_repository_list", "Roles on one repository", Action.MANAGE, answer=GrantShown, is_list=True)
    def get(self, request: Request, namespace: str, name: str) -> Response:
        return self._list()


class RepositoryGrant(_Grants):
    target = "repository"

    @call(
        "grants_repository_set",
        "Give a role on one repository; it replaces another",
        Action.MANAGE,
        body=GrantSet,
        answer=GrantShown,
        statuses=(200, 201),
    )
    def put(self, request: Request, namespace: str, name: str, username: str) -> Response:
        return self._put(username)

    @call("grants_repository_remove", "Take a role on one repository back", Action.MANAGE, status=204)
    def delete(self, request: Request, namespace: str, name: str, username: str) -> Response:
        return self._delete(username)
