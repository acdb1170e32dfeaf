"""What a Maven repository takes, replaces and gives up: options, rights, sizes, and transfers that end badly
(contract sections 2, 8, 9 and 10)."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path
from typing import Any

import httpx
import pytest

from formats.maven import samples
from formats.maven.samples import Coordinates
from tests.protocol import edge_client
from tests.protocol.maven_client import METADATA, Maven, missing, new_maven, refused
from tests.protocol.oci_client import in_chunks
from tests.running import Deployment, Server

DEMO = Coordinates()
SNAPSHOT = Coordinates(version="1.0-SNAPSHOT")
BUILDS = tuple(f"2024010{number}.030405-{number}" for number in range(1, 6))
JAR, POM = DEMO.path(), DEMO.path("pom")
DATA = samples.jar()


@pytest.fixture
def maven(server: Server) -> Maven:
    return new_maven(server)


# --- replacing -------------------------------------------------------------------------------------------------------


def test_maven_w1_w8_e13_r12_a_deploy_that_is_repeated(maven: Maven) -> None:
    first = maven.put(JAR, DATA)
    Maven.created(first)
    assert maven.client.get(first.headers["location"]).content == DATA
    maven.deploy(DEMO)
    revision = maven.get(DEMO.metadata).headers["etag"]
    maven.deploy(DEMO)
    assert maven.get(DEMO.metadata).headers["etag"] == revision, "nothing changed"


def test_maven_9_r1_r3_r4_w10_f6_a_release_stays_what_it_is(maven: Maven) -> None:
    maven.deploy(DEMO)
    for role in ("publisher", "maintainer"):
        other = maven.as_other(maven.server.user(maven.key, role))
        for path in (JAR, POM):
            data = b"other" if path == JAR else samples.pom(DEMO, more="<name>other</name>")
            refused(other.put(path, data), 409, "conflict", "already published with other content")
    assert maven.get(JAR).content == DATA
    assert maven.problems() == []


def test_maven_v5_allow_redeploy_needs_the_right_to_delete(server: Server) -> None:
    maven = new_maven(server, options={"allow_redeploy": True})
    publisher = maven.as_other(server.user(maven.key, "publisher"))
    publisher.deploy(DEMO)
    refused(publisher.put(JAR, b"other"), 403, "forbidden")
    assert maven.get(JAR).content == DATA
    Maven.created(publisher.put(JAR, DATA))
    for data in (samples.jar("second"), samples.jar("third")):
        Maven.created(maven.put(f"{JAR}.sha1", b"0" * 40))  # of what was there, or of what comes: nobody knows
        Maven.created(maven.put(JAR, data))
        assert maven.get(JAR).content == data and maven.versions() == ["1.0"]
    listed = server.admin.get(
        f"/api/v1/repositories/{maven.key}/files", params={"package": DEMO.package, "version": "1.0"}
    ).json()
    assert sorted(item["name"] for item in listed["items"]) == ["1.0/demo-1.0.jar", "1.0/demo-1.0.pom"]
    assert maven.problems() == []


def test_maven_h12_v5_what_may_be_replaced_is_asked_for_again(server: Server) -> None:
    """A file and its checksums alike, by the option as it is now; also through a virtual repository."""
    maven = new_maven(server)
    virtual = new_maven(server, type="virtual", members=[maven.key])
    maven.put_all({JAR: DATA})
    for may_change in (False, True, False):
        options = {"options": {"allow_redeploy": may_change}}
        assert server.admin.patch(f"/api/v1/repositories/{maven.key}", json=options).status_code == 200
        for path in (JAR, f"{JAR}.sha1"):
            for _ in range(2):
                told = maven.get(path).headers["cache-control"]
                assert ("immutable" not in told) is may_change, path
                told = server.admin.get(f"/maven/{virtual.key}/{path}").headers["cache-control"]
                assert ("immutable" not in told) is may_change, path


def test_maven_s5_e25_v5_a_snapshot_under_its_plain_name_is_replaced_by_publishers(maven: Maven) -> None:
    publisher = maven.as_other(maven.server.user(maven.key, "publisher"))
    for text in ("1", "2", "2", "3"):
        publisher.deploy(SNAPSHOT, text=text, says_whole=False)
        assert maven.get(SNAPSHOT.path()).content == samples.jar(text)
        assert maven.metadata(SNAPSHOT.folder()).findtext("versioning/snapshot/localCopy") == "true"
    assert maven.versions() == ["1.0-SNAPSHOT"]
    Maven.created(publisher.put(f"{SNAPSHOT.folder()}/notes.txt", b"1"))
    Maven.created(publisher.put(f"{SNAPSHOT.folder()}/notes.txt", b"2"))
    assert maven.problems() == []


def test_maven_v5_a_build_of_a_snapshot_stays_what_it_is(maven: Maven) -> None:
    maven.deploy(SNAPSHOT, build=BUILDS[0])
    maven.deploy(SNAPSHOT, build=BUILDS[0])
    refused(maven.put(SNAPSHOT.path(build=BUILDS[0]), b"other"), 409, "conflict")


def test_maven_w2_w10_many_publish_one_name(maven: Maven) -> None:
    from concurrent.futures import ThreadPoolExecutor

    bodies = [b"%d" % (number % 10) for number in range(30)]
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda data: maven.put(JAR, data), bodies))
    assert {answer.status_code for answer in answers} == {201, 409}
    kept = maven.get(JAR).content
    assert [answer.status_code for answer in answers] == [201 if data == kept else 409 for data in bodies]


def test_maven_w6_e22_a_request_without_a_body_is_no_empty_file(maven: Maven) -> None:
    for path in (JAR, f"{JAR}.sha1", DEMO.metadata):
        assert maven.raw("PUT", path)[0] == 411
    missing(maven.get(JAR))
    assert maven.raw("PUT", JAR, content_length="0")[0] == 201
    assert maven.get(JAR).content == b""


def test_maven_w6_conditions_of_uploads_and_removals(maven: Maven) -> None:
    for headers in ({"If_Match": "*"}, {"If_Match": '"0"'}):
        refused(maven.put(JAR, DATA, **headers), 412, "precondition_failed")
    Maven.created(maven.put(JAR, DATA, If_None_Match="*"))
    etag = maven.get(JAR).headers["etag"]
    for headers in ({"If_None_Match": "*"}, {"If_None_Match": etag}, {"If_Match": '"0"'}):
        refused(maven.put(JAR, DATA, **headers), 412, "precondition_failed")
    Maven.created(maven.put(JAR, DATA, If_Match=etag))
    refused(maven.ask("DELETE", JAR, headers={"If-Match": '"0"'}), 412, "precondition_failed")
    assert maven.ask("DELETE", JAR, headers={"If-Match": etag}).status_code == 204


def test_maven_w12_what_is_not_there_is_not_removed(maven: Maven) -> None:
    derived = (f"{JAR}.sha1", DEMO.metadata, f"{DEMO.metadata}.sha1")
    for path in (JAR, *derived):
        missing(maven.delete(path))
    maven.deploy(DEMO)
    assert [maven.delete(path).status_code for path in derived] == [204] * 3
    assert maven.versions() == ["1.0"], "what is derived goes with what it is derived from"


def test_maven_v5_g7_a_signature_of_metadata_is_let_go(maven: Maven) -> None:
    maven.deploy(DEMO)
    for folder in ("org/example", DEMO.folder(), "org/example/demo", "org"):
        for text in (b"one", b"two"):
            for suffix in (".asc", ".asc.sha1", ".sigstore.json"):
                data = b"0" * 40 if suffix.endswith("sha1") else text
                Maven.created(maven.put(f"{folder}/{METADATA}{suffix}", data))
                missing(maven.get(f"{folder}/{METADATA}{suffix}"))
    assert METADATA + ".asc" not in maven.get(f"{DEMO.folder()}/").text


# --- which versions --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("policy", "inside", "outside"), [("release", DEMO, SNAPSHOT), ("snapshot", SNAPSHOT, DEMO)])
def test_maven_v4_v6_9_version_policy(server: Server, policy: str, inside: Coordinates, outside: Coordinates) -> None:
    maven = new_maven(server, options={"version_policy": policy})
    maven.deploy(inside)
    for path in (outside.path(), outside.path("pom"), f"{outside.path()}.sha1", f"{outside.folder()}/notes.txt"):
        refused(maven.put(path, b"x"), 400, "bad_request", "version_policy")
        missing(maven.get(path))
    if policy == "release":
        refused(maven.put(f"{outside.folder()}/{METADATA}", b"<metadata/>"), 400, "bad_request", "version_policy")
        refused(maven.put(SNAPSHOT.path(build=BUILDS[0]), b"x"), 400, "bad_request", "version_policy")
    Maven.created(maven.put(inside.metadata, samples.metadata(inside, [outside.version, inside.version])))
    assert maven.versions() == [inside.version]
    # V4: what is about a group or an artifact is always allowed; and a folder without its slash is found.
    Maven.created(maven.put(f"org/example/{METADATA}", b"<metadata><plugins/></metadata>"))
    assert maven.get(inside.folder()).status_code == 301


def test_maven_v4_what_was_there_before_the_policy_stays_readable_by_every_way(server: Server) -> None:
    maven = new_maven(server)
    maven.deploy(SNAPSHOT)
    changed = server.admin.patch(f"/api/v1/repositories/{maven.key}", json={"options": {"version_policy": "release"}})
    assert changed.status_code == 200
    for headers in ({}, {}, {"If_None_Match": '"x"'}, {"Range": "bytes=0-"}):
        assert maven.get(SNAPSHOT.path(), **headers).status_code in (200, 206)
        assert maven.get(SNAPSHOT.path(), "HEAD", **headers).status_code in (200, 206)
    assert maven.get(f"{SNAPSHOT.folder()}/{METADATA}").status_code == 200
    refused(maven.put(SNAPSHOT.path(), b"x"), 400, "bad_request")


def test_maven_v4_h7_a_virtual_repository_shows_what_its_deploy_target_would_not_take(server: Server) -> None:
    releases = new_maven(server, options={"version_policy": "release"})
    snapshots = new_maven(server, options={"version_policy": "snapshot"})
    releases.deploy(DEMO)
    snapshots.deploy(SNAPSHOT, build=BUILDS[0])
    key = server.make_repository(
        format="maven", type="virtual", members=[releases.key, snapshots.key], deploy_target=releases.key
    )
    both = Maven(server, server.admin, key)
    assert both.versions() == ["1.0-SNAPSHOT", "1.0"]
    assert both.get(SNAPSHOT.path(build=BUILDS[0])).status_code == 200
    assert both.builds(SNAPSHOT)[("", "jar")] == f"1.0-{BUILDS[0]}"
    refused(both.put(SNAPSHOT.path(build=BUILDS[1]), b"x"), 400, "bad_request", "version_policy")


@pytest.mark.parametrize(
    "options", [{"version_policy": "releases"}, {"keep_snapshots": -1}, {"allow_redeploy": "yes"}, {"unknown": 1}]
)
def test_maven_options_are_checked(embedded: Server, options: dict[str, Any]) -> None:
    namespace = embedded.make_namespace()
    body = {"name": "repo", "format": "maven", "type": "local", "options": options}
    answer = embedded.admin.post(f"/api/v1/namespaces/{namespace}/repositories", json=body)
    assert answer.status_code == 400 and next(iter(options)) in answer.text


# --- keep_snapshots --------------------------------------------------------------------------------------------------


def test_maven_v6_s6_s7_e26_old_builds_leave_with_what_speaks_of_them(server: Server) -> None:
    maven = new_maven(server, options={"keep_snapshots": 2})
    sources = SNAPSHOT.path("jar", "sources", BUILDS[0])
    for number, build in enumerate(BUILDS):
        maven.deploy(SNAPSHOT, build=build, text=build, more={sources: b"sources"} if number == 0 else {})
        root = maven.metadata(SNAPSHOT.folder())
        assert root.findtext("versioning/snapshot/buildNumber") == str(number + 1)
        for (classifier, extension), value in maven.builds(SNAPSHOT).items():
            path = SNAPSHOT.path(extension, classifier, value.removeprefix("1.0-"))
            assert maven.get(path).status_code == 200, path
    assert [maven.get(SNAPSHOT.path(build=build)).status_code for build in BUILDS] == [404, 404, 404, 200, 200]
    assert maven.get(f"{SNAPSHOT.path(build=BUILDS[0])}.sha1").status_code == 404
    assert maven.get(sources).status_code == 200, "nothing newer has sources"
    assert maven.problems() == []


def test_maven_s7_e26_metadata_name_no_build_that_was_removed(maven: Maven) -> None:
    """Gradle takes a file's name from `snapshot`: what stands there is there."""
    for build in BUILDS[:2]:
        maven.deploy(SNAPSHOT, build=build)
    for kind in ("jar", "pom"):
        assert maven.delete(SNAPSHOT.path(kind, build=BUILDS[1])).status_code == 204
    told = maven.metadata(SNAPSHOT.folder())
    named = "-".join(told.findtext(f"versioning/snapshot/{name}") or "" for name in ("timestamp", "buildNumber"))
    assert maven.get(SNAPSHOT.path(build=named)).status_code == 200
    maven.deploy(SNAPSHOT, build="20240201.030405-2")
    assert maven.builds(SNAPSHOT)[("", "jar")] == "1.0-20240201.030405-2"


