"""A prepared query gives what its queryset gives."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection, models
from django.db.models import Q
from django.test.utils import CaptureQueriesContext

from repoman.access import permissions
from repoman.blobs.drivers.base import Driver
from repoman.catalog import selectors
from repoman.catalog.models import Artifact, Namespace, Repository, Tag, Version
from repoman.core.actor import Actor
from repoman.db.prepared import Prepared
from tests.service.content import make_repository, push, put, release

pytestmark = pytest.mark.django_db(transaction=True)


def fields(row: models.Model) -> dict[str, Any]:
    """Every field of the row and of the rows selected with it, with its Python type."""
    found: dict[str, Any] = {}
    for field in row._meta.concrete_fields:
        value = getattr(row, field.attname)
        found[field.attname] = (type(value), value)
        if field.is_relation and field.is_cached(row) and getattr(row, field.name) is not None:
            found[field.name] = fields(getattr(row, field.name))
    return found


def test_prepared_queries_give_what_their_querysets_give(
    blob_store: Driver, actor: Actor, namespace: Namespace
) -> None:
    images = make_repository(namespace, options={"immutable_tags": ["v*"]})
    raw = make_repository(namespace, "raw", "generic", anonymous_read=True)
    layer = push(images, actor, b"layer")
    manifest = release(images, actor, b'{"a": 1}', (layer,), "latest")
    put(raw, actor, "a/b", b"file")

    def both(prepared: Prepared[Any], *arguments: Any) -> None:
        with CaptureQueriesContext(connection) as captured:
            one = prepared.first(*arguments)
        assert len(captured) == 1
        expected = prepared._make(*arguments).first()
        assert one is not None and expected is not None
        assert fields(one) == fields(expected)
        assert [fields(row) for row in prepared.all(*arguments)] == [fields(expected)]

    for _ in range(2):  # compiled, and compiled before
        both(selectors._repository_by_key, images.key)
        both(selectors._repository_by_key, raw.key)
        both(selectors._live_version, images.pk, "app", manifest)
        both(selectors._live_tagged, images.pk, "app", "latest")
        both(selectors._live_artifact, images.pk, "app", layer)
        both(selectors._live_artifact, raw.pk, "a/b", "a/b")
    assert selectors.repository_by_key("team/missing") is None
    assert selectors.live_tagged(images.pk, "app", "' OR 1=1 --") is None
    assert selectors.live_tagged(raw.pk, "app", "latest") is None


def test_rows_of_a_prepared_query_can_be_saved(blob_store: Driver, actor: Actor, namespace: Namespace) -> None:
    make_repository(namespace)
    row = selectors.repository_by_key("team/images")
    assert row is not None and not row._state.adding
    row.description = "changed"
    row.save()
    assert Repository.objects.get().description == "changed"


def test_values_and_constants(namespace: Namespace) -> None:
    make_repository(namespace)
    prepared = Prepared(
        lambda one, other: Repository.objects.filter(
            Q(key=one) | Q(name=other) | Q(key=one), state="active"
        ).values_list("key", "id")
    )
    pk = Repository.objects.get().pk
    assert prepared.all("team/images", "x") == [("team/images", pk)]
    assert prepared.all("x", "images") == [("team/images", pk)]
    assert prepared.all("x", "y") == [] and prepared.first("x", "y") is None


def test_what_cannot_be_prepared_is_refused() -> None:
    by_key = Prepared(lambda key: Repository.objects.filter(key=key))
    for argument in (None, 1.5, True, ["x"]):
        with pytest.raises(TypeError):
            by_key.first(argument)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        Prepared(lambda key: Repository.objects.all()).first("x")
    with pytest.raises(TypeError):
        Prepared(lambda key: Repository.objects.filter(key=key).values("key")).first("x")


def test_roles_come_through_groups_as_before(actor: Actor, namespace: Namespace) -> None:
    from repoman.access.models import Grant, Membership, Principal
    from repoman.core import clock

    repository = make_repository(namespace)
    now = clock.now()
    user = Principal.objects.create(username="member", created_at=now)
    group = Principal.objects.create(username="group", kind="group", created_at=now)
    Membership.objects.create(group=group, member=user)
    member = Actor(principal_id=user.pk, name="member")
    assert permissions.own_actions(member, repository) == frozenset()
    Grant.objects.create(principal=group, repository=repository, role="publisher", created_at=now)
    assert {str(action) for action in permissions.own_actions(member, repository)} == {"read", "publish", "probe"}
    Grant.objects.create(principal=user, namespace=namespace, role="maintainer", created_at=now)
    assert "delete" in permissions.own_actions(member, repository)
    group.is_disabled = True
    group.save()
    Grant.objects.filter(principal=user).delete()
    assert permissions.own_actions(member, repository) == frozenset()


def test_models_used_here_have_no_converters_of_their_own() -> None:
    """A field with from_db_value needs the expression it was selected by; then `Prepared` must be looked at again."""
    for model in (Repository, Artifact, Version, Tag):
        custom = [field.name for field in model._meta.concrete_fields if type(field).__module__.startswith("repoman")]
        assert custom == []
