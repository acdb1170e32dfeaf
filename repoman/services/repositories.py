"""Making, changing and deleting repositories, and saying why an actor may or may not act on one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlsplit

from django.db.models import Q, QuerySet

from repoman.access import epoch, permissions, secrets
from repoman.access.authenticate import actor_of
from repoman.access.models import Principal
from repoman.catalog import selectors
from repoman.catalog.models import Namespace, Repository, RepositoryMember
from repoman.core import clock
from repoman.core.actor import Action, Actor
from repoman.core.errors import BadRequest, Conflict, RepositoryNotFound
from repoman.core.format import FormatHandler, handlers
from repoman.core.names import check_key_part, decode_target
from repoman.events.record import record
from repoman.jobs import queue
from repoman.sources.base import Asked
from repoman.sources.choose import source_for

from . import accounts
from .handle import VIRTUAL_OPTIONS
from .transactions import write

REMOTE_FIELDS = {
    "url": str,
    "username": str,
    "password": str,
    "metadata_ttl": int,
    "negative_ttl": int,
    "stale_for": int,
    "connect_timeout": int,
    "read_timeout": int,
    "offline": bool,
    "token_realms": list,
}
MEMBERS_MOST = 100
PATTERNS_MOST = 500
SECONDS_MOST = 315_360_000  # ten years: times beyond are mistakes, and dates would not hold them
CONNECT_SECONDS_MOST = 300
READ_SECONDS_MOST = 3600
TEXT_MOST = 2000


def repository(actor: Actor, key: str, action: Action = Action.READ, *, manage_sees: bool = False) -> Repository:
    """The repository, for a call of the API. `manage_sees`: for READ it is enough to be allowed to MANAGE.

    Raises AuthenticationRequired, RepositoryNotFound, Forbidden, ScopeInsufficient (for every registry token).
    """
    found = selectors.repository_by_key(key)
    if action is Action.MANAGE:
        permissions.check_management(actor, site_wide=False)
    elif manage_sees and found is not None and actor.scopes is None:
        if Action.MANAGE in permissions.allowed_actions(actor, found):
            return found
    permissions.check(actor, found, action, mount=key)
    assert found is not None
    return found


def repositories(actor: Actor, namespace: Namespace | None = None) -> QuerySet[Repository]:
    """What the actor may know of, for a management call."""
    permissions.check_management(actor, site_wide=False)
    rows = permissions.visible(actor).select_related("namespace", "deploy_target")
    return rows.filter(namespace=namespace) if namespace is not None else rows


def _handler(format_name: str) -> FormatHandler:
    handler = handlers().get(format_name)
    if handler is None:
        raise BadRequest(f"there is no format '{format_name[:40]}'; there are: {', '.join(sorted(handlers()))}")
    return handler


def create_repository(
    actor: Actor,
    namespace_name: str,
    *,
    name: str,
    format: str,
    type: str = Repository.Type.LOCAL,
    description: str = "",
    anonymous_read: bool = False,
    options: Mapping[str, object] | None = None,
    remote: Mapping[str, object] | None = None,
    members: Sequence[str] | None = None,
    deploy_target: str | None = None,
) -> Repository:
    """Raises Conflict if the name is taken, BadRequest for what does not go together."""
    namespace = accounts.namespace(actor, namespace_name, Action.MANAGE)
    check_key_part(name, "repository")
    handler = _handler(format)
    given = dict(options or {})
    if type not in Repository.Type.values:
        raise BadRequest(f"there is no type '{type[:40]}'; there are: {', '.join(Repository.Type.values)}")
    check_options(handler, type, given)
    if (remote is not None) != (type == Repository.Type.REMOTE):
        raise BadRequest("a remote repository, and no other, needs 'remote' with a 'url'", field="remote")
    if (members or deploy_target) and type != Repository.Type.VIRTUAL:
        raise BadRequest("only a virtual repository has 'members' and a 'deploy_target'", field="members")
    stored_remote = _merged_remote(handler, None, remote) if remote is not None else None
    key = f"{namespace.name}/{name}"

    def block() -> Repository:
        if Repository.objects.filter(key=key).exists():
            raise Conflict(f"the repository '{key}' exists already")
        row = Repository.objects.create(
            namespace=namespace,
            name=name,
            key=key,
            format=format,
            type=type,
            description=description,
            anonymous_read=anonymous_read,
            options=given,
            remote=stored_remote,
            created_by_id=actor.principal_id,
            created_at=clock.now(),
        )
        if members is not None:
            _set_members(actor, row, members)
        if deploy_target is not None:
            _set_deploy_target(row, deploy_target)
        record(
            "repository:create",
            actor=actor,
            repository=row,
            subject=key,
            format=format,
            type=type,
            anonymous_read=anonymous_read,
        )
        return row

    return write(block)


FIXED_FIELDS = ("name", "format", "type")


def update_repository(actor: Actor, key: str, changes: Mapping[str, Any]) -> Repository:
    """`changes`: description, anonymous_read, state, options (merged; null takes one back), remote (merged), members
    (replaced) and deploy_target. Raises BadRequest, Conflict."""
    found = repository(actor, key, Action.MANAGE)
    handler = _handler(found.format)
    state = changes.get("state")
    if state is not None and state not in (Repository.State.ACTIVE, Repository.State.READ_ONLY):
        raise BadRequest("'state' must be active or read_only", field="state")

    def block() -> Repository:
        epoch.bump()  # its lock also queues changes of membership, so that two cannot close a circle
        row = Repository.objects.select_for_update().filter(pk=found.pk).first()
        if row is None or row.state == Repository.State.DELETING:
            raise RepositoryNotFound(f"there is no repository '{key}'")
        for field in ("description", "anonymous_read", "state"):
            if field in changes:
                setattr(row, field, changes[field])
        if "options" in changes:
            merged = {**row.options, **changes["options"]}
            row.options = {name: value for name, value in merged.items() if value is not None}
            check_options(handler, row.type, row.options)
        if "remote" in changes:
            if row.type != Repository.Type.REMOTE:
                raise BadRequest("only a remote repository has 'remote'", field="remote")
            row.remote = _merged_remote(handler, row.remote, changes["remote"] or {})
        if row.type != Repository.Type.VIRTUAL and (changes.get("members") or changes.get("deploy_target")):
            raise BadRequest("only a virtual repository has 'members' and a 'deploy_target'", field="members")
        row.save(update_fields=["description", "anonymous_read", "state", "options", "remote"])
        if row.type == Repository.Type.VIRTUAL:
            if "members" in changes:
                _set_members(actor, row, changes["members"] or [])
            if "deploy_target" in changes or "members" in changes:
                kept = row.deploy_target.key if row.deploy_target is not None else None
                _set_deploy_target(row, changes.get("deploy_target", kept))
        shown = {name: changes[name] for name in ("anonymous_read", "state", "options") if name in changes}
        record("repository:update", actor=actor, repository=row, subject=key, changed=sorted(changes), **shown)
        return row

    return write(block)


# --- remotes and virtuals --------------------------------------------------------------------------------------------


def check_options(handler: FormatHandler, type: str, given: Mapping[str, object]) -> None:
    """The format's options and, of a virtual repository, its own (`strict`, `allow_remote_names`). Raises BadRequest."""
    own = {name: value for name, value in given.items() if name in VIRTUAL_OPTIONS}
    handler.parse_options({name: value for name, value in given.items() if name not in VIRTUAL_OPTIONS})
    if own and type != Repository.Type.VIRTUAL:
        raise BadRequest(f"'{sorted(own)[0]}' is an option of virtual repositories", field="options")
    if not isinstance(own.get("strict", True), bool):
        raise BadRequest("option 'strict' must be true or false", field="options.strict")
    names = own.get("allow_remote_names", [])
    if not isinstance(names, list) or not all(isinstance(name, str) and 0 < len(name) <= 255 for name in names):
        raise BadRequest(
            "option 'allow_remote_names' must be a list of name patterns", field="options.allow_remote_names"
        )
    if len(names) > PATTERNS_MOST:
        raise BadRequest(
            f"option 'allow_remote_names' takes at most {PATTERNS_MOST} patterns", field="options.allow_remote_names"
        )


