"""The API describes itself completely and its pages need nothing from elsewhere."""

from __future__ import annotations

import io
import re
from typing import Any

from django.contrib.staticfiles import finders
from django.core.management import call_command

from .conftest import Caller


def test_the_schema_is_valid_and_made_without_warnings() -> None:
    out = io.StringIO()
    call_command("spectacular", validate=True, fail_on_warn=True, stdout=out)
    assert "openapi: 3" in out.getvalue()


def test_the_schema_holds_every_call_and_no_inner_words(nobody: Caller) -> None:
    answer = nobody.get("schema", HTTP_ACCEPT="application/json")
    assert answer.status == 200 and answer.json["openapi"].startswith("3.")
    paths = answer.json["paths"]
    assert set(paths["/api/v1/repositories/{namespace}/{name}/versions"]) == {"get", "patch", "delete"}
    operations = [operation for methods in paths.values() for operation in methods.values()]
    assert len({operation["operationId"] for operation in operations}) == len(operations) >= 30
    assert all(operation["summary"] and "4XX" in operation["responses"] for operation in operations)
    assert {"basic", "token"} <= set(answer.json["components"]["securitySchemes"])
    assert "is_admin_only" not in answer.content.decode()


def test_the_pages_load_only_from_this_server(nobody: Caller) -> None:
    answer = nobody.get("docs")
    text = answer.content.decode()
    assert answer.status == 200 and answer.headers["Content-Type"].startswith("text/html")
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "script-src 'self';" in policy and "http" not in policy
    addresses = re.findall(r'(?:src|href)="([^"]*)"', text)
    assert addresses and all(address.startswith("/") and not address.startswith("//") for address in addresses)
    for address in addresses:
        if address.startswith("/static/"):
            assert finders.find(address.removeprefix("/static/")) is not None
    assert "<script>" not in text
    script = nobody.get("docs?script=")
    assert script.status == 200 and b"/api/v1/schema" in script.content
    assert nobody.get("docs?lang=%22%3Cscript").status == 400
    assert nobody.get("schema?x=1").code == "bad_request"


def test_every_answer_has_the_described_fields(admin: Any, raw: str) -> None:
    schema = admin.get("schema").json["components"]["schemas"]
    for path, name in (
        (f"repositories/{raw}", "RepositoryShown"),
        ("namespaces/acme", "NamespaceShown"),
        ("users/admin", "UserShown"),
    ):
        assert set(admin.get(path).json) == set(schema[name]["properties"])