def test_maven_v6_q10_the_bytes_of_old_builds_are_freed(tmp_path: Path) -> None:
    with Deployment.embedded(tmp_path / "data", REPOMAN_TRASH_WINDOW="0", REPOMAN_COLLECT_GRACE="0") as server:
        maven = new_maven(server, options={"keep_snapshots": 1})
        for build in BUILDS:
            maven.deploy(SNAPSHOT, build=build, text=build)
        for text in ("a", "b", "c"):
            maven.deploy(SNAPSHOT, text=text, says_whole=False)
        server.job("purge")
        namespace = maven.key.partition("/")[0]
        used = server.admin.get(f"/api/v1/namespaces/{namespace}").json()["used_bytes"]
        live = {
            maven.get(SNAPSHOT.path(kind, build=build)).content for kind in ("jar", "pom") for build in ("", BUILDS[-1])
        }
        assert used == sum(map(len, live))
        assert maven.problems() == []


# --- POMs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        Coordinates("org.other"),
        Coordinates(artifact="other"),
        Coordinates(version="2.0"),
        Coordinates(version="1.0-SNAPSHOT"),
    ],
)
def test_maven_x4_b10_a_pom_about_something_else(server: Server, wrong: Coordinates) -> None:
    maven = new_maven(server)
    refused(
        maven.put(POM, samples.pom(wrong)), 400, "content_invalid", f"the POM is about {wrong.package}:{wrong.version}"
    )
    assert maven.get(POM).status_code == 404 and maven.get("org/").status_code == 404
    lenient = new_maven(server, options={"check_pom": False})
    Maven.created(lenient.put(POM, samples.pom(wrong)))


