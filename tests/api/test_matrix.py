"""Role × action × route, generated from the route tables: a route that does not say what it needs fails here."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from django.db import transaction

from repoman.api.base import ApiView, Call
from repoman.api.urls import urlpatterns
from repoman.api.views.operations import Nothing
from repoman.core.actor import ROLE_ACTIONS, Action, Role
from repoman.core.format import handlers
from repoman.core.wire import Route
from tests.running import Server

from .conftest import Caller

SAFE = {"GET", "HEAD"}
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
SAMPLES = {"namespace": "acme", "name": "stuff", "username": "ada", "token_id": "999999", "job_id": "999999"}
TOKENS = (Action.READ, Action.PUBLISH, Action.DELETE, Action.MANAGE)


def api_calls() -> Iterator[tuple[str, str, type, Call]]:
    """Address template, method, view and declaration of every call."""
    for pattern in urlpatterns:
        view = pattern.callback.view_class  # type: ignore[union-attr]
        if view is Nothing:
            continue
        path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", str(pattern.pattern))
        for method in METHODS:
            handler = getattr(view, method.lower(), None)
            if handler is not None and method.lower() in view.http_method_names:
                declared = getattr(handler, "call", None)
                assert isinstance(declared, Call), f"{method} {path} does not declare the action it needs"
                yield path, method, view, declared


CALLS = list(api_calls())
NAMES = [f"{method} {path}" for path, method, _, _ in CALLS]
ROUTES = [(handler.name, route) for handler in handlers().values() for route in handler.routes]
ROUTE_NAMES = [f"{name}-{route.name}-{'-'.join(route.methods)}" for name, route in ROUTES]


def test_every_call_is_in_the_matrix() -> None:
    assert len(CALLS) >= 30
    assert {view.target for _, _, view, _ in CALLS if issubclass(view, ApiView)} == {"site", "namespace", "repository"}


@pytest.mark.parametrize(("path", "method", "view", "declared"), CALLS, ids=NAMES)
def test_f2_unsafe_methods_demand_more_than_reading(path: str, method: str, view: type, declared: Call) -> None:
    if method not in SAFE:
        assert declared.action in (Action.PUBLISH, Action.DELETE, Action.MANAGE)
    elif declared.action is Action.PUBLIC:
        assert path in ("schema", "docs")


def is_through(status: int) -> bool:
    """Past the question who may: not refused, not hidden; whether the empty request made sense is another matter."""
    return status not in (401, 403) and status < 500


@pytest.mark.parametrize(("path", "method", "view", "declared"), CALLS, ids=NAMES)
def test_f1_f2_f7_each_caller_gets_what_the_declaration_says(
    path: str,
    method: str,
    view: Any,
    declared: Call,
    admin: Caller,
    ada: Caller,
    nobody: Caller,
    raw: str,
    make_user: Callable[..., Caller],
) -> None:
    address = path.format(**SAMPLES)
    target = getattr(view, "target", "site")

    def status(caller: Caller) -> int:
        """The same starting point for every caller: what one changed is rolled back."""
        before = transaction.savepoint()
        answer = caller.send(method, address, {} if method in ("POST", "PUT", "PATCH") else None)
        transaction.savepoint_rollback(before)
        if answer.status >= 400:
            assert answer.code
        return answer.status

    if declared.action is Action.PUBLIC:
        assert status(nobody) == 200
        return
    assert status(nobody) == 401
    assert is_through(status(admin))
    stranger = make_user("stranger")
    if target == "site":
        assert status(stranger) == 403 if declared.is_admin_only else is_through(status(stranger))
    else:
        assert status(stranger) == 404
    for role in Role:
        member = make_user(f"{role}-by-namespace")
        assert admin.put(f"namespaces/acme/grants/{member.name}", {"role": role}).status == 201
        seen = status(member)
        if target == "site":
            assert seen == 403 if declared.is_admin_only else is_through(seen)
        elif declared.action in ROLE_ACTIONS[role]:
            assert is_through(seen), (role, seen)
        else:
            assert seen == 403, (role, seen)
        member = make_user(f"{role}-by-repository")
        assert admin.put(f"repositories/{raw}/grants/{member.name}", {"role": role}).status == 201
        seen = status(member)
        if target == "namespace":
            assert seen == 404
        elif target == "repository":
            assert is_through(seen) if declared.action in ROLE_ACTIONS[role] else seen == 403, (role, seen)
    for action in TOKENS:
        # An administrator's token: however much its owner may, it may what it was made for.
        seen = status(admin.token(actions=[action]))
        manages = action is Action.MANAGE and declared.action is Action.READ and view.manage_sees
        needs_manage = target != "repository" or declared.action is Action.MANAGE
        enough = action is Action.MANAGE if needs_manage else action is declared.action or manages
        assert is_through(seen) if enough else seen == 403, (action, seen)


# --- the formats' routes ---------------------------------------------------------------------------------------------

# These only say what is wrong with the address, whatever the method.
ALWAYS_REFUSED = {("oci", "no_image")}
# These ask in a body, or say that nothing is uploaded there: they change nothing.
ASKED_IN_A_BODY = {("npm", "audit_bulk"), ("npm", "audit_tree"), ("pypi", "index_hint")}
# These are about the caller's own account, whatever the repository.
OWN_ACCOUNT = {("npm", name) for name in ("web_login", "sign_in", "sign_out", "token_make", "token_revoke")}


@pytest.mark.parametrize(("format_name", "route"), ROUTES, ids=ROUTE_NAMES)
def test_f2_every_route_of_a_format_says_what_it_needs(format_name: str, route: Route) -> None:
    assert isinstance(route.action, Action)
    if (format_name, route.name) not in ALWAYS_REFUSED and not set(route.methods) <= SAFE:
        assert not set(route.methods) & SAFE, "one action for reading and writing"
        if (format_name, route.name) in ASKED_IN_A_BODY:
            assert route.action is Action.READ
        elif (format_name, route.name) in OWN_ACCOUNT:
            assert route.action is Action.PUBLIC
        else:
            assert route.action in (Action.PUBLISH, Action.DELETE, Action.MANAGE)
    assert route.name, "a route needs a name"


DIGEST = "sha256:" + "0" * 64
ADDRESSES = {
    ("oci", "manifest"): "app/manifests/none",
    ("oci", "manifest_push"): "app/manifests/none",
    ("oci", "manifest_delete"): "app/manifests/none",
    ("oci", "blob"): f"app/blobs/{DIGEST}",
    ("oci", "blob_probe"): f"app/blobs/{DIGEST}",
    ("oci", "blob_delete"): f"app/blobs/{DIGEST}",
    ("oci", "upload_start"): "app/blobs/uploads/",
    ("oci", "upload_chunk"): "app/blobs/uploads/" + "0" * 32,
    ("oci", "upload_finish"): f"app/blobs/uploads/{'0' * 32}?digest={DIGEST}",
    ("oci", "upload_status"): "app/blobs/uploads/" + "0" * 32,
    ("oci", "upload_cancel"): "app/blobs/uploads/" + "0" * 32,
    ("oci", "tags"): "app/tags/list",
    ("oci", "referrers"): f"app/referrers/{DIGEST}",
    ("oci", "no_image"): "manifests/none",
    ("maven", "file"): "org/example/none/1.0/none-1.0.jar",
    ("maven", "file_put"): "org/example/{caller}/1.0/{caller}-1.0.jar",
    ("maven", "file_delete"): "org/example/none/1.0/none-1.0.jar",
    ("generic", "file"): "folder/none.txt",
    ("generic", "file_put"): "folder/{caller}.txt",
    ("generic", "file_delete"): "folder/none.txt",
    ("helm", "index"): "index.yaml",
    ("helm", "file"): "charts/none-1.0.0.tgz",
    ("helm", "file_of"): "charts/none/none-1.0.0.tgz",
    ("helm", "put"): "charts/none-1.0.0.tgz",
    ("helm", "put_of"): "charts/none/none-1.0.0.tgz",
    ("helm", "charts"): "api/charts",
    ("helm", "post_chart"): "api/charts",
    ("helm", "post_provenance"): "api/prov",
    ("helm", "chart"): "api/charts/none",
    ("helm", "chart_version"): "api/charts/none/1.0.0",
    ("helm", "delete"): "api/charts/none/1.0.0",
    ("helm", "templates"): "api/charts/none/1.0.0/templates",
    ("helm", "values"): "api/charts/none/1.0.0/values",
    ("helm", "health"): "health",
    ("helm", "info"): "info",
    ("helm", "index_hint"): "",
    ("npm", "packument"): "none",
    ("npm", "tarball"): "none/-/none-1.0.0.tgz",
    ("npm", "version"): "none/1.0.0",
    ("npm", "publish"): "none",
    ("npm", "change"): "none/-rev/1",
    ("npm", "unpublish"): "none/-rev/1",
    ("npm", "tarball_delete"): "none/-/none-1.0.0.tgz/-rev/1",
    ("npm", "tags"): "-/package/none/dist-tags",
    ("npm", "tag_set"): "-/package/none/dist-tags/beta",
    ("npm", "tag_remove"): "-/package/none/dist-tags/beta",
    ("npm", "collaborators"): "-/package/none/collaborators",
    ("npm", "visibility"): "-/package/none/visibility",
    ("npm", "access_read"): "-/package/none/access",
    ("npm", "access"): "-/package/none/access",
    ("npm", "scope_packages"): "-/org/scope/package",
    ("npm", "user_packages"): "-/user/somebody/package",
    ("npm", "ping"): "-/ping",
    ("npm", "search"): "-/v1/search?text=none",
    ("npm", "audit_bulk"): "-/npm/v1/security/advisories/bulk",
    ("npm", "audit_tree"): "-/npm/v1/security/audits/quick",
    ("npm", "keys"): "-/npm/v1/keys",
    ("npm", "attestations"): "-/npm/v1/attestations/none@1.0.0",
    ("npm", "whoami"): "-/whoami",
    ("npm", "web_login"): "-/v1/login",
    ("npm", "sign_in"): "-/user/org.couchdb.user:{caller}",
    ("npm", "user"): "-/user/org.couchdb.user:{caller}",
    ("npm", "sign_out"): "-/user/token/none",
    ("npm", "profile"): "-/npm/v1/user",
    ("npm", "tokens"): "-/npm/v1/tokens",
    ("npm", "token_make"): "-/npm/v1/tokens",
    ("npm", "token_revoke"): "-/npm/v1/tokens/token/none",
    ("pypi", "index"): "simple/",
    ("pypi", "index_slash"): "simple",
    ("pypi", "project"): "simple/none/",
    ("pypi", "project_slash"): "simple/none",
    ("pypi", "hatch_page"): "+simple/none/",
    ("pypi", "file"): "files/none/none-1.0.tar.gz",
    ("pypi", "provenance"): "integrity/none/1.0/none-1.0.tar.gz/provenance",
    ("pypi", "upload"): "",
    ("pypi", "upload_hint"): "legacy/",
    ("pypi", "index_hint"): "simple/none/",
    ("pypi", "api"): "none/json",
    ("pypi", "api_version"): "none/1.0/json",
    ("pypi", "project_hint"): "none/",
}


@pytest.fixture(scope="module")
def callers(embedded: Server) -> dict[str, Any]:
    """Two repositories, and clients by role: `clients[(format, who)]`."""
    clients: dict[tuple[str, str], httpx.Client] = {}
    keys: dict[str, str] = {}
    for name in handlers():
        key = keys[name] = embedded.make_repository(format=name)
        clients[name, "nobody"] = embedded.client()
        clients[name, "stranger"] = embedded.client(*embedded.make_user())
        clients[name, "admin"] = embedded.admin
        for role in Role:
            clients[name, str(role)] = embedded.user(key, str(role))
        for action in (Action.READ, Action.PUBLISH, Action.DELETE, Action.MANAGE):
            made = embedded.token(embedded.admin, actions=[str(action)])
            clients[name, f"token:{action}"] = embedded.client("token", made["token"])
    return {"clients": clients, "keys": keys, "server": embedded}


@pytest.mark.parametrize(("format_name", "route"), ROUTES, ids=ROUTE_NAMES)
def test_f1_f2_e5_each_caller_gets_what_the_route_says(format_name: str, route: Route, callers: dict[str, Any]) -> None:
    prefix = handlers()[format_name].prefix
    template = ADDRESSES[format_name, route.name]
    assert route.regex.match(template.partition("?")[0].format(caller="x")), "the sample is not this route's"
    if route.action is Action.PUBLIC:
        _is_the_same_everywhere(format_name, route, f"/{prefix}", template, callers)
        return
    outcomes: dict[str, Any] = {
        "nobody": 401,
        "stranger": 404,
        "admin": "through",
        **{str(role): "through" if allows(ROLE_ACTIONS[role], route.action) else 403 for role in Role},
        **{
            f"token:{action}": "through" if allows(frozenset({action}), route.action) else 403
            for action in (Action.READ, Action.PUBLISH, Action.DELETE, Action.MANAGE)
        },
    }
    for method in route.methods:
        for who, expected in outcomes.items():
            path = template.format(caller=who.replace(":", "-"))
            client: httpx.Client = callers["clients"][format_name, who]
            answer = client.request(method, f"/{prefix}/{callers['keys'][format_name]}/{path}", content=b"")
            assert answer.status_code < 500, (method, who, answer.text)
            if expected == "through":
                assert answer.status_code not in (401, 403), (method, who, answer.text)
            else:
                assert answer.status_code == expected, (method, who, answer.status_code, answer.text)
            if who == "nobody":
                assert "www-authenticate" in answer.headers


def _is_the_same_everywhere(
    format_name: str, route: Route, prefix: str, template: str, callers: dict[str, Any]
) -> None:
    """A public route says the same whatever the repository, so that it does not tell which ones there are."""
    for method in route.methods:
        for who in ("nobody", "stranger", "token:read"):
            path = template.format(caller=who.replace(":", "-"))
            client: httpx.Client = callers["clients"][format_name, who]
            there, missing = (
                client.request(method, f"{prefix}/{key}/{path}", content=b"")
                for key in (callers["keys"][format_name], "no-such/place")
            )
            assert there.status_code < 500 and there.status_code == missing.status_code, (method, who, there.text)


def allows(actions: frozenset[Action], needed: Action) -> bool:
    if needed is Action.PROBE:
        return bool(actions & {Action.READ, Action.PUBLISH})
    return needed in actions
