"""The token endpoint of the registry protocol (`/token`), as plain synchronous functions; the edge calls them.

GET with Basic credentials or none, and the OAuth2 POST form. Sources: distribution's docs/spec/auth/token.md, oauth.md
and scope.md. What is granted is what was asked for and is allowed right now; the rights are judged again at each use.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from repoman.access import permissions, registry_tokens
from repoman.access.authenticate import authenticate, by_refresh_token, sign_in
from repoman.catalog import selectors
from repoman.core.actor import Action, Actor
from repoman.core.errors import BadRequest, CredentialsInvalid
from repoman.core.wire import Query
from repoman.services import accounts

SCOPES_MOST = 100
NAME_MOST = 255
SCOPE_BYTES_MOST = 64 * 1024
_TYPE = re.compile(r"([a-z0-9]+)(?:\([a-z0-9]+\))?\Z")
_WORDS: dict[str, frozenset[Action]] = {
    "pull": frozenset({Action.READ}),
    "push": frozenset({Action.PUBLISH}),
    "delete": frozenset({Action.DELETE}),
    "*": frozenset({Action.READ, Action.PUBLISH, Action.DELETE}),
}
_SHOWN = ((Action.READ, "pull"), (Action.PUBLISH, "push"), (Action.DELETE, "delete"))


class GrantTypeUnsupported(BadRequest):
    """'grant_type' must be password or refresh_token."""

    code = "unsupported_grant_type"


def issue(
    params: Query,
    form: Query | None,
    authorization: str | None,
    address: str,
    request_id: str,
    base_url: str,
) -> dict[str, Any]:
    """The JSON answer to a token request. `form` is the parsed body of a POST, None for GET.

    Raises CredentialsInvalid for wrong credentials (they never count as anonymous), BadRequest for a form that cannot
    be understood, TooManyRequests.
    """
    if form is None:
        return _by_get(params, authorization, address, request_id)
    return _by_form(form, address, request_id)


def _by_get(params: Query, authorization: str | None, address: str, request_id: str) -> dict[str, Any]:
    actor = authenticate(authorization, address=address, request_id=request_id)
    if actor.scopes is not None:
        raise CredentialsInvalid("a registry token cannot be exchanged for another; sign in")
    answer = _answer(actor, params.all("scope"))
    if params.get("offline_token") == "true":
        _add_refresh_token(answer, actor, params.get("client_id") or "")
    return answer


def _by_form(form: Query, address: str, request_id: str) -> dict[str, Any]:
    match form.get("grant_type"):
        case "password":
            username, password = form.get("username"), form.get("password")
            if username is None or password is None:
                raise BadRequest("'username' and 'password' are needed")
            actor = sign_in(username, password, address=address, request_id=request_id)
            answer = _answer(actor, form.all("scope"))
            if form.get("access_type") == "offline":
                _add_refresh_token(answer, actor, form.get("client_id") or "")
            return answer
        case "refresh_token":
            secret = form.get("refresh_token")
            if secret is None:
                raise BadRequest("'refresh_token' is needed")
            actor = by_refresh_token(secret, address=address, request_id=request_id)
            return _answer(actor, form.all("scope")) | {"refresh_token": secret}
    raise GrantTypeUnsupported()


def _add_refresh_token(answer: dict[str, Any], actor: Actor, client: str) -> None:
    """For passwords only: who signs in with an API token has something durable and revocable already."""
    if actor.principal_id is not None and actor.token is None:
        shown = "".join(character for character in client[:60] if character.isprintable())
        answer["refresh_token"] = accounts.remember_client(actor, shown)


def _answer(actor: Actor, given: Sequence[str]) -> dict[str, Any]:
    granted = grant(actor, parse_scopes(given))
    issued = registry_tokens.issue(actor, granted)
    return {
        "token": issued.token,
        "access_token": issued.token,
        "token_type": "Bearer",
        "expires_in": issued.expires_in_seconds,
        "issued_at": issued.issued_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "scope": " ".join(_shown(name, actions) for name, actions in granted.items()),
    }


def _shown(name: str, actions: frozenset[Action]) -> str:
    if name == permissions.CATALOG_SCOPE:
        return f"{name}:*"
    return f"repository:{name}:{','.join(word for action, word in _SHOWN if action in actions)}"


def parse_scopes(given: Sequence[str]) -> dict[str, frozenset[Action]]:
    """`type:name:actions`, repeated and space-separated, merged by name; what is not ours is dropped.

    The type ends at the first colon and the actions begin after the last; `repository(plugin)` is `repository`.
    Raises BadRequest past 100 scopes.
    """
    if sum(len(value) for value in given) > SCOPE_BYTES_MOST:
        raise BadRequest("the scopes are too long")
    words = [word for value in given for word in value.split()]
    if len(words) > SCOPES_MOST:
        raise BadRequest(f"at most {SCOPES_MOST} scopes can be asked for at once")
    asked: dict[str, frozenset[Action]] = {}
    for word in words:
        kind, _, rest = word.partition(":")
        name, _, listed = rest.rpartition(":")
        match = _TYPE.match(kind)
        if match is None or not name or len(name) > NAME_MOST:
            continue
        actions: frozenset[Action] = frozenset()
        for action in listed.split(","):
            actions |= _WORDS.get(action, frozenset())
        if match[1] == "registry" and name == "catalog":
            asked[permissions.CATALOG_SCOPE] = frozenset({Action.READ})
        elif match[1] == "repository":
            asked[name] = asked.get(name, frozenset()) | actions
    return asked


def grant(actor: Actor, asked: dict[str, frozenset[Action]]) -> dict[str, frozenset[Action]]:
    """What of it the actor may do at this moment. Names of no repository here, or none the actor may use, drop out."""
    granted: dict[str, frozenset[Action]] = {}
    allowed: dict[str, frozenset[Action]] = {}
    for name, actions in asked.items():
        if name == permissions.CATALOG_SCOPE:
            granted[name] = actions
            continue
        parts = name.split("/", 2)
        if len(parts) < 3 or not parts[2]:
            continue  # an image lies below its repository
        key = f"{parts[0]}/{parts[1]}"
        if key not in allowed:
            repository = selectors.repository_by_key(key) if key.isascii() and "\0" not in key else None
            allowed[key] = permissions.allowed_actions(actor, repository) if repository is not None else frozenset()
        both = actions & allowed[key]
        if both:
            granted[name] = both
    return granted
