"""Repositories and what they hold."""

from __future__ import annotations

from typing import Any

import pytest

from repoman.access import epoch
from repoman.access.models import Principal
from repoman.catalog.models import Artifact, Namespace, Package, Repository, RepositoryMember
from repoman.core import clock
from repoman.core.actor import Actor
from repoman.events.models import Event
from repoman.jobs.models import JobRun
from tests.service.content import push, put, release

from .conftest import Caller


def row(key: str) -> Repository:
    return Repository.objects.select_related("namespace").get(key=key)


def owner() -> Actor:
    return Actor(principal_id=Principal.objects.get(username="admin").pk, name="admin", is_admin=True)


def test_a_repository_is_made_shown_and_changed(admin: Caller, acme: str) -> None:
    made = admin.post(
        "namespaces/acme/repositories",
        {
            "name": "images",
            "format": "oci",
            "type": "local",
            "description": "d",
            "anonymous_read": True,
            "options": {"allow_sparse_manifests": True},
        },
    )
    assert made.status == 201 and made.json["url"] == "testserver/acme/images"
    assert made.json["options"] == {"allow_sparse_manifests": True, "immutable_tags": []}
    assert made.json["remote"] is None and made.json["members"] == [] and made.json["anonymous_read"] is True
    where = "repositories/acme/images"
    assert admin.get(where).json == made.json
    again = admin.post("namespaces/acme/repositories", {"name": "images", "format": "generic", "type": "local"})
    assert again.code == "conflict"
    before = epoch.current()
    changed = admin.patch(where, {"options": {"immutable_tags": ["v*"]}, "anonymous_read": False, "state": "read_only"})
    assert changed.json["options"] == {"allow_sparse_manifests": True, "immutable_tags": ["v*"]}
    assert changed.json["state"] == "read_only" and changed.json["anonymous_read"] is False
    assert epoch.current() > before
    changed = admin.patch(where, {"options": {"allow_sparse_manifests": None, "immutable_tags": []}, "state": "active"})
    assert changed.json["options"] == {"allow_sparse_manifests": False, "immutable_tags": []}
    assert admin.patch(where, {}).status == 200
    assert list(Event.objects.filter(repository="acme/images").order_by("pk").values_list("kind", flat=True)) == [
        "repository:create",
        "repository:update",
        "repository:update",
        "repository:update",
    ]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": "ok", "format": "oci"},
        {"name": "ok", "format": "cargo", "type": "local"},
        {"name": "ok", "format": ["oci"], "type": "local"},
        {"name": "ok", "format": "oci", "type": "cloud"},
        {"name": "ok", "format": "oci", "type": "remote", "remote": {"url": "registry.example"}},
        {"name": "ok", "format": "oci", "type": "remote", "remote": {"url": "ftp://registry.example"}},
        {"name": "ok", "format": "oci", "type": "remote", "remote": {"url": "https://user:secret@registry.example"}},
        {"name": "ok", "format": "oci", "type": "remote", "remote": {"url": "https://registry.example/?a=b"}},
        {
            "name": "ok",
            "format": "oci",
            "type": "remote",
            "remote": {"url": "https://registry.example", "metadata_ttl": -1},
        },
        {"name": "ok", "format": "oci", "type": "remote", "remote": {"url": "https://registry.example", "ttl": 1}},
        {"name": "ok", "format": "oci", "type": "remote"},
        {"name": "ok", "format": "oci", "type": "virtual", "members": ["acme/missing"]},
        {"name": "ok", "format": "oci", "type": "virtual", "options": {"strict": "yes"}},
        {"name": "ok", "format": "oci", "type": "local", "options": {"strict": True}},
        {"name": "ok", "format": "oci", "type": "local", "members": ["acme/images"]},
        {"name": "ok", "format": "oci", "type": "local", "remote": {"url": "https://registry.example"}},
        {"name": "ok", "format": "oci", "type": "local", "options": {"allow_overwrite": True}},
        {"name": "ok", "format": "oci", "type": "local", "options": {"immutable_tags": "v*"}},
        {"name": "ok", "format": "oci", "type": "local", "options": {"allow_sparse_manifests": 1}},
        {"name": "ok", "format": "oci", "type": "local", "options": []},
        {"name": "ok", "format": "oci", "type": "local", "anonymous_read": "true"},
        {"name": "api", "format": "oci", "type": "local"},
        {"name": "Ok", "format": "oci", "type": "local"},
        {"name": "../x", "format": "oci", "type": "local"},
        {"name": "o" * 64, "format": "oci", "type": "local"},
    ],
)
def test_repositories_that_make_no_sense_are_refused(admin: Caller, acme: str, body: Any) -> None:
    answer = admin.post("namespaces/acme/repositories", body)
    assert answer.status == 400 and answer.code
    assert not Repository.objects.exists()


