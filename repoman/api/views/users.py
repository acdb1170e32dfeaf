"""Users, and the tokens with which they act."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from repoman.access import tokens as api_tokens
from repoman.access.models import Principal, Token
from repoman.catalog.models import Repository
from repoman.core.actor import Action
from repoman.services import accounts

from ..base import ApiView, call
from ..bodies import Body, Choice, Flag, Text, Whole

PASSWORD_MEANING = "8 characters to 1024 bytes."


class UserShown(serializers.Serializer[Any]):
    username = serializers.CharField()
    email = serializers.CharField()
    is_admin = serializers.BooleanField()
    disabled = serializers.BooleanField()
    created_at = serializers.DateTimeField()


class UserNew(Body):
    fixed = frozenset({"disabled", "created_at"})
    username = Text(max_length=128)
    password = Text(max_length=1024, write_only=True, help_text=PASSWORD_MEANING)
    email = Text(max_length=254, required=False, allow_blank=True)
    is_admin = Flag(required=False)


class UserChange(Body):
    fixed = frozenset({"username", "created_at"})
    password = Text(max_length=1024, write_only=True, required=False, help_text=PASSWORD_MEANING)
    email = Text(max_length=254, required=False, allow_blank=True)
    is_admin = Flag(required=False)
    disabled = Flag(required=False)


def show_user(row: Principal) -> dict[str, Any]:
    return {
        "username": row.username,
        "email": row.email,
        "is_admin": row.is_admin,
        "disabled": row.is_disabled,
        "created_at": row.created_at,
    }


class Users(ApiView):
    @call("users_list", "Users: all for administrators, else yourself", Action.MANAGE, answer=UserShown, is_list=True)
    def get(self, request: Request) -> Response:
        rows = accounts.users(self.actor).order_by("username")
        return self.page(
            "users",
            [str],
            lambda after, limit: (rows.filter(username__gt=after) if after else rows)[:limit],
            lambda row: [row.username],
            UserShown,
            show_user,
        )

    @call(
        "users_create", "Create a user", Action.MANAGE, body=UserNew, answer=UserShown, status=201, is_admin_only=True
    )
    def post(self, request: Request) -> Response:
        row = accounts.create_user(self.actor, **self.body(UserNew))
        return self.answer(UserShown(show_user(row)).data, 201)


class User(ApiView):
    @call("users_retrieve", "One user", Action.MANAGE, answer=UserShown)
    def get(self, request: Request, username: str) -> Response:
        return self.answer(UserShown(show_user(accounts.user(self.actor, username))).data)

    @call(
        "users_update", "Change a user; yourself: e-mail and password", Action.MANAGE, body=UserChange, answer=UserShown
    )
    def patch(self, request: Request, username: str) -> Response:
        accounts.user(self.actor, username)
        row = accounts.update_user(self.actor, username, self.body(UserChange, partial=True))
        return self.answer(UserShown(show_user(row)).data)

    @call("users_delete", "Delete a user", Action.MANAGE, status=204, is_admin_only=True)
    def delete(self, request: Request, username: str) -> Response:
        accounts.delete_user(self.actor, username)
        return self.answer(status=204)


class TokenShown(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    name = serializers.CharField()
    hint = serializers.CharField(help_text="How the token begins.")
    actions = serializers.ListField(child=serializers.CharField())
    repositories = serializers.ListField(
        child=serializers.CharField(), allow_null=True, help_text="null: all that you may use."
    )
    created_at = serializers.DateTimeField()
    expires_at = serializers.DateTimeField(allow_null=True)
    last_used_at = serializers.DateTimeField(allow_null=True)


class TokenMade(TokenShown):
    token = serializers.CharField(help_text="Shown this once.")


class TokenNew(Body):
    fixed = frozenset({"id", "hint", "token", "created_at", "expires_at", "last_used_at", "principal", "owner"})
    name = Text(max_length=128)
    expires_in = Whole(
        required=False, min_value=1, max_value=api_tokens.LONGEST_LIFE_SECONDS, help_text="Seconds; 90 days."
    )
    repositories = serializers.ListField(child=Text(max_length=127), required=False, allow_null=True, max_length=1000)
    actions = serializers.ListField(
        child=Choice(choices=[str(action) for action in api_tokens.ACTIONS]), required=False, max_length=10
    )


def _keys(rows: list[Token]) -> dict[int, str]:
    ids = {one for row in rows for one in row.repositories or ()}
    found = Repository.objects.filter(pk__in=ids).exclude(state=Repository.State.DELETING)
    return dict(found.values_list("pk", "key"))


def show_token(row: Token, keys: dict[int, str]) -> dict[str, Any]:
    return {
        "id": row.pk,
        "name": row.name,
        "hint": row.hint,
        "actions": row.actions,
        "repositories": None if row.repositories is None else sorted(keys[i] for i in row.repositories if i in keys),
        "created_at": row.created_at,
        "expires_at": row.expires_at,
        "last_used_at": row.last_used_at,
    }


class Tokens(ApiView):
    @call("tokens_list", "Your tokens", Action.MANAGE, answer=TokenShown, is_list=True)
    def get(self, request: Request) -> Response:
        rows = accounts.own_tokens(self.actor).order_by("name", "pk")
        keys: dict[int, str] = {}

        def fetch(after: tuple[str, int] | None, limit: int) -> list[Token]:
            later = rows
            if after is not None:
                later = rows.filter(name__gte=after[0]).exclude(name=after[0], pk__lte=after[1])
            found = list(later[:limit])
            keys.update(_keys(found))
            return found

        return self.page(
            "tokens", [str, int], fetch, lambda row: [row.name, row.pk], TokenShown, lambda row: show_token(row, keys)
        )

    @call(
        "tokens_create",
        "Make a token; it is shown this once",
        Action.MANAGE,
        body=TokenNew,
        answer=TokenMade,
        status=201,
    )
    def post(self, request: Request) -> Response:
        given = self.body(TokenNew)
        if "actions" in given:
            given["actions"] = frozenset(Action(action) for action in given["actions"])
        row, secret = accounts.create_token(self.actor, **given)
        return self.answer(TokenMade({**show_token(row, _keys([row])), "token": secret}).data, 201)


class OneToken(ApiView):
    @call("tokens_revoke", "Revoke a token, at once and everywhere", Action.MANAGE, status=204)
    def delete(self, request: Request, token_id: int) -> Response:
        accounts.revoke_token(self.actor, token_id)
        return self.answer(status=204)
