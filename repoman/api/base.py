"""What every call of the API shares: who may, which parameters, how lists page, how it is described.

Each method of a view carries its declaration (`@call`), and `ApiView.initial` enforces it before anything is read:
the action, on the namespace or repository that the address names. A method without a declaration is refused.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, TypeVar

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema, inline_serializer
from rest_framework import serializers
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from repoman.access import permissions
from repoman.catalog.models import Namespace, Repository
from repoman.core.actor import Action, Actor
from repoman.core.errors import BadRequest, MethodNotAllowed
from repoman.services import accounts, repositories

from .authentication import base_url_of
from .bodies import Body, BoundedJSONParser, JSONOnly

LIMIT = 100
LIMIT_MOST = 1000
VALUE_MOST = 2048
CURSOR_MOST = 4096
Method = TypeVar("Method", bound=Callable[..., Response])


@dataclass(frozen=True, slots=True)
class Parameter:
    """A query parameter. `kind`: str, int or bool."""

    name: str
    meaning: str
    kind: type = str
    required: bool = False

    def described(self) -> OpenApiParameter:
        types = {str: OpenApiTypes.STR, int: OpenApiTypes.INT, bool: OpenApiTypes.BOOL}
        return OpenApiParameter(
            self.name, types[self.kind], OpenApiParameter.QUERY, required=self.required, description=self.meaning
        )


PAGING = (
    Parameter("limit", f"How many items at most: 1 to {LIMIT_MOST}, {LIMIT} if not given.", int),
    Parameter("cursor", "The `next` of the page before."),
)


@dataclass(frozen=True, slots=True)
class Call:
    """The declaration of one method. `is_admin_only`: administrators, whatever the roles."""

    action: Action
    parameters: Mapping[str, Parameter]
    is_admin_only: bool


class Problem(serializers.Serializer[Any]):
    type = serializers.CharField()
    title = serializers.CharField()
    status = serializers.IntegerField()
    code = serializers.CharField(help_text="Stable; for programs.")
    detail = serializers.CharField(help_text="For people.")
    request_id = serializers.CharField()


@cache
def _page_of(answer: type[serializers.Serializer[Any]]) -> Any:
    return inline_serializer(
        f"{answer.__name__}Page", {"items": answer(many=True), "next": serializers.CharField(allow_null=True)}
    )


def call(
    operation: str,
    summary: str,
    action: Action,
    *,
    body: type[Body] | None = None,
    answer: type[serializers.Serializer[Any]] | None = None,
    status: int = 200,
    statuses: Sequence[int] = (),
    parameters: Sequence[Parameter] = (),
    is_list: bool = False,
    is_admin_only: bool = False,
) -> Callable[[Method], Method]:
    """Declares a method of an ApiView: what it takes, gives and needs."""
    known = (*parameters, *PAGING) if is_list else tuple(parameters)
    shown: Any = answer
    if is_list and answer is not None:
        shown = _page_of(answer)
    responses: dict[Any, Any] = dict.fromkeys(statuses or (status,), shown)
    responses[("4XX", "application/problem+json")] = Problem

    def declare(method: Method) -> Method:
        described: Any = extend_schema(
            operation_id=operation,
            summary=summary,
            description=summary + ".",
            request=body,
            responses=responses,
            parameters=[parameter.described() for parameter in known],
            tags=[operation.partition("_")[0]],
        )(method)
        described.call = Call(action, {parameter.name: parameter for parameter in known}, is_admin_only)
        return described

    return declare


class ApiView(APIView):
    """A call of the API. `target`: what the address names, "site", "namespace" or "repository"; it is looked up, with
    the action that the method declares, before the method runs."""

    target: ClassVar[str] = "site"
    manage_sees: ClassVar[bool] = False  # about the repository, not its content: who may manage it need not read it
    parser_classes = [BoundedJSONParser]
    renderer_classes = [JSONRenderer]
    content_negotiation_class = JSONOnly
    metadata_class = None
    http_method_names = ["get", "head", "post", "put", "patch", "delete"]

    namespace: Namespace
    repository: Repository

    @property
    def actor(self) -> Actor:
        return self.request.user  # type: ignore[return-value]

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        handler = getattr(self, (request.method or "").lower(), None)
        if handler is None or (request.method or "").lower() not in self.http_method_names:
            allowed = sorted(name.upper() for name in self.http_method_names if hasattr(self, name))
            raise MethodNotAllowed("this address does not have that method", allow=allowed)
        declared: Call = handler.call
        self._admit(declared.action, declared.is_admin_only, kwargs)
        self._parameters = self._read_parameters(declared)

    def _admit(self, action: Action, is_admin_only: bool, captured: Mapping[str, str]) -> None:
        if is_admin_only:
            permissions.check_admin(self.actor)
        elif self.target == "site":
            if action is not Action.PUBLIC:
                permissions.check_management(self.actor, site_wide=False)
        elif self.target == "namespace":
            self.namespace = accounts.namespace(self.actor, captured["namespace"], action)
        else:
            key = f"{captured['namespace']}/{captured['name']}"
            self.repository = repositories.repository(self.actor, key, action, manage_sees=self.manage_sees)

    # what came

    def _read_parameters(self, declared: Call) -> dict[str, str]:
        found: dict[str, str] = {}
        for name, values in self.request.query_params.lists():
            parameter = declared.parameters.get(name)
            if parameter is None:
                allowed = ", ".join(declared.parameters) or "none"
                raise BadRequest(f"'{name[:40]}' is not a parameter of this call (allowed: {allowed})")
            if len(values) != 1:
                raise BadRequest(f"parameter '{name}' is given more than once")
            value = values[0]
            if len(value) > (CURSOR_MOST if name == "cursor" else VALUE_MOST):
                raise BadRequest(f"parameter '{name}' is too long")
            if any(character < " " or character == "\x7f" or character == "\ufffd" for character in value):
                raise BadRequest(f"parameter '{name}' contains what is not text")
            if parameter.kind is bool and value not in ("true", "false"):
                raise BadRequest(f"parameter '{name}' must be true or false")
            if parameter.kind is int and not (value.isascii() and value.isdigit() and len(value) <= 18):
                raise BadRequest(f"parameter '{name}' must be a whole number")
            found[name] = value
        for parameter in declared.parameters.values():
            if parameter.required and not found.get(parameter.name):
                raise BadRequest(f"parameter '{parameter.name}' is needed: {parameter.meaning}")
        return found

    def parameter(self, name: str) -> str:
        return self._parameters.get(name, "")

    def flag(self, name: str) -> bool:
        return self._parameters.get(name) == "true"

    def body(self, body: type[Body], *, partial: bool = False) -> dict[str, Any]:
        """The validated body; with `partial` only what was given."""
        read = body(data=self.request.data, partial=partial)
        read.is_valid(raise_exception=True)
        return dict(read.validated_data)

    # what goes

    @property
    def base_url(self) -> str:
        return base_url_of(self.request)

    def page(
        self,
        list_name: str,
        types: Sequence[type],
        fetch: Callable[[Any, int], Iterable[Any]],
        key: Callable[[Any], Sequence[Any]],
        answer: type[serializers.Serializer[Any]],
        show: Callable[[Any], Mapping[str, Any]],
    ) -> Response:
        """`fetch(after, limit)` gives at most `limit` rows after the key of the last one; `after` is None at first.

        A cursor holds that key and the list's name; `types` are the types of its parts.
        """
        limit = min(int(self.parameter("limit") or LIMIT), LIMIT_MOST)
        if limit < 1:
            raise BadRequest("parameter 'limit' must be at least 1")
        given = self.parameter("cursor")
        after = _decode_cursor(given, list_name, types) if given else None
        rows = list(fetch(after, limit + 1))
        more = len(rows) > limit
        rows = rows[:limit]
        following = _encode_cursor(list_name, key(rows[-1])) if more else None
        return self.answer({"items": [answer(show(row)).data for row in rows], "next": following})

    def answer(self, data: Any = None, status: int = 200) -> Response:
        response = Response(data, status=status)
        response["Cache-Control"] = "no-store"
        return response


def _encode_cursor(list_name: str, key: Sequence[Any]) -> str:
    packed = json.dumps([list_name, *key], separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(packed).decode("ascii").rstrip("=")


def _decode_cursor(text: str, list_name: str, types: Sequence[type]) -> Any:
    """The key as the list's `fetch` takes it: one value, or a tuple. Raises BadRequest for anything but our own."""
    wrong = BadRequest("parameter 'cursor' is not one that this list gave")
    try:
        packed = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        value = json.loads(packed.decode("utf-8", "strict"))
    except (binascii.Error, ValueError, RecursionError):
        raise wrong from None
    if not isinstance(value, list) or len(value) != len(types) + 1 or value[0] != list_name:
        raise wrong
    key = value[1:]
    for part, wanted in zip(key, types, strict=True):
        if type(part) is not wanted:
            raise wrong
        if isinstance(part, int) and not 0 <= part < 2**62:
            raise wrong
        if isinstance(part, str) and any(letter < " " or "\ud800" <= letter <= "\udfff" for letter in part):
            raise wrong
    return key[0] if len(key) == 1 else tuple(key)