def test_a4_an_encoded_key_is_the_plain_one_and_odd_ones_are_nothing(admin: Caller, nobody: Caller, raw: str) -> None:
    assert admin.get("repositories/acme/st%75ff").status == 200
    assert nobody.get("repositories/acme/st%75ff").status == 401
    for path in ("repositories//stuff", "repositories/acme/", "repositories/acme/STUFF", "repositories/acme/a%00b"):
        assert admin.get(path).status == 404, path
    assert admin.get("repositories/acme/stuff/").status == 404  # no trailing slash


def test_anonymous_callers_read_what_is_public(admin: Caller, nobody: Caller, raw: str) -> None:
    for path in ("", "/packages"):
        assert nobody.get(f"repositories/{raw}{path}").code == "authentication_required"
        assert nobody.get(f"repositories/acme/missing{path}").code == "authentication_required"
    assert nobody.get(f"repositories/{raw}").headers["WWW-Authenticate"].startswith("Basic realm=")
    admin.patch(f"repositories/{raw}", {"anonymous_read": True})
    for path in ("", "/packages", "/explain"):
        assert nobody.get(f"repositories/{raw}{path}").status == 200
    assert nobody.delete(f"repositories/{raw}").status == 401
    assert nobody.get("repositories").status == 401


# --- remote and virtual repositories ----------------------------------------------


def test_members_are_checked_and_deletion_names_who_contains_a_repository(
    admin: Caller, images: str, raw: str, make_user: Any
) -> None:
    def virtual(name: str, **fields: Any) -> Any:
        body = {"name": name, "format": "oci", "type": "virtual", **fields}
        return admin.post("namespaces/acme/repositories", body)

    made = virtual("all-images", members=[images], deploy_target=images)
    assert made.status == 201 and made.json["members"] == [images] and made.json["deploy_target"] == images
    assert virtual("x1", members=[raw]).status == 400
    assert virtual("x1", members=[images, images]).status == 400
    assert virtual("x1", members=["acme/missing"]).status == 400
    assert virtual("x1", members=[], deploy_target=images).status == 400
    assert virtual("outer", members=["acme/all-images"]).status == 201
    assert admin.patch("repositories/acme/all-images", {"members": [images, "acme/outer"]}).code == "conflict"
    assert admin.patch("repositories/acme/all-images", {"members": ["acme/all-images"]}).code == "conflict"
    refused = admin.delete(f"repositories/{images}")
    assert refused.code == "conflict" and refused.json["members"] == ["acme/all-images"]
    assert admin.delete(f"repositories/{images}?force=true").status == 204
    shown = admin.get("repositories/acme/all-images").json
    assert shown["members"] == [] and shown["deploy_target"] is None
    assert not RepositoryMember.objects.filter(member__key=images).exists()


def test_k3_a_remotes_password_is_never_shown_and_stored_encrypted(admin: Caller, acme: str) -> None:
    remote = {"url": "https://registry.example", "username": "u", "password": "an upstream password"}
    body = {"name": "mirror", "format": "oci", "type": "remote", "remote": remote}
    made = admin.post("namespaces/acme/repositories", body)
    assert made.status == 201 and made.json["remote"] == {"url": "https://registry.example", "username": "u"}
    stored = row("acme/mirror").remote
    assert stored is not None
    assert "an upstream password" not in str(stored) + str(list(Event.objects.values()))
    where = "repositories/acme/mirror"
    assert admin.patch(where, {"remote": {"metadata_ttl": 5}}).json["remote"]["metadata_ttl"] == 5
    kept = row("acme/mirror").remote
    assert kept is not None and kept["password"] == stored["password"]
    admin.patch(where, {"remote": {"password": None, "username": None}})
    assert row("acme/mirror").remote == {"url": "https://registry.example", "metadata_ttl": 5, "generation": 1}
    for bad in ({"url": None}, {"metadata_ttl": -1}, {"offline": "yes"}, {"unknown": 1}, {"token_realms": [1]}):
        assert admin.patch(where, {"remote": bad}).status == 400


