"""Deprecating, unpublishing, tags and rights on the wire (contract, section 7)."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from formats.npm import samples
from tests.protocol.npm_client import Registry, escaped, new_registry, refused
from tests.running import Server


@pytest.fixture
def registry(server: Server) -> Registry:
    """Three versions of `@s/n` and one of `other`."""
    found = new_registry(server)
    for version in ("1.0.0", "1.1.0", "2.0.0"):
        found.publish("@s/n", version)
    found.publish("other", "1.0.0")
    return found


def deprecations(registry: Registry, name: str = "@s/n") -> dict[str, str]:
    versions = registry.packument(name)["versions"]
    return {version: manifest["deprecated"] for version, manifest in versions.items() if "deprecated" in manifest}


def written(registry: Registry, name: str = "@s/n") -> Any:
    """The document as clients read it before a change."""
    return registry.packument(f"{name}?write=true", accept="*/*")


# --- 7.1: deprecate --------------------------------------------------------------------------------------------------


def test_npm_7_1_1_deprecate_and_take_it_back(registry: Registry) -> None:
    document = written(registry)
    for version in ("1.0.0", "1.1.0"):
        document["versions"][version]["deprecated"] = "use 2 \u2192"
    answer = registry.put("@s%2fn", document)
    assert answer.status_code == 200 and answer.json()["ok"] is True
    assert deprecations(registry) == {"1.0.0": "use 2 \u2192", "1.1.0": "use 2 \u2192"}
    document = written(registry)
    document["versions"]["1.0.0"]["deprecated"] = ""
    registry.put("@s%2fn", document)
    assert deprecations(registry) == {"1.1.0": "use 2 \u2192"}
    document = written(registry)
    del document["versions"]["1.1.0"]["deprecated"]
    registry.put("@s%2fn", document)
    assert deprecations(registry) == {}


def test_npm_7_1_2_15_14_nothing_else_changes(registry: Registry) -> None:
    before = registry.packument("@s/n")
    document = written(registry)
    document["versions"]["1.0.0"].update(
        deprecated="old", description="evil", dist={"tarball": "http://evil.example/x.tgz"}, dependencies={"evil": "1"}
    )
    document["versions"]["9.9.9"] = dict(document["versions"]["1.0.0"], version="9.9.9")
    document["dist-tags"] = {"latest": "1.0.0", "evil": "1.0.0"}
    document.update(readme="evil", time={}, maintainers=[{"name": "mallory"}], users={"mallory": True})
    assert registry.put("@s%2fn", document).status_code == 200
    after = registry.packument("@s/n")
    assert after["versions"]["1.0.0"].pop("deprecated") == "old"
    for changing in ("_rev", "time"):
        assert before.pop(changing) != after.pop(changing)
    assert after == before


def test_npm_7_1_4_versions_that_are_not_in_the_document_stay(registry: Registry) -> None:
    document = written(registry)
    document["versions"] = {"2.0.0": dict(document["versions"]["2.0.0"], deprecated="no")}
    registry.put("@s%2fn", document)
    assert registry.versions("@s/n") == ["1.0.0", "1.1.0", "2.0.0"] and deprecations(registry) == {"2.0.0": "no"}


def test_npm_7_1_an_older_document_takes_nothing_back(registry: Registry) -> None:
    older = written(registry)
    newer = written(registry)
    newer["versions"]["1.0.0"]["deprecated"] = "old"
    registry.put("@s%2fn", newer)
    older["versions"]["1.1.0"]["deprecated"] = "older"
    registry.put("@s%2fn", older)
    assert deprecations(registry) == {"1.0.0": "old", "1.1.0": "older"}


def test_npm_7_1_publishers_may_deprecate_and_readers_may_not(registry: Registry) -> None:
    document = written(registry)
    document["versions"]["1.0.0"]["deprecated"] = "old"
    refused(registry.as_role("reader").put("@s%2fn", document), 403)
    assert registry.as_role("publisher").put("@s%2fn", document).status_code == 200
    refused(registry.put("nobody", dict(document, name="nobody", _id="nobody")), 404)


@pytest.mark.parametrize("value", [7, ["x"], {"x": 1}, "x" * 5000])
def test_npm_7_1_a_note_is_a_text(registry: Registry, value: Any) -> None:
    document = written(registry)
    document["versions"]["1.0.0"]["deprecated"] = value
    refused(registry.put("@s%2fn", document), 400)


def test_npm_7_1_a_document_that_changes_nothing_raises_no_revision(registry: Registry) -> None:
    document = written(registry)
    assert registry.put("@s%2fn", document).status_code == 200
    assert written(registry)["_rev"] == document["_rev"]


def test_W5_deprecations_at_once_are_all_kept(registry: Registry) -> None:
    def deprecate(version: str) -> int:
        document = written(registry)
        document["versions"][version]["deprecated"] = f"not {version}"
        return registry.put("@s%2fn", document).status_code

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(deprecate, ["1.0.0", "1.1.0", "2.0.0"])) == [200] * 3
    assert deprecations(registry) == {version: f"not {version}" for version in ("1.0.0", "1.1.0", "2.0.0")}


# --- 7.2: unpublish --------------------------------------------------------------------------------------------------


def test_npm_7_2_1_one_version_as_npm_removes_it(registry: Registry) -> None:
    registry.put("-/package/@s%2fn/dist-tags/two", "2.0.0")
    document = written(registry)
    tarball = document["versions"]["2.0.0"]["dist"]["tarball"]
    del document["versions"]["2.0.0"]
    document["dist-tags"] = {"latest": "1.1.0"}
    assert registry.put(f"@s%2fn/-rev/{document['_rev']}", document).status_code == 200
    assert registry.versions("@s/n") == ["1.0.0", "1.1.0"] and registry.tags("@s/n") == {"latest": "1.1.0"}
    refused(registry.client.get(tarball), 404)
    path = tarball.removeprefix(registry.url)
    again = written(registry)["_rev"]
    assert registry.ask("DELETE", f"{path}/-rev/{again}").status_code == 200
    assert registry.ask("DELETE", f"@s%2fn/-/n-2.0.0.tgz/-rev/{again}").status_code == 200
    assert registry.versions("other") == ["1.0.0"]


def test_npm_7_2_7_several_versions_in_one_document(registry: Registry) -> None:
    document = written(registry)
    for version in ("1.1.0", "2.0.0"):
        del document["versions"][version]
    assert registry.put(f"@s%2fn/-rev/{document['_rev']}", document).status_code == 200
    assert registry.versions("@s/n") == ["1.0.0"] and registry.tags("@s/n") == {"latest": "1.0.0"}


def test_npm_6_14_latest_is_kept_by_a_stable_version_after_an_unpublish(registry: Registry) -> None:
    registry.publish("@s/n", "3.0.0-rc.1", tag="next")
    document = written(registry)
    del document["versions"]["2.0.0"]
    registry.put(f"@s%2fn/-rev/{document['_rev']}", document)
    assert registry.tags("@s/n") == {"latest": "1.1.0", "next": "3.0.0-rc.1"}
    registry.publish("@s/n", "3.0.0-rc.2", tag="next")
    assert registry.tags("@s/n") == {"latest": "1.1.0", "next": "3.0.0-rc.2"}


def test_npm_7_2_4_a_whole_package(registry: Registry) -> None:
    revision = written(registry)["_rev"]
    assert registry.ask("DELETE", f"@s%2fn/-rev/{revision}").status_code == 200
    refused(registry.get("@s%2fn"), 404)
    refused(registry.get("@s/n/-/n-1.0.0.tgz"), 404)
    refused(registry.ask("DELETE", f"@s%2fn/-rev/{revision}"), 404)
    assert registry.versions("other") == ["1.0.0"]


@pytest.mark.parametrize("revision", ["undefined", "1-stale", "0", "null", "1-" + "0" * 16])
def test_npm_7_2_6_a_stale_revision_is_refused(registry: Registry, revision: str) -> None:
    document = written(registry)
    del document["versions"]["1.0.0"]
    refused(registry.put(f"@s%2fn/-rev/{revision}", document), 409)
    refused(registry.ask("DELETE", f"@s%2fn/-rev/{revision}"), 409)
    refused(registry.ask("DELETE", f"@s%2fn/-/n-1.0.0.tgz/-rev/{revision}"), 409)
    older = written(registry)["_rev"]
    registry.publish("@s/n", "3.0.0")
    refused(registry.put(f"@s%2fn/-rev/{older}", document), 409)
    refused(registry.ask("DELETE", f"@s%2fn/-rev/{older}"), 409)
    assert len(registry.versions("@s/n")) == 4


def test_npm_7_2_another_package_s_change_does_not_make_a_revision_stale(registry: Registry) -> None:
    revision = written(registry)["_rev"]
    registry.publish("other", "2.0.0")
    assert registry.ask("DELETE", f"@s%2fn/-rev/{revision}").status_code == 200


def test_npm_7_2_5_15_13_a_document_about_people_removes_nothing(registry: Registry) -> None:
    revision = written(registry)["_rev"]
    owners = {"_id": "@s/n", "_rev": revision, "maintainers": [{"name": "bob", "email": ""}]}
    refused(registry.put(f"@s%2fn/-rev/{revision}", owners), 403, "roles")
    stars = {"_id": "@s/n", "_rev": revision, "users": {"bob": True}}
    for path in ("@s%2fn", f"@s%2fn/-rev/{revision}"):
        refused(registry.put(path, stars), 404)
        refused(registry.put(path, {"_id": "@s/n", "_rev": revision}), 400)
        refused(registry.put(path, {}), 400)
    assert registry.versions("@s/n") == ["1.0.0", "1.1.0", "2.0.0"]


def test_npm_7_2_8_F6_removing_needs_more_than_publishing(registry: Registry) -> None:
    publisher = registry.as_role("publisher")
    document = written(registry)
    del document["versions"]["1.0.0"]
    revision = document["_rev"]
    refused(publisher.put(f"@s%2fn/-rev/{revision}", document), 403)
    refused(publisher.ask("DELETE", f"@s%2fn/-rev/{revision}"), 403)
    refused(publisher.ask("DELETE", f"@s%2fn/-/n-1.0.0.tgz/-rev/{revision}"), 403)
    assert registry.versions("@s/n") == ["1.0.0", "1.1.0", "2.0.0"]


def test_A10_names_and_versions_that_read_alike_are_apart(registry: Registry) -> None:
    first = registry.publish("a-b", "1.0.0")
    second = registry.publish("a", "1.0.0-b-1.0.0")
    assert registry.get("a-b/-/a-b-1.0.0.tgz").content == first != second
    assert registry.ask("DELETE", f"a-b/-rev/{written(registry, 'a-b')['_rev']}").status_code == 200
    assert registry.versions("a") == ["1.0.0-b-1.0.0"]


def test_the_rest_api_sees_and_removes_what_npm_published(registry: Registry) -> None:
    admin = registry.server.admin
    where = f"/api/v1/repositories/{registry.key}"
    names = {item["name"] for item in admin.get(f"{where}/packages").json()["items"]}
    assert names == {"@s/n", "other"}
    items = admin.get(f"{where}/versions", params={"package": "@s/n"}).json()["items"]
    assert {item["version"] for item in items} == {"1.0.0", "1.1.0", "2.0.0"}
    assert admin.delete(f"{where}/versions", params={"package": "@s/n", "version": "2.0.0"}).status_code == 204
    assert registry.versions("@s/n") == ["1.0.0", "1.1.0"] and registry.tags("@s/n") == {"latest": "1.1.0"}
    noted = admin.patch(
        f"{where}/versions", params={"package": "@s/n", "version": "1.0.0"}, json={"deprecated": "by the API"}
    )
    assert noted.is_success, noted.text
    assert deprecations(registry) == {"1.0.0": "by the API"}


# --- 7.3: dist-tags --------------------------------------------------------------------------------------------------


def test_npm_7_3_tags_are_set_listed_and_removed(registry: Registry) -> None:
    assert registry.tags("@s/n") == {"latest": "2.0.0"}
    answer = registry.ask("PUT", "-/package/@s%2fn/dist-tags/stable", content=b'"1.0.0"')
    assert answer.status_code in (200, 201)
    assert registry.ask("POST", "-/package/@s%2fn/dist-tags/lts", content=b'"1.1.0"').status_code in (200, 201)
    assert registry.tags("@s/n") == {"latest": "2.0.0", "lts": "1.1.0", "stable": "1.0.0"}
    registry.put("-/package/@s%2fn/dist-tags/latest", "1.1.0")
    assert registry.packument("@s/n")["dist-tags"]["latest"] == "1.1.0"
    assert registry.ask("DELETE", "-/package/@s%2fn/dist-tags/stable").status_code == 200
    refused(registry.ask("DELETE", "-/package/@s%2fn/dist-tags/stable"), 404)
    assert registry.tags("@s/n") == {"latest": "1.1.0", "lts": "1.1.0"}


def test_npm_7_3_3_latest_is_not_removed(registry: Registry) -> None:
    refused(registry.ask("DELETE", "-/package/@s%2fn/dist-tags/latest"), 403)


@pytest.mark.parametrize("tag", ["1.x", "v1", "1.0.0", "x", "%2e%2e", "a%20b", "%C3%A9", "a" * 200, "-a"])
def test_npm_7_3_4_A9_tags_that_are_none_are_refused(registry: Registry, tag: str) -> None:
    refused(registry.put(f"-/package/@s%2fn/dist-tags/{tag}", "1.0.0"), 400)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ('"9.9.9"', 404),
        ('"latest"', 400),
        ("1.0.0", 400),
        ("", 400),
        ("{}", 400),
        ("null", 400),
        ('"' + "1" * 70_000 + '"', 413),
    ],
)
def test_npm_7_3_4_the_version_must_be_there(registry: Registry, body: str, status: int) -> None:
    refused(registry.ask("PUT", "-/package/@s%2fn/dist-tags/t", content=body.encode()), status)
    refused(registry.ask("PUT", "-/package/nobody/dist-tags/t", content=b'"1.0.0"'), 404)


def test_npm_7_3_who_may_move_tags(registry: Registry) -> None:
    refused(registry.as_role("reader").put("-/package/@s%2fn/dist-tags/t", "1.0.0"), 403)
    assert registry.as_role("publisher").put("-/package/@s%2fn/dist-tags/t", "1.0.0").status_code == 201
    refused(registry.get("-/package/nobody/dist-tags"), 404)


def test_immutable_tags_do_not_move(server: Server) -> None:
    registry = new_registry(server, options={"immutable_tags": ["release-*"]})
    registry.publish("n", "1.0.0", tag="release-1")
    document, _ = samples.publication("n", "1.1.0", tag="release-1")
    refused(registry.put("n", document), 403)
    refused(registry.put("-/package/n/dist-tags/release-1", "1.0.1"), 404)
    assert registry.tags("n") == {"latest": "1.0.0", "release-1": "1.0.0"}


def test_W1_tags_set_at_once(registry: Registry) -> None:
    versions = ["1.0.0", "1.1.0", "2.0.0"] * 4
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda version: registry.put("-/package/@s%2fn/dist-tags/moving", version), versions))
        others = list(
            pool.map(lambda number: registry.put(f"-/package/@s%2fn/dist-tags/t{number}-", "1.0.0"), range(12))
        )
    assert {answer.status_code for answer in (*answers, *others)} == {201}
    tags = registry.tags("@s/n")
    assert tags.pop("moving") in versions and len(tags) == 13


# --- 7.4: who may what -----------------------------------------------------------------------------------------------


def test_npm_7_4_rights_as_npm_asks_for_them(registry: Registry) -> None:
    name = registry.get("-/whoami").json()["username"]
    assert registry.get("-/package/@s%2fn/collaborators").json() == {name: "read-write"}
    reader = registry.as_role("reader")
    assert list(reader.get("-/package/@s%2fn/collaborators?format=cli").json().values()) == ["read-only"]
    assert registry.get("-/package/@s%2fn/visibility").json() == {"public": False}
    assert registry.get("-/package/@s%2fn/access").json()["access"] == "restricted"
    assert registry.get("-/org/s/package").json() == {"@s/n": "read-write"}
    assert registry.get("-/org/%40s/package").json() == {"@s/n": "read-write"}
    refused(registry.get("-/org/t/package"), 404)
    assert registry.get(f"-/user/{name}/package").json() == {"@s/n": "read-write", "other": "read-write"}
    refused(registry.get("-/user/admin/package"), 404)
    for path in ("-/package/nobody/visibility", "-/package/nobody/collaborators", "-/team/s/t/user", "-/org/s/team"):
        refused(registry.get(path), 404)


def test_npm_7_4_1_users(registry: Registry) -> None:
    name = registry.get("-/whoami").json()["username"]
    assert registry.get(f"-/user/org.couchdb.user:{name}").json()["name"] == name
    assert registry.get("-/user/org.couchdb.user:admin").json()["email"] == ""
    refused(registry.get("-/user/org.couchdb.user:nobody-of-that-name"), 404)


def test_F5_strangers_do_not_learn_who_is_there(server: Server) -> None:
    registry = new_registry(server, anonymous_read=True)
    registry.publish("n", "1.0.0")
    anyone = registry.as_other(server.client())
    for user in ("admin", "nobody-of-that-name"):
        refused(anyone.get(f"-/user/org.couchdb.user:{user}"), 401)
    assert anyone.get("-/package/n/collaborators").json() == {}


def test_npm_7_4_2_access_is_the_repository_s(server: Server) -> None:
    for public in (True, False):
        registry = new_registry(server, anonymous_read=public)
        registry.publish("@s/n", "1.0.0")
        path = "-/package/@s%2fn/access"
        assert registry.ask("POST", path, json={"access": "restricted"}).status_code == 200
        assert registry.get("-/package/@s%2fn/visibility").json() == {"public": False}
        answer = registry.ask("POST", path, json={"access": "public"})
        assert answer.status_code == (200 if public else 403)
        assert registry.get("-/package/@s%2fn/visibility").json() == {"public": public}
        refused(registry.ask("POST", path, json={"access": "everyone"}), 403)
        refused(registry.ask("POST", path, json={"publish_requires_tfa": True}), 403)
        assert registry.ask("POST", path, json={"publish_requires_tfa": False}).status_code == 200
        refused(registry.ask("POST", "-/package/nobody/access", json={"access": "restricted"}), 404)
        assert registry.versions("@s/n") == ["1.0.0"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", "-/user/v1/star"),
        ("DELETE", "-/user/v1/star"),
        ("GET", '-/_view/starredByUser?key="x"'),
        ("GET", "-/stage"),
    ],
)
def test_npm_7_4_5_what_is_not_offered_is_404(registry: Registry, method: str, path: str) -> None:
    refused(registry.ask(method, path), 404)


def test_R7_changes_are_in_the_audit_log(registry: Registry) -> None:
    document = written(registry)
    document["versions"]["1.0.0"]["deprecated"] = "old"
    registry.put("@s%2fn", document)
    registry.put("-/package/@s%2fn/dist-tags/t", "1.0.0")
    registry.ask("DELETE", f"@s%2fn/-rev/{written(registry)['_rev']}")
    refused(registry.as_role("reader").put("@s%2fn", document), 403)
    namespace = registry.key.split("/")[0]
    kinds = [
        row["kind"]
        for row in registry.server.admin.get(f"/api/v1/audit?namespace={namespace}&limit=200").json()["items"]
    ]
    assert {"version:publish", "tag:move", "access:refused"} <= set(kinds), kinds
    assert sum(kind == "version:publish" for kind in kinds) == 4
    assert any("remove" in kind or "delete" in kind for kind in kinds), kinds
    assert json.dumps(kinds).count("version:") >= 6 and escaped("@s/n") == "@s%2fn"