def test_maven_x3_x4_poms_that_need_their_parent_are_not_judged(maven: Maven) -> None:
    parent = Coordinates("org.example", "parent", "9")
    accepted = [
        samples.pom(Coordinates(version="${revision}")),
        samples.pom(DEMO, parent=parent, inherits=("groupId",)),
        samples.pom(DEMO, parent=Coordinates(artifact="parent"), inherits=("groupId", "version")),
        samples.pom(Coordinates(version="${revision}"), more="<properties><revision>1.0</revision></properties>"),
    ]
    for number, data in enumerate(accepted):
        at = Coordinates(artifact="demo", version="1.0")
        other = new_maven(maven.server)
        Maven.created(other.put(at.path("pom"), data))
        assert other.get(at.path("pom")).content == data, number
    refused(maven.put(POM, samples.pom(DEMO, parent=parent, inherits=("version",))), 400, "content_invalid", ":9")


def test_maven_x4_p2_poms_of_snapshots(maven: Maven) -> None:
    Maven.created(maven.put(SNAPSHOT.path("pom", build=BUILDS[0]), samples.pom(SNAPSHOT)))
    with_build = Coordinates(version=f"1.0-{BUILDS[1]}")
    Maven.created(maven.put(SNAPSHOT.path("pom", build=BUILDS[1]), samples.pom(with_build)))
    refused(maven.put(SNAPSHOT.path("pom", build=BUILDS[2]), samples.pom(DEMO)), 400, "content_invalid")