# --- deletion --------------------------------------------------------------------------------------------------------


def test_q12_a_deleted_repository_is_gone_at_once_and_its_name_is_free(admin: Caller, images: str) -> None:
    release(row(images), owner(), b"{}", (push(row(images), owner(), b"layer"),), "v1")
    used = Namespace.objects.get().used_bytes
    old = row(images).pk
    assert used > 0
    assert admin.delete(f"repositories/{images}").status == 204
    for path in ("", "/packages", "/versions?package=app"):
        assert admin.get(f"repositories/{images}{path}").code == "repository_not_found"
    assert admin.delete(f"repositories/{images}").status == 404
    assert admin.get("repositories").json["items"] == []
    assert Event.objects.get(kind="repository:delete").repository == images
    job = JobRun.objects.get()
    assert job.kind == "delete_repository" and job.arguments == {"repository_id": old}
    again = admin.post("namespaces/acme/repositories", {"name": "images", "format": "oci", "type": "local"})
    assert again.status == 201 and again.json["revision"] == 0
    assert row(images).pk != old
    assert admin.get(f"repositories/{images}/packages").json["items"] == []
    from repoman.services.purge import drop_repository

    drop_repository(old)
    assert not Repository.objects.filter(pk=old).exists() and Namespace.objects.get().used_bytes == 0
    assert admin.get(f"repositories/{images}").status == 200


# --- contents --------------------------------------------------------------------------------------------------------


@pytest.fixture
def pushed(images: str) -> dict[str, str]:
    """Two versions of `app` and one of `tools/x`; names of their digests."""
    repository, actor = row(images), owner()
    layer = push(repository, actor, b"layer")
    other = push(repository, actor, b"other", package="tools/x")
    return {
        "layer": layer,
        "one": release(repository, actor, b'{"n":1}', (layer,), "v1", "latest"),
        "two": release(repository, actor, b'{"n":2}', (layer,), "v2"),
        "x": release(repository, actor, b'{"n":3}', (other,), "v1", package="tools/x"),
    }


def test_packages_versions_and_files_are_listed(admin: Caller, images: str, pushed: dict[str, str]) -> None:
    where = f"repositories/{images}"
    assert [item["name"] for item in admin.get(f"{where}/packages").json["items"]] == ["app", "tools/x"]
    assert [item["name"] for item in admin.get(f"{where}/packages?q=OOLS").json["items"]] == ["tools/x"]
    for q in ("%25", "_", "*", "[", "^", "' OR 1=1"):
        assert admin.get(f"{where}/packages?q={q}").json["items"] == []
    versions = admin.get(f"{where}/versions?package=app").json["items"]
    assert [item["version"] for item in versions] == [pushed["two"], pushed["one"]]
    assert versions[1]["tags"] == ["latest", "v1"] and versions[1]["bytes"] == len(b'{"n":1}layer')
    assert versions[0]["uploaded_by"] == "admin" and versions[0]["yanked"] is False
    for version in ("v1", pushed["one"]):
        found = admin.get(f"{where}/versions?package=app&version={version}").json["items"]
        assert [item["version"] for item in found] == [pushed["one"]]
        files = admin.get(f"{where}/files?package=app&version={version}").json["items"]
        assert [(item["name"], item["bytes"], item["digest"]) for item in files] == [
            (pushed["layer"], 5, pushed["layer"])
        ]
    assert admin.get(f"{where}/versions?package=app&version=missing").json["items"] == []
    for call in ("versions", "files"):
        assert admin.get(f"{where}/{call}").status == 400
        assert admin.get(f"{where}/{call}?package=missing").code == "package_not_found"


