"""Who calls the API: the same credentials as everywhere, from the Authorization header."""

from __future__ import annotations

from typing import Any

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request

from repoman.access.authenticate import authenticate
from repoman.core import clock
from repoman.core.actor import Actor
from repoman.core.errors import CredentialsInvalid

CHALLENGE = 'Basic realm="Repoman", charset="UTF-8"'


def base_url_of(request: Request) -> str:
    """Scheme and host as the client sees them; the edge has judged them."""
    return str(request.META.get("repoman.base_url") or f"{request.scheme}://{request.get_host()}")


def request_id_of(request: Request) -> str:
    return str(request.META.setdefault("repoman.request_id", clock.new_id()))


class ActorAuthentication(BaseAuthentication):
    """`request.user` becomes an Actor, the anonymous one where there are no credentials."""

    def authenticate(self, request: Request) -> tuple[Actor, None]:
        header = request.META.get("HTTP_AUTHORIZATION")
        if header is not None and not header.isprintable():
            raise CredentialsInvalid("the Authorization header cannot be read")
        address = str(request.META.get("REMOTE_ADDR") or "")
        return authenticate(header, address=address, request_id=request_id_of(request)), None

    def authenticate_header(self, request: Request) -> str:
        return CHALLENGE


class ActorAuthenticationScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    target_class = ActorAuthentication
    name = ["basic", "token"]  # type: ignore[assignment]

    def get_security_definition(self, auto_schema: Any) -> Any:
        return [
            {"type": "http", "scheme": "basic", "description": "User and password; or anything and an API token."},
            {"type": "http", "scheme": "bearer", "description": "An API token."},
        ]