UNREADABLE = {
    "entities": b"<project><name>&nbsp;</name></project>",
    "encoding": '<?xml version="1.0" encoding="UTF-8"?><project><name>\u00e9</name></project>'.encode("latin-1"),
    "external": b"<!DOCTYPE project [<!ENTITY a SYSTEM 'file:///etc/passwd'>]><project><name>&a;</name></project>",
    "laughs": b'<!DOCTYPE p [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]><project>&b;</project>',
    "deep": b"<project>" + b"<a>" * 10_000,
    "empty": b"",
    "no coordinates": b"<project/>",
    "large": b"<project>" + b" " * (2 * 1024 * 1024) + b"</project>",
    "many placeholders": b"<project><groupId>g</groupId><artifactId>"
    + b"${x}" * 60_000
    + b"</artifactId><version>1</version><properties><x>"
    + b"y" * 300_000
    + b"</x></properties></project>",
}


@pytest.mark.parametrize("name", [name for name in UNREADABLE if name != "many placeholders"])
def test_maven_x1_x2_e16_b8_a_pom_that_cannot_be_read_is_kept_as_it_is(maven: Maven, name: str) -> None:
    data = UNREADABLE[name]
    Maven.created(maven.put(POM, data))
    assert maven.get(POM).content == data
    Maven.created(maven.put(JAR, DATA))
    assert maven.versions() == ["1.0"]