def test_i8_lists_page_by_opaque_cursors(admin: Caller, acme: str, images: str) -> None:
    repository, actor = row(images), owner()
    expected = []
    for number in range(7):
        name = f"app{number}"
        release(
            repository,
            actor,
            f'{{"n":{number}}}'.encode(),
            (push(repository, actor, b"l", package=name),),
            package=name,
        )
        release(repository, actor, f'{{"m":{number}}}'.encode(), (push(repository, actor, b"l"),), f"t{number}")
        expected.append(name)
    for path, key, count in (("packages", "name", 8), ("versions?package=app", "version", 7)):
        where = f"repositories/{images}/{path}" + ("&" if "?" in path else "?")
        seen, cursor = [], ""
        while True:
            page = admin.get(f"{where}limit=3{cursor}").json
            assert len(page["items"]) <= 3
            seen += [item[key] for item in page["items"]]
            if page["next"] is None:
                break
            cursor = f"&cursor={page['next']}"
        assert len(seen) == len(set(seen)) == count
        assert seen == [item[key] for item in admin.get(f"{where}limit=999999999").json["items"]]
    for path in ("users", "namespaces", "repositories", "tokens", "audit", "jobs", "namespaces/acme/repositories"):
        items, cursor = [], ""
        for _ in range(100):
            page = admin.get(f"{path}?limit=1{cursor}").json
            items += page["items"]
            if page["next"] is None:
                break
            cursor = f"&cursor={page['next']}"
        assert items == admin.get(f"{path}?limit=1000").json["items"]


def test_i8_limits_and_cursors_that_are_not_ours_are_refused(
    admin: Caller, images: str, pushed: dict[str, str]
) -> None:
    import base64
    import json

    where = f"repositories/{images}/versions?package=app"
    good = admin.get(f"{where}&limit=1").json["next"]
    assert admin.get(f"{where}&cursor={good}").status == 200
    for limit in ("-1", "0", "x", "1e3", "", "٣", "1&limit=2", " 1"):
        if limit:
            assert admin.get(f"{where}&limit={limit}").status == 400, limit
    forged = [
        base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")
        for value in (
            None, 7, [], {}, ["versions"], ["packages", 1, "a"], ["versions", "1", "a"], ["versions", True, "a"],
            ["versions", -1, "a"], ["versions", 2**70, "a"], ["versions", 1, "a\0"], ["versions", 1, "\ud800"],
            ["versions", 1, "a", 2],
        )
    ]  # fmt: skip
    for cursor in ("x", "%00", "a" * 5000, good[:-3] + "%3D", "[" * 3000, *forged):
        assert admin.get(f"{where}&cursor={cursor}").status == 400, cursor
    assert admin.get(f"repositories/{images}/packages?cursor={good}").status == 400


def test_a12_unknown_and_repeated_parameters_are_refused(admin: Caller, images: str) -> None:
    for query in (
        "order_by=password",
        "filter=x",
        "package__repository__key=x",
        "q=a&q=b",
        "q=%00",
        "q=%ff",
        "fields=x",
    ):
        assert admin.get(f"repositories/{images}/packages?{query}").status == 400, query
    assert admin.get("users?principal__identities__password_hash__startswith=a").status == 400
    many = "&".join(f"a{number}=1" for number in range(2000))
    assert admin.get(f"users?{many}").status == 400


def test_versions_are_untagged_removed_and_brought_back(admin: Caller, images: str, pushed: dict[str, str]) -> None:
    where = f"repositories/{images}"
    assert admin.delete(f"{where}/versions?package=app&version=latest").status == 204
    assert admin.get(f"{where}/versions?package=app&version=v1").json["items"][0]["tags"] == ["v1"]
    assert admin.delete(f"{where}/versions?package=app&version=latest").code == "version_not_found"
    assert admin.delete(f"{where}/versions?package=app").status == 400
    assert admin.delete(f"{where}/versions?package=app&version=v1&all=true").status == 400
    assert admin.delete(f"{where}/versions?package=app&version={pushed['one']}").status == 204
    assert admin.get(f"{where}/versions?package=app&version=v1").json["items"] == []
    revision = row(images).revision
    back = admin.post(f"{where}/undelete", {"revision": revision})
    assert back.status == 200 and back.json["revision"] == revision + 1 and len(back.json["restored"]) == 2
    assert admin.get(f"{where}/versions?package=app&version=v1").json["items"][0]["version"] == pushed["one"]
    assert admin.post(f"{where}/undelete", {"revision": 999}).status == 404
    assert admin.delete(f"{where}/versions?package=app&all=true").status == 204
    assert [item["name"] for item in admin.get(f"{where}/packages").json["items"]] == ["tools/x"]
    for path in (f"{where}/versions?package=app&version=v1", f"{where}/versions?package=app&version=v1&x=1"):
        assert admin.patch(path, {"yanked": True}).status in (400, 405)


