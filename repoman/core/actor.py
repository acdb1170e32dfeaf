"""Who acts. A plain value: made by `access/`, asked by services, carried in events; it never touches the database."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Action(StrEnum):
    """What a route or call does to a repository. Token actions have the same words (and `manage`)."""

    PUBLIC = "public"  # never challenged: ping, login pages
    PROBE = "probe"  # "is this blob here?": whoever may read or publish
    READ = "read"
    PUBLISH = "publish"
    DELETE = "delete"  # removes or overwrites
    MANAGE = "manage"  # settings, grants, tokens


class Role(StrEnum):
    READER = "reader"
    PUBLISHER = "publisher"
    MAINTAINER = "maintainer"
    OWNER = "owner"


ROLE_ACTIONS: Mapping[Role, frozenset[Action]] = {
    Role.READER: frozenset({Action.READ}),
    Role.PUBLISHER: frozenset({Action.READ, Action.PUBLISH}),
    Role.MAINTAINER: frozenset({Action.READ, Action.PUBLISH, Action.DELETE}),
    Role.OWNER: frozenset({Action.READ, Action.PUBLISH, Action.DELETE, Action.MANAGE}),
}
ALL_ACTIONS = ROLE_ACTIONS[Role.OWNER]


@dataclass(frozen=True, slots=True)
class TokenLimits:
    """What an API token narrows its owner to. `repositories` None means all the owner may."""

    token_id: int
    actions: frozenset[Action]
    repositories: frozenset[int] | None = None


@dataclass(frozen=True, slots=True)
class Actor:
    """`principal_id` None is the anonymous caller. `scopes` None means the credentials are not a registry token;

    else it maps an OCI name (`ns/repo/image`) to the actions the registry token was issued for.
    """

    principal_id: int | None = None
    name: str = "anonymous"
    is_admin: bool = False
    is_system: bool = False
    token: TokenLimits | None = None
    scopes: Mapping[str, frozenset[Action]] | None = None
    address: str = ""
    request_id: str = ""
    extra: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_anonymous(self) -> bool:
        return self.principal_id is None and not self.is_system


def system_actor(name: str) -> Actor:
    """A job or command of this server; may do all, and events name it."""
    return Actor(name=f"system:{name}", is_admin=True, is_system=True)