# What makes an upstream another one: what was learnt before does not count any more.
_IDENTIFYING = ("url", "username", "password")


def _merged_remote(
    handler: FormatHandler, stored: Mapping[str, Any] | None, given: Mapping[str, Any]
) -> dict[str, Any]:
    """What the row keeps: `given` over `stored`. The password is sealed; absent it stays, null clears it.

    `generation` is ours: it grows when another upstream, or another of its users, is asked from now on.
    """
    merged = dict(stored or {})
    for name, value in given.items():
        if name not in REMOTE_FIELDS:
            raise BadRequest(f"'{name[:40]}' is not a setting of a remote", field=f"remote.{name[:40]}")
        wanted: type = REMOTE_FIELDS[name]
        if value is None:
            merged.pop(name, None)
        elif not _fits(value, wanted):
            raise BadRequest(f"remote setting '{name}' must be {_WANTED[wanted]}", field=f"remote.{name}")
        elif wanted is int and value > _most(name):
            raise BadRequest(f"remote setting '{name}' is at most {_most(name)}", field=f"remote.{name}")
        elif name == "password":
            merged[name] = str(secrets.encrypt(str(value)))
        else:
            merged[name] = value
    if not merged.get("url"):
        raise BadRequest("a remote repository needs a 'url'", field="remote.url")
    merged["url"] = _checked_url(str(merged["url"]))
    before = dict(stored or {})
    changed = any(name in given and merged.get(name) != before.get(name) for name in _IDENTIFYING)
    merged["generation"] = int(before.get("generation", 0)) + (1 if changed and stored is not None else 0)
    return merged


