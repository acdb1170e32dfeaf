"""Jobs, the audit log, and what this API is."""

from __future__ import annotations

import datetime
from typing import Any

from drf_spectacular.renderers import OpenApiJsonRenderer
from drf_spectacular.utils import extend_schema
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerSplitView
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from repoman.core.actor import Action
from repoman.core.errors import BadRequest
from repoman.events.models import Event
from repoman.jobs.models import JobRun
from repoman.services import requests

from ..base import ApiView, Call, Method, Parameter, call
from ..bodies import Body, Free, JSONOnly, Text
from ..errors import UnknownAddress


class JobShown(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    kind = serializers.CharField()
    arguments = serializers.DictField()
    state = serializers.CharField(help_text="queued, running, succeeded or failed")
    requested_by = serializers.CharField()
    attempts = serializers.IntegerField()
    progress = serializers.JSONField(allow_null=True)
    result = serializers.JSONField(allow_null=True)
    error = serializers.CharField()
    created_at = serializers.DateTimeField()
    started_at = serializers.DateTimeField(allow_null=True)
    finished_at = serializers.DateTimeField(allow_null=True)


class JobAsked(Body):
    kind = Text(max_length=40)
    arguments = Free(required=False)


def show_job(row: JobRun) -> dict[str, Any]:
    return {str(name): getattr(row, str(name)) for name in JobShown().fields}


class Jobs(ApiView):
    @call("jobs_list", "Jobs, the newest first", Action.MANAGE, answer=JobShown, is_list=True, is_admin_only=True)
    def get(self, request: Request) -> Response:
        rows = requests.jobs(self.actor).order_by("-pk")
        # Newest first by id: a row that commits late under a lower id is met on a later page, not missed.
        return self.page(
            "jobs",
            [int],
            lambda after, limit: (rows.filter(pk__lt=after) if after is not None else rows)[:limit],
            lambda row: [row.pk],
            JobShown,
            show_job,
        )

    @call(
        "jobs_create",
        "Request a job: collect, purge, fsck…",
        Action.MANAGE,
        body=JobAsked,
        answer=JobShown,
        status=202,
        is_admin_only=True,
    )
    def post(self, request: Request) -> Response:
        given = self.body(JobAsked)
        row = requests.request_job(self.actor, given["kind"], given.get("arguments", {}))
        return self.answer(JobShown(show_job(row)).data, 202)


class Job(ApiView):
    @call("jobs_retrieve", "What became of a job", Action.MANAGE, answer=JobShown, is_admin_only=True)
    def get(self, request: Request, job_id: int) -> Response:
        return self.answer(JobShown(show_job(requests.job(self.actor, job_id))).data)


class EventShown(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    at = serializers.DateTimeField()
    actor = serializers.CharField()
    address = serializers.CharField()
    request_id = serializers.CharField()
    kind = serializers.CharField()
    namespace = serializers.CharField()
    repository = serializers.CharField()
    revision = serializers.IntegerField(allow_null=True)
    subject = serializers.CharField()
    allowed = serializers.BooleanField()
    detail = serializers.DictField()


def show_event(row: Event) -> dict[str, Any]:
    return {str(name): getattr(row, str(name)) for name in EventShown().fields}


def _moment(text: str, name: str) -> datetime.datetime:
    try:
        moment = datetime.datetime.fromisoformat(text)
        return moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)
    except ValueError:
        raise BadRequest(f"parameter '{name}' must be a moment like 2026-01-31T12:00:00Z") from None


class Audit(ApiView):
    @call(
        "audit_list",
        "Who did what, when, from where, allowed or refused; the newest first",
        Action.MANAGE,
        answer=EventShown,
        is_list=True,
        parameters=[
            Parameter("namespace", "Only this namespace's."),
            Parameter("repository", "Only this repository's (ns/name)."),
            Parameter("actor", "Only by this actor."),
            Parameter("kind", "Only this kind, for example tag:move."),
            Parameter("since", "Only at or after this moment."),
        ],
    )
    def get(self, request: Request) -> Response:
        rows = requests.audit(self.actor).order_by("-pk")
        for name in ("namespace", "repository", "actor", "kind"):
            if self.parameter(name):
                rows = rows.filter(**{name: self.parameter(name)})
        if self.parameter("since"):
            rows = rows.filter(at__gte=_moment(self.parameter("since"), "since"))
        # By id, as for jobs: this pages back in time and is no feed to follow.
        return self.page(
            "audit",
            [int],
            lambda after, limit: (rows.filter(pk__lt=after) if after is not None else rows)[:limit],
            lambda row: [row.pk],
            EventShown,
            show_event,
        )


# --- about the API itself --------------------------------------------------------------------------------------------

DOCS_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def public(method: Method) -> Method:
    """Declares a view that is not an ApiView: anybody may call it."""
    method.call = Call(Action.PUBLIC, {}, False)  # type: ignore[attr-defined]
    return method


class Schema(SpectacularAPIView):
    """OpenAPI 3, as JSON."""

    http_method_names = ["get", "head"]
    renderer_classes = [OpenApiJsonRenderer]
    content_negotiation_class = JSONOnly

    @extend_schema(exclude=True)
    @public
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        _refuse_parameters(request)
        return super().get(request, *args, **kwargs)


class Docs(SpectacularSwaggerSplitView):
    """The same to read and try, with scripts and styles of this server only."""

    http_method_names = ["get", "head"]
    content_negotiation_class = JSONOnly

    @extend_schema(exclude=True)
    @public
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        _refuse_parameters(request, "script")
        response = super().get(request, *args, **kwargs)
        response["Content-Security-Policy"] = DOCS_POLICY
        response["X-Frame-Options"] = "DENY"
        response["Referrer-Policy"] = "no-referrer"
        return response


def _refuse_parameters(request: Request, *known: str) -> None:
    unknown = sorted(set(request.query_params) - set(known))
    if unknown:
        raise BadRequest(f"'{unknown[0][:40]}' is not a parameter of this call")


@extend_schema(exclude=True)
class Nothing(ApiView):
    """Every other address below the API's: JSON even then."""

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        raise UnknownAddress()

    @call("nothing", "Nothing", Action.PUBLIC)
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        raise UnknownAddress()