def test_maven_x3_b8_a_pom_that_would_grow_is_judged_without_growing(embedded: Server) -> None:
    maven = new_maven(embedded)
    answer = maven.put(POM, UNREADABLE["many placeholders"])
    assert answer.status_code in (201, 400) and len(answer.content) < 20_000


def test_maven_n1_n5_maven_4_sends_two_poms(maven: Maven) -> None:
    original = samples.pom(DEMO).replace(b"POM/4.0.0", b"POM/4.1.0").replace(b"<project ", b'<project root="true" ')
    maven.deploy(DEMO, more={DEMO.path("pom", "build"): original})
    assert maven.get(DEMO.path("pom", "build")).content == original
    assert maven.get(POM).content == samples.pom(DEMO)


def test_maven_x5_x6_a3_modules_and_markers_stay_what_they_are(maven: Maven) -> None:
    module = b'{"formatVersion": "1.1", "variants": [{"files": [{"url": "../2.0/demo-2.0.jar"}]}]}'
    pom = samples.pom(DEMO, more="<!-- do_not_remove: published-with-gradle-metadata -->")
    maven.put_all({POM: pom, JAR: DATA, DEMO.path("module"): module, DEMO.path("module", "broken"): b"{"})
    assert maven.get(POM).content == pom and maven.get(DEMO.path("module")).content == module
    assert maven.get(Coordinates(version="2.0").path("module")).status_code == 404