def _checked_url(url: str) -> str:
    """An http(s) address without credentials, query or fragment. Raises BadRequest."""
    if not _is_origin(url) or any(ord(character) <= 32 or ord(character) == 127 for character in url):
        raise BadRequest("a remote's 'url' must be http://host/… or https://host/…", field="remote.url")
    parts = urlsplit(url)
    if parts.username or parts.password:
        raise BadRequest(
            "give user name and password as 'username' and 'password', not in the 'url'", field="remote.url"
        )
    if parts.query or parts.fragment:
        raise BadRequest("a remote's 'url' has no query and no fragment", field="remote.url")
    return url


_WANTED = {
    str: "a text without control characters",
    int: "a whole number of seconds, 0 or more",
    bool: "true or false",
    list: "a list of addresses (https://host)",
}


def _most(name: str) -> int:
    return {"connect_timeout": CONNECT_SECONDS_MOST, "read_timeout": READ_SECONDS_MOST}.get(name, SECONDS_MOST)


def _fits(value: object, wanted: type) -> bool:
    if wanted is int:
        return isinstance(value, int) and not isinstance(value, bool) and value >= 0
    if wanted is list:
        return isinstance(value, list) and len(value) <= 20 and all(_is_origin(item) for item in value)
    if wanted is str:
        return isinstance(value, str) and len(value) <= TEXT_MOST and value.isprintable()
    return isinstance(value, wanted)


def _is_origin(value: object) -> bool:
    """An http(s) address with a host, as `url` and `token_realms` name it."""
    if not isinstance(value, str) or len(value) > TEXT_MOST:
        return False
    try:
        parts = urlsplit(value)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        return False


def _set_members(actor: Actor, virtual: Repository, keys: Sequence[str]) -> None:
    """Replace the members, in this order: each readable by the actor, of the same format, and leading to no circle."""
    if len(set(keys)) != len(keys):
        raise BadRequest("'members' names a repository twice", field="members")
    if len(keys) > MEMBERS_MOST:
        raise BadRequest(f"a virtual repository has at most {MEMBERS_MOST} members", field="members")
    found = {row.key: row for row in permissions.visible(actor).filter(key__in=list(keys))}
    missing = [key for key in keys if key not in found]
    if missing:
        raise BadRequest(f"'members' names what is not there: {', '.join(missing)[:200]}", field="members")
    for row in found.values():
        if row.format != virtual.format:
            raise BadRequest(f"'{row.key}' holds {row.format}, not {virtual.format}", field="members")
        if row.pk == virtual.pk or virtual.pk in _below(row.pk):
            raise Conflict(f"'{row.key}' contains '{virtual.key}' already: members may not form a circle")
    RepositoryMember.objects.filter(virtual=virtual).delete()
    RepositoryMember.objects.bulk_create(
        RepositoryMember(virtual=virtual, member=found[key], position=position) for position, key in enumerate(keys)
    )


def _below(repository_id: int) -> set[int]:
    """Ids of everything that the virtual contains, at any depth."""
    seen: set[int] = set()
    wave = {repository_id}
    while wave:
        below = RepositoryMember.objects.filter(virtual_id__in=wave).values_list("member_id", flat=True)
        wave = set(below) - seen
        seen |= wave
    return seen