def test_purge_skips_the_trash_and_gives_the_bytes_back(admin: Caller, raw: str, images: str, make_user: Any) -> None:
    repository, actor = row(raw), owner()
    put(repository, actor, "a/b.txt", b"x" * 100)
    put(repository, actor, "a/c.txt", b"y" * 10)
    used = lambda: Namespace.objects.get().used_bytes  # noqa: E731
    assert used() == 110
    maintainer = make_user("mia")
    admin.put(f"repositories/{raw}/grants/mia", {"role": "maintainer"})
    where = f"repositories/{raw}/files?package=a/b.txt"
    assert maintainer.delete(f"{where}&purge=true").code == "forbidden"
    assert admin.get(where).json["items"][0]["name"] == "a/b.txt"
    assert maintainer.delete(where).status == 204
    assert used() == 110 and maintainer.delete(where).status == 404
    assert admin.delete(f"repositories/{raw}/files?package=a/c.txt&name=a/c.txt&purge=true").status == 204
    assert used() == 100
    image = row(images)
    release(image, actor, b'{"n":1}', (push(image, actor, b"z" * 1000),), "v1")
    assert used() == 1107
    assert admin.delete(f"repositories/{images}/versions?package=app&all=true&purge=true").status == 204
    assert not Artifact.objects.filter(package__repository=image, held_by_version=False).exists()
    assert used() == 100


def test_a10_removing_one_leaves_its_neighbours(admin: Caller, raw: str) -> None:
    repository, actor = row(raw), owner()
    for path in ("a-b/1", "a/b-1", "a/b", "ab"):
        if path != "a/b":
            put(repository, actor, path, path.encode())
    assert admin.delete(f"repositories/{raw}/files?package=a-b/1").status == 204
    names = [item["name"] for item in admin.get(f"repositories/{raw}/packages").json["items"]]
    assert names == ["a/b-1", "ab"]


def test_explain_says_why(admin: Caller, ada: Caller, nobody: Caller, raw: str) -> None:
    where = f"repositories/{raw}/explain"
    said = admin.get(f"{where}?actor=ada&action=publish&path=x/y").json
    assert said["allowed"] is False and said["path"] == "x/y" and said["actor"] == "ada" and said["reasons"]
    admin.put(f"repositories/{raw}/grants/ada", {"role": "publisher"})
    assert admin.get(f"{where}?actor=ada&action=publish").json["allowed"] is True
    assert ada.get(f"{where}?action=delete").json["allowed"] is False
    assert ada.get(f"{where}?actor=admin").code == "forbidden"
    assert admin.get(f"{where}?actor=anonymous").json["allowed"] is False
    assert admin.get(f"{where}?actor=missing").code == "user_not_found"
    assert admin.get(f"{where}?action=fly").status == 400
    admin.patch("users/ada", {"disabled": True})
    said = admin.get(f"{where}?actor=ada").json
    assert said["allowed"] is False and "disabled" in said["reasons"][0]


def test_f5_names_in_a_namespace_that_is_not_ones_own_stay_hidden(
    admin: Caller, ada: Caller, raw: str, images: str
) -> None:
    admin.put(f"repositories/{raw}/grants/ada", {"role": "reader"})
    assert [item["key"] for item in ada.get("repositories").json["items"]] == [raw]
    assert ada.get("namespaces/acme/repositories").status == 404
    Package.objects.create(repository=row(images), name="secret", created_at=clock.now())
    assert ada.get(f"repositories/{images}/packages").code == "repository_not_found"
