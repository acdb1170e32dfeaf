"""Addresses of what Django serves: the management API and the web UI. Formats have their own routes."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import include, path


def ui(request: HttpRequest) -> HttpResponse:
    """Until there is a web UI, people who open the server in a browser find the API's documentation."""
    return HttpResponseRedirect("/api/v1/docs")


urlpatterns = [
    path("api/v1/", include("repoman.api.urls")),
    path("ui/", ui),
]
handler400 = "repoman.protocol.django_bridge.bad_request"
handler404 = "repoman.protocol.django_bridge.not_found"
handler500 = "repoman.protocol.django_bridge.server_error"