def test_maven_e17_p7_sbt_names_files_twice(maven: Maven) -> None:
    folder = "com/example/sbt-demo_2.12_1.0/1.0"
    at = Coordinates("com.example", "sbt-demo_2.12_1.0", "1.0")
    files = {
        f"{folder}/{name}-1.0{tail}": data
        for name in ("sbt-demo_2.12_1.0", "sbt-demo")
        for tail, data in ((".jar", DATA), (".pom", samples.pom(at)))
    }
    maven.put_all(files)
    for path, data in files.items():
        assert maven.get(path).content == data and maven.get(f"{path}.sha1").status_code == 200
    assert maven.versions(at) == ["1.0"]
    assert maven.problems() == []


@pytest.mark.parametrize(
    "version",
    ["1.0+build.5", "1.0-rc~1", "1.0_x", "1.0$a", "1.0=b", "1.0@c", "1.0,d", "1.0(e)", "1.0!", "1.0'f", "1.0&g"],
)
def test_maven_p10_odd_versions_raw_and_escaped(embedded: Server, version: str) -> None:
    maven = new_maven(embedded)
    at = Coordinates(version=version)
    maven.deploy(at, packaging="pom", says_whole=False) if "&" not in version else maven.put_all({at.path(): DATA})
    path = at.path("pom" if "&" not in version else "jar")
    escaped = "".join(f"%{ord(c):02X}" if not c.isalnum() and c not in "/.-_" else c for c in path)
    plain = maven.raw("GET", path)
    assert plain[0] == 200 and maven.raw("GET", escaped) == plain
    if "+" in version:
        assert maven.raw("GET", path.replace("+", "%20"))[0] == 404
        assert maven.versions(at) == [version]


def test_maven_a8_case_twins_are_refused(maven: Maven) -> None:
    maven.deploy(DEMO)
    twin = Coordinates(artifact="Demo")
    refused(maven.put(twin.path("pom"), samples.pom(twin)), 409, "conflict", "differs only by case")
    assert maven.get(twin.path("pom")).status_code == 404


# --- who may, how much -----------------------------------------------------------------------------------------------


def test_maven_h16_w12_rights(maven: Maven) -> None:
    maven.deploy(DEMO)
    reader = maven.as_other(maven.server.user(maven.key, "reader"))
    publisher = maven.as_other(maven.server.user(maven.key, "publisher"))
    stranger = maven.as_other(maven.server.client(*maven.server.make_user()))
    new = Coordinates(version="2.0").path()
    for path, body in ((new, b"x"), (f"{new}.sha1", b"0" * 40), (DEMO.metadata, samples.metadata(DEMO, ["1.0"]))):
        refused(reader.put(path, body), 403, "forbidden")
        assert stranger.put(path, body).status_code == 404
    for path in (JAR, DEMO.metadata, f"{JAR}.sha1"):
        refused(publisher.delete(path), 403, "forbidden")
        refused(reader.delete(path), 403, "forbidden")
        assert stranger.delete(path).status_code == 404
    refused(maven.delete(""), 405, "method_not_allowed")
    refused(maven.delete("org/example/"), 405, "method_not_allowed", "through the API")
    refused(maven.put("org/example/", b""), 405, "method_not_allowed")
    missing(maven.delete(new))
    assert maven.delete(JAR).status_code == 204
    missing(maven.delete(JAR))


@pytest.mark.parametrize("declared", [True, False], ids=["with-length", "chunked"])
def test_maven_w13_l2_quota_is_403_in_words(server: Server, declared: bool) -> None:
    namespace = server.make_namespace(quota_bytes=3000)
    maven = Maven(server, server.admin, server.make_repository(namespace, format="maven"))
    body = b"x" * 5000
    answer = maven.put(JAR, body if declared else in_chunks(body, 1000))
    refused(answer, 403, "quota_exceeded", "3000")
    assert maven.get(JAR).status_code == 404
    Maven.created(maven.put(JAR, b"x" * 2000))
    refused(maven.put(DEMO.path("war"), b"y" * 2000), 403, "quota_exceeded")
    if declared:  # W8: there is no room for another one, and it needs none
        Maven.created(maven.put(JAR, b"x" * 2000))
        refused(maven.put(JAR, b"z" * 2000), 403, "quota_exceeded")
        assert maven.get(JAR).content == b"x" * 2000
    assert server.admin.get(f"/api/v1/namespaces/{namespace}").json()["used_bytes"] == 2000