def _set_deploy_target(virtual: Repository, key: str | None) -> None:
    target = None
    if key is not None:
        members = RepositoryMember.objects.filter(virtual=virtual, member__type=Repository.Type.LOCAL)
        found = members.select_related("member").filter(member__key=key).first()
        if found is None:
            raise BadRequest(f"the deploy target '{key[:127]}' is not a local member", field="deploy_target")
        target = found.member
    virtual.deploy_target = target
    virtual.save(update_fields=["deploy_target"])


# --- deletion --------------------------------------------------------------------------------------------------------


def delete_repository(actor: Actor, key: str, *, force: bool = False) -> None:
    """Gone for everybody when this returns, and its name is free; a job removes what it held.

    Raises Conflict, naming them, while virtual repositories contain it, unless `force` takes it out of them.
    """
    found = repository(actor, key, Action.MANAGE)

    def block() -> None:
        epoch.bump()
        row = Repository.objects.select_for_update().filter(pk=found.pk).first()
        if row is None or row.state == Repository.State.DELETING:
            raise RepositoryNotFound(f"there is no repository '{key}'")
        inside = Repository.objects.filter(members__member=row)
        if inside.exists() and not force:
            seen = sorted(permissions.visible(actor).filter(pk__in=inside.values("pk")).values_list("key", flat=True))
            named = ", ".join(seen) or "a repository you may not see"
            raise Conflict(f"'{key}' is a member of {named}; take it out first, or delete with force", members=seen)
        Repository.objects.filter(Q(deploy_target=row) | Q(pk=row.pk)).update(deploy_target=None)
        RepositoryMember.objects.filter(member=row).delete()
        RepositoryMember.objects.filter(virtual=row).delete()
        record("repository:delete", actor=actor, repository=row, subject=key, forced=force or None)
        # No name can be spelt like this, so nothing finds the row any more and another may take the key.
        Repository.objects.filter(pk=row.pk).update(
            state=Repository.State.DELETING, key=f"{row.namespace.name}/:{row.pk}", anonymous_read=False
        )
        queue.request(
            "delete_repository",
            {"repository_id": row.pk},
            requested_by=actor.name,
            dedupe_key=f"delete_repository:{row.pk}",
        )

    write(block)


# --- why -------------------------------------------------------------------------------------------------------------


def explain(actor: Actor, key: str, *, subject: str | None, action: Action, path: str = "") -> dict[str, object]:
    """Why `subject` (a user; None: the actor itself) may or may not act. About others: for owners only.

    `subject` "anonymous" asks for callers who are not signed in.
    """
    found = repository(actor, key, Action.READ if subject is None else Action.MANAGE, manage_sees=subject is None)
    if subject is None or subject == actor.name:
        asked = actor
    elif subject == "anonymous":
        asked = Actor()
    else:
        principal = Principal.objects.filter(username=subject).first()
        if principal is None:
            raise accounts.UserNotFound(f"there is no user '{subject[:128]}'")
        asked = actor_of(principal)
        if principal.is_disabled:
            said = permissions.explain(asked, found, action)
            reasons = said["reasons"]
            assert isinstance(reasons, list)
            return {**said, "path": path, "allowed": False, "reasons": ["the account is disabled", *reasons]}
    said = {**permissions.explain(asked, found, action), "path": path}
    if path and action is Action.READ and said["allowed"]:
        said["sources"] = _sources(found, asked, path, on_behalf_of=None if asked is actor else actor)
    return said


def _sources(repository: Repository, asked: Actor, path: str, *, on_behalf_of: Actor | None) -> list[dict[str, object]]:
    """Where what the path names would come from, for this caller: found out without asking any upstream. `path` is what
    follows the repository in the address."""
    handler = handlers().get(repository.format)
    if handler is None:
        return []
    plain = decode_target(handler.plain_target(b"/" + quote(path, safe="/%@:+~!$&'()*,;=").encode()))[1:]
    for route in handler.routes:
        match = route.regex.match(plain)
        if match is not None and "GET" in route.methods and route.ref is not None:
            ref = route.ref(**match.groupdict())
            if ref is not None:
                return source_for(repository, Asked(asked), on_behalf_of=on_behalf_of).explain(ref)
    return []
