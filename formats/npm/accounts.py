"""Signing in and tokens, as npm, pnpm and Yarn do it through their registry (contract, section 8).

All but the login itself is about the caller's own account: `repo.account` asks for credentials where there are none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from repoman.core import strictjson
from repoman.core.errors import (
    AuthenticationRequired,
    BadRequest,
    ContentInvalid,
    CredentialsInvalid,
    NotFound,
)
from repoman.core.format import Repo
from repoman.core.records import TokenItem
from repoman.core.wire import BodyPlan, Document, DocumentBody, Head, Request, Response

from .listing import moment
from .views import answer

BODY_BYTES = 64 * 1024
PAGE = 10
PAGE_MOST = 100
DAY_SECONDS = 86_400
DAYS_MOST = 3_650
_ALL_BUT_MANAGE = ("read", "publish", "delete")


def admit(repo: Repo, head: Head, **captured: str) -> BodyPlan:
    return DocumentBody(BODY_BYTES)


def _fields(request: Request) -> Mapping[str, Any]:
    assert isinstance(request.body, Document)
    found = strictjson.load(request.body.data)
    if not isinstance(found, dict):
        raise ContentInvalid("the body is not a JSON object")
    return found


def _demand_sign_in(repo: Repo) -> None:
    if repo.actor.is_anonymous:
        raise AuthenticationRequired("sign in to do this")


# --- who -------------------------------------------------------------------------------------------------------------


def whoami(repo: Repo, request: Request) -> Response:
    _demand_sign_in(repo)
    return answer({"username": repo.actor.name})


def profile(repo: Repo, request: Request) -> Response:
    """8.11. Changing it, or two-factor modes, is not offered here."""
    _demand_sign_in(repo)
    email = repo.account.email()
    return answer({"name": repo.actor.name, "email": email, "email_verified": False, "tfa": None, "fullname": ""})


def user(repo: Repo, request: Request, username: str) -> Response:
    """7.4.1. Only those who are signed in learn who else is there; only oneself, under which e-mail address."""
    _demand_sign_in(repo)
    if not repo.account.exists(username):
        raise NotFound("there is no such user")
    email = repo.account.email() if username == repo.actor.name else ""
    return answer({"_id": f"org.couchdb.user:{username}", "name": username, "email": email})


# --- login -----------------------------------------------------------------------------------------------------------


def no_web_login(repo: Repo, request: Request) -> Response:
    """8.6: only 404 makes every client go on with user name and password."""
    raise NotFound("this registry has no login in the browser; use a user name and a password")


def sign_in(repo: Repo, request: Request, username: str) -> Response:
    """8.7: `npm login`. The answer carries an ordinary API token of the user."""
    fields = _fields(request)
    name, password = fields.get("name", username), fields.get("password")
    if name != username or not isinstance(password, str) or not password:
        raise BadRequest("the body has the user's name and password")
    token = repo.account.sign_in(username, password, token_name=f"npm login to {repo.key}")
    return answer({"ok": True, "id": f"org.couchdb.user:{username}", "rev": "1-0", "token": token}, 201)


def sign_out(repo: Repo, request: Request, token: str) -> Response:
    """8.9: the token is revoked at once; one that is gone already is no reason to complain."""
    _demand_sign_in(repo)
    try:
        repo.account.revoke_token(token)
    except NotFound:
        pass
    return answer({"ok": True})


# --- tokens ----------------------------------------------------------------------------------------------------------


def tokens(repo: Repo, request: Request) -> Response:
    """8.12: `npm token list`, in pages. `urls` is there even where nothing follows: npm reads into it."""
    _demand_sign_in(repo)
    page, size = request.query.count("page", 0, 10_000), request.query.count("perPage", PAGE, PAGE_MOST, 1)
    found = list(repo.account.tokens())
    start = page * size
    urls = {}
    if start + size < len(found):
        urls["next"] = f"{request.address}/-/npm/v1/tokens?page={page + 1}&perPage={size}"
    return answer(
        {"objects": [_shown(item) for item in found[start : start + size]], "total": len(found), "urls": urls}
    )


def make_token(repo: Repo, request: Request) -> Response:
    """8.12: `npm token create`, in its old and its new form. The token is good for this repository only, and what cannot

    be promised (addresses, single packages) is refused instead of left out.
    """
    _demand_sign_in(repo)
    fields = _fields(request)
    password = fields.get("password")
    if not isinstance(password, str) or not repo.account.password_matches(password):
        raise CredentialsInvalid("the password is wrong")
    for field in ("cidr_whitelist", "packages", "scopes", "orgs"):
        if fields.get(field):
            raise BadRequest(f"tokens limited by '{field}' are not offered; a token is good for the whole repository")
    is_reader = fields.get("readonly") is True or fields.get("packages_and_scopes_permission") in ("read-only",)
    if fields.get("packages_and_scopes_permission") == "no-access":
        raise BadRequest("a token without access to packages is of no use here")
    name = fields.get("name") or "npm token create"
    if not isinstance(name, str) or len(name) > 100:
        raise BadRequest("'name' is a text of up to 100 characters")
    days = fields.get("expires")
    if days is not None and (not isinstance(days, int) or isinstance(days, bool) or not 0 < days <= DAYS_MOST):
        raise BadRequest(f"'expires' is a number of days from 1 to {DAYS_MOST}")
    item, secret = repo.account.make_token(
        name,
        actions=("read",) if is_reader else _ALL_BUT_MANAGE,
        expires_in=None if days is None else days * DAY_SECONDS,
        is_for_this_repository=True,
    )
    return answer({**_shown(item), "token": secret}, 201)


def revoke_token(repo: Repo, request: Request, token: str) -> Response:
    _demand_sign_in(repo)
    repo.account.revoke_token(token)
    return Response(204)


def _shown(item: TokenItem) -> dict[str, object]:
    return {
        "key": str(item.id),
        "token": item.hint,
        "name": item.name,
        "created": moment(item.created_at),
        "updated": moment(item.created_at),
        "expiry": None if item.expires_at is None else moment(item.expires_at),
        "readonly": item.actions == ("read",),
        "cidr_whitelist": None,
    }