def test_maven_d10_a_full_namespace_frees_itself(server: Server) -> None:
    """Also of what was removed file by file, which is the only removal that Maven's own addresses have."""
    namespace = server.make_namespace()
    maven = Maven(server, server.admin, server.make_repository(namespace, format="maven"))
    here = f"/api/v1/repositories/{maven.key}/versions"

    def used() -> int:
        return int(server.admin.get(f"/api/v1/namespaces/{namespace}").json()["used_bytes"])

    jars = {DEMO.path("jar", classifier): classifier.encode() * 1000 for classifier in ("a", "b", "c")}
    maven.deploy(DEMO, more=jars)
    server.admin.patch(f"/api/v1/namespaces/{namespace}", json={"quota_bytes": used()})
    refused(maven.put(DEMO.path("jar", "d"), b"d"), 403, "quota_exceeded")
    assert maven.delete(DEMO.path("jar", "a")).status_code == 204
    asked = {"package": DEMO.package, "version": "1.0", "purge": "true"}
    assert server.admin.delete(here, params=asked).status_code == 204
    assert used() == 0
    for path in maven.deploy(DEMO, more=jars):
        assert maven.delete(path).status_code == 204
    assert used() > 3000
    everything = {"package": DEMO.package, "all": "true"}
    assert server.admin.delete(here, params=everything).status_code == 404
    for status in (204, 404):
        assert server.admin.delete(here, params={**everything, "purge": "true"}).status_code == status
        assert used() == 0
    assert maven.problems() == []


def test_maven_w13_m3_a_full_disk_is_507(tmp_path: Path, small_disk: Path) -> None:
    with Deployment.embedded(tmp_path / "data", REPOMAN_BLOBS=str(small_disk / "blobs")) as server:
        maven = new_maven(server)
        maven.deploy(DEMO)
        filler = small_disk / "filler"
        with contextlib.suppress(OSError), open(filler, "wb") as file:
            while True:
                file.write(b"\0" * 65536)
        big = Coordinates(version="2.0")
        refused(maven.put(big.path(), b"x" * 3_000_000), 507, "storage_full")
        assert maven.get(JAR).content == DATA and maven.versions() == ["1.0"]
        filler.unlink()
        maven.deploy(big)
        assert maven.versions() == ["1.0", "2.0"]
        assert maven.problems() == []


# --- transfers -------------------------------------------------------------------------------------------------------


def authorization(client: httpx.Client) -> str:
    assert client.auth is not None
    request = next(client.auth.auth_flow(client.build_request("GET", "/")))
    return f"Authorization: {request.headers['authorization']}"


def target(maven: Maven, path: str) -> str:
    return f"/maven/{maven.key}/{path}"


@pytest.mark.parametrize("size", [0, 1, 70_000, 3_000_000])
def test_maven_w5_w6_w7_e21_e22_chunked_bodies_of_any_size(maven: Maven, size: int) -> None:
    body = bytes(number % 251 for number in range(size))
    Maven.created(maven.put(JAR, in_chunks(body, 65_000)))
    answer = maven.get(JAR)
    assert answer.content == body and answer.headers["content-length"] == str(size)


def test_maven_w3_w4_e11_d10_expect_100_continue(server: Server) -> None:
    maven = new_maven(server)
    may = authorization(maven.client)
    with edge_client.connect(server) as sock:
        lines = (may, "Expect: 100-continue", f"Content-Length: {len(DATA)}")
        sock.sendall(edge_client.head("PUT", target(maven, JAR), *lines, host=server.host))
        assert sock.recv(100).startswith(b"HTTP/1.1 100")
        sock.sendall(DATA)
        assert edge_client.read(sock).status == 201
    for line, path, status in (
        ("X-Nobody: 1", JAR, 401),
        (may, "org/example/demo/${x}/demo.jar", 400),
        (authorization(server.user(maven.key, "reader")), JAR, 403),
        (authorization(server.client(*server.make_user())), JAR, 404),
        (may, "org/example/", 405),
    ):
        with edge_client.connect(server) as sock:
            lines = (line, "Expect: 100-continue", "Content-Length: 5000000")
            sock.sendall(edge_client.head("PUT", target(maven, path), *lines, host=server.host))
            first = sock.recv(16)
            assert first.startswith(f"HTTP/1.1 {status}".encode()), first


@pytest.mark.parametrize("how", ["short", "cut", "chunk-cut"])
def test_maven_w5_d7_r4_c3_a_body_that_ends_early_leaves_nothing(server: Server, how: str) -> None:
    maven = new_maven(server)
    framing = "Transfer-Encoding: chunked" if how == "chunk-cut" else "Content-Length: 100000"
    with edge_client.connect(server) as sock:
        sock.sendall(
            edge_client.head("PUT", target(maven, JAR), authorization(maven.client), framing, host=server.host)
        )
        sock.sendall(b"1000\r\n" + b"x" * 100 if how == "chunk-cut" else b"x" * 100)
        if how == "short":
            sock.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionError):
                assert edge_client.read(sock).status == 400
    assert maven.get(JAR).status_code == 404
    maven.deploy(DEMO)
    assert maven.get(JAR).content == DATA and maven.versions() == ["1.0"]
    assert maven.problems() == []


@pytest.mark.parametrize(
    "headers",
    [{"Content-Length": "-1"}, {"Content-Length": "x"}, {"Content-Length": "5", "Transfer-Encoding": "chunked"}],
)
def test_maven_i1_d7_lengths_that_are_none(embedded: Server, headers: dict[str, str]) -> None:
    maven = new_maven(embedded)
    lines = [authorization(maven.client), *(f"{name}: {value}" for name, value in headers.items())]
    with edge_client.connect(embedded) as sock:
        sock.sendall(edge_client.head("PUT", target(maven, JAR), *lines, host=embedded.host) + b"0\r\n\r\n")
        assert 400 <= edge_client.read(sock).status < 500
    assert maven.get(JAR).status_code == 404


def test_maven_w1_a_part_of_a_file_is_no_file(maven: Maven) -> None:
    refused(maven.put(JAR, b"x", Content_Range="bytes 0-0/10"), 400, "bad_request", "whole file")


def test_maven_m1_r3_r12_a_deploy_cut_by_kill_9_is_repeated(tmp_path: Path) -> None:
    """Whatever was acknowledged is there after the start, nothing else is shown, and the same deploy then succeeds."""
    with Deployment.embedded(tmp_path / "data") as server:
        maven = new_maven(server)
        for number in range(4):
            at = Coordinates(version=f"1.{number}")
            files = {
                at.path("pom"): samples.pom(at),
                at.path(): samples.jar(str(number)),
                at.path("jar", "sources"): b"s",
            }
            acknowledged = dict(list(files.items())[: number % 3 + 1])
            maven.put_all(acknowledged)
            with edge_client.connect(server) as sock:
                lines = (authorization(maven.client), "Content-Length: 1000000")
                sock.sendall(
                    edge_client.head("PUT", target(maven, at.path("zip")), *lines, host=server.host) + b"x" * 5000
                )
                server.kill()
            server.start()
            for path, data in files.items():
                answer = maven.get(path)
                assert answer.content == data if path in acknowledged else answer.status_code == 404, path
            assert maven.get(at.path("zip")).status_code == 404
            is_whole = at.path() in acknowledged
            assert (at.version in maven.versions()) is is_whole
            maven.deploy(at, text=str(number), more={at.path("jar", "sources"): b"s"})
            assert maven.versions()[-1] == at.version
        assert maven.problems() == []
