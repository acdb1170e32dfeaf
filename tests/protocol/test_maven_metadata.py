"""`maven-metadata.xml` of a repository that is deployed to, by one client and by many (contract sections 3 and 4)."""

from __future__ import annotations

import gzip
import threading
import time
import xml.etree.ElementTree as ElementTree
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from formats.maven import samples
from formats.maven.samples import Coordinates
from tests.protocol.maven_client import METADATA, Maven, new_maven, refused, summed
from tests.running import Server

DEMO = Coordinates()
SNAPSHOT = Coordinates(version="1.0-SNAPSHOT")
PLUGIN = Coordinates(artifact="demo-maven-plugin")
BUILDS = ("20240101.010101-1", "20240102.020202-2", "20240103.030303-3")
GROUP = "org/example"


@pytest.fixture
def maven(server: Server) -> Maven:
    return new_maven(server)


# --- when a version is shown -----------------------------------------------------------------------------------------


def test_maven_g1_g3_u1_shown_when_whole(maven: Maven) -> None:
    for path, data, expected in (
        (DEMO.path(), samples.jar(), []),
        (DEMO.path("jar", "sources"), b"s", []),
        (DEMO.path("pom"), samples.pom(DEMO), ["1.0"]),
    ):
        Maven.created(maven.put(path, data))
        assert maven.get(path).content == data, "single files are readable at once"
        assert maven.versions() == expected
        assert maven.get(f"{DEMO.metadata}.sha1").status_code == (200 if expected else 404)


def test_maven_g3_u1_the_publishers_metadata_say_that_a_version_is_whole(maven: Maven) -> None:
    natives = Coordinates(artifact="natives")
    maven.put_all({natives.path("pom"): samples.pom(natives), natives.path("jar", "linux"): b"x"})
    assert maven.versions(natives) == []
    maven.put_all({natives.metadata: samples.metadata(natives, ["1.0"])})
    assert maven.versions(natives) == ["1.0"]
    Maven.created(maven.put(natives.path("jar", "windows"), b"y"))
    listed = maven.server.admin.get(
        f"/api/v1/repositories/{maven.key}/files", params={"package": natives.package, "version": "1.0"}
    ).json()
    assert len(listed["items"]) == 3, "what comes later belongs to it, too"


def test_maven_e20_metadata_before_its_files(maven: Maven) -> None:
    maven.put_all({DEMO.metadata: samples.metadata(DEMO, ["1.0"])})
    assert maven.versions() == [] and maven.get("org/").status_code == 404
    maven.deploy(DEMO, says_whole=False)
    assert maven.versions() == ["1.0"]
    maven.put_all({f"{SNAPSHOT.folder()}/{METADATA}": samples.snapshot_metadata(SNAPSHOT, BUILDS[0])})
    assert maven.get(f"{SNAPSHOT.folder()}/{METADATA}").status_code == 404
    maven.put_all({SNAPSHOT.path("pom", build=BUILDS[0]): samples.pom(SNAPSHOT), SNAPSHOT.path(build=BUILDS[0]): b"j"})
    assert maven.builds(SNAPSHOT)[("", "jar")] == f"1.0-{BUILDS[0]}"


def test_maven_e20_what_a_version_says_does_not_depend_on_the_order(maven: Maven) -> None:
    """Shown by its metadata before its POM came, it says what its POM says all the same."""
    plugin = Coordinates(artifact="unusual")
    Maven.created(maven.put(plugin.path(), samples.plugin_jar(plugin, "odd")))
    maven.put_all({plugin.metadata: samples.metadata(plugin, ["1.0"])})
    Maven.created(maven.put(plugin.path("pom"), samples.pom(plugin, packaging="maven-plugin")))
    maven.put_all({plugin.metadata: samples.metadata(plugin, ["1.0"])})
    assert maven.prefixes(GROUP) == {"odd": "unusual"}


def test_maven_u9_e15_publishers_that_never_send_metadata(maven: Maven) -> None:
    for number in range(3):
        maven.deploy(Coordinates(version=f"1.{number}"), says_whole=False)
        maven.deploy(SNAPSHOT, text=str(number), says_whole=False)
    assert maven.versions() == ["1.0-SNAPSHOT", "1.0", "1.1", "1.2"]


# --- what metadata say -----------------------------------------------------------------------------------------------


def test_maven_m5_v2_e5_e6_order_latest_and_release(maven: Maven) -> None:
    for version in ("1.10", "1.9", "1.0", "1.0.0", "2.0-SNAPSHOT", "1.10-rc-1", "1"):
        maven.deploy(Coordinates(version=version), packaging="pom")
    root = maven.metadata(GROUP + "/demo")
    assert maven.versions() == ["1", "1.0", "1.0.0", "1.9", "1.10-rc-1", "1.10", "2.0-SNAPSHOT"]
    assert root.findtext("versioning/latest") == "2.0-SNAPSHOT" and root.findtext("versioning/release") == "1.10"


def test_maven_g4_m4_the_same_rows_are_the_same_bytes(maven: Maven) -> None:
    maven.deploy(DEMO)
    maven.deploy(SNAPSHOT, build=BUILDS[0])
    for path in (DEMO.metadata, f"{SNAPSHOT.folder()}/{METADATA}"):
        first = maven.get(path)
        time.sleep(1.1)
        again = maven.get(path)
        assert (again.content, again.headers["etag"]) == (first.content, first.headers["etag"])
        told = ElementTree.fromstring(first.content).findtext("versioning/lastUpdated") or ""
        assert (
            len(told) == 14 and abs(time.time() - time.mktime(time.strptime(told, "%Y%m%d%H%M%S")) + time.timezone) < 90
        )


def test_maven_g8_h2_h12_metadata_are_asked_for_again(maven: Maven) -> None:
    maven.deploy(DEMO)
    before = maven.get(DEMO.metadata)
    assert before.headers["cache-control"] == "private, no-cache"
    assert before.headers["content-type"] == "application/xml"
    head = maven.get(DEMO.metadata, "HEAD")
    assert head.status_code == 200 and head.content == b""
    assert head.headers["content-length"] == before.headers["content-length"]
    assert maven.get(DEMO.metadata, If_None_Match=before.headers["etag"]).status_code == 304
    maven.deploy(Coordinates(version="1.1"))
    after = maven.get(DEMO.metadata, If_None_Match=before.headers["etag"])
    assert after.status_code == 200 and after.headers["etag"] != before.headers["etag"]
    assert maven.get(f"{DEMO.metadata}.sha1").text == summed(after.content, "sha1")


def test_maven_h8_metadata_that_are_packed_on_the_way_are_the_same(maven: Maven) -> None:
    for number in range(40):
        maven.deploy(Coordinates(version=f"1.{number}"), packaging="pom", says_whole=False)
    plain = maven.get(DEMO.metadata, Accept_Encoding="identity")
    assert "content-encoding" not in plain.headers and len(plain.content) == int(plain.headers["content-length"])
    url = maven.base + DEMO.metadata
    with maven.client.stream("GET", url, headers={"Accept-Encoding": "gzip"}) as answer:
        packed = b"".join(answer.iter_raw())
        if answer.headers.get("content-encoding") == "gzip":
            packed = gzip.decompress(packed)
    assert packed == plain.content


def test_maven_g6_g9_e24_last_version_gone(maven: Maven) -> None:
    for version in ("1.0", "1.1"):
        maven.deploy(Coordinates(version=version))
    one = Coordinates(version="1.1")
    assert maven.delete(one.path()).status_code == 204
    assert maven.versions() == ["1.0", "1.1"], "its POM is still there"
    assert maven.delete(one.path("pom")).status_code == 204
    assert maven.versions() == ["1.0"]
    assert maven.metadata(GROUP + "/demo").findtext("versioning/release") == "1.0"
    answer = maven.client.delete(
        f"/api/v1/repositories/{maven.key}/versions", params={"package": DEMO.package, "version": "1.0"}
    )
    assert answer.status_code == 204
    for path in (DEMO.metadata, f"{DEMO.metadata}.sha1", DEMO.path(), f"{DEMO.path()}.sha1", f"{GROUP}/demo/", "org/"):
        assert maven.get(path).status_code == 404, path
    maven.deploy(one)
    assert maven.versions() == ["1.1"]
    assert maven.problems() == []


def test_maven_g6_a_snapshots_builds_that_are_deleted_are_not_spoken_of(maven: Maven) -> None:
    for build in BUILDS:
        maven.deploy(SNAPSHOT, build=build)
    for kind in ("jar", "pom"):
        assert maven.delete(SNAPSHOT.path(kind, build=BUILDS[2])).status_code == 204
    assert set(maven.builds(SNAPSHOT).values()) == {f"1.0-{BUILDS[1]}"}
    for build in BUILDS[:2]:
        for kind in ("jar", "pom"):
            assert maven.delete(SNAPSHOT.path(kind, build=build)).status_code == 204
    assert maven.get(f"{SNAPSHOT.folder()}/{METADATA}").status_code == 404 and maven.versions() == []


# --- snapshots -------------------------------------------------------------------------------------------------------


def test_maven_s1_s2_s6_builds_as_a_client_deploys_them(maven: Maven) -> None:
    maven.deploy(SNAPSHOT, build=BUILDS[0], more={SNAPSHOT.path("jar", "sources", BUILDS[0]): b"sources"})
    maven.deploy(SNAPSHOT, build=BUILDS[1], text="second")
    root = maven.metadata(SNAPSHOT.folder())
    assert root.findtext("versioning/snapshot/timestamp") == "20240102.020202"
    assert root.findtext("versioning/snapshot/buildNumber") == "2"
    assert maven.builds(SNAPSHOT) == {
        ("", "jar"): f"1.0-{BUILDS[1]}",
        ("", "pom"): f"1.0-{BUILDS[1]}",
        ("sources", "jar"): f"1.0-{BUILDS[0]}",
    }
    assert maven.versions() == ["1.0-SNAPSHOT"]
    assert maven.get(SNAPSHOT.path(build=BUILDS[0])).content == samples.jar()
    assert maven.get(SNAPSHOT.path()).status_code == 404, "there is no file under the plain name"


def test_maven_s3_a_server_that_was_never_told_says_it_all_the_same(maven: Maven) -> None:
    maven.deploy(SNAPSHOT, build=BUILDS[0], says_whole=False)
    assert maven.builds(SNAPSHOT)[("", "jar")] == f"1.0-{BUILDS[0]}"


def test_maven_s8_s9_modules_with_other_moments_and_numbers_read_twice(maven: Maven) -> None:
    def build(number: int) -> None:
        maven.deploy(SNAPSHOT, build=f"2024010{number}.000000-1", text=str(number))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(build, range(1, 9)))
    assert maven.builds(SNAPSHOT)[("", "jar")] == "1.0-20240108.000000-1"
    for number in range(1, 9):
        assert maven.get(SNAPSHOT.path(build=f"2024010{number}.000000-1")).content == samples.jar(str(number))
    assert maven.problems() == []


# --- groups and plugins ----------------------------------------------------------------------------------------------


def plugin_files(at: Coordinates, prefix: str) -> dict[str, bytes]:
    return {at.path(): samples.plugin_jar(at, prefix), at.path("pom"): samples.pom(at, packaging="maven-plugin")}


def group_metadata(*plugins: tuple[str, str]) -> bytes:
    items = "".join(
        f"<plugin><name>n</name><prefix>{prefix}</prefix><artifactId>{artifact}</artifactId></plugin>"
        for artifact, prefix in plugins
    )
    return f"<metadata><plugins>{items}</plugins></metadata>".encode()


def test_maven_g2_u10_prefixes_come_from_jars(maven: Maven) -> None:
    maven.put_all(plugin_files(PLUGIN, "demo"))
    assert maven.prefixes(GROUP) == {"demo": PLUGIN.artifact}
    other = Coordinates(artifact="unusual")
    maven.put_all(plugin_files(other, "odd"))
    maven.put_all({other.metadata: samples.metadata(other, ["1.0"])})
    assert maven.prefixes(GROUP) == {"demo": PLUGIN.artifact, "odd": "unusual"}
    assert maven.get(f"{GROUP}/{METADATA}.sha1").text == summed(maven.get(f"{GROUP}/{METADATA}").content, "sha1")
    for path in plugin_files(PLUGIN, "demo"):
        assert maven.delete(path).status_code == 204
    assert maven.prefixes(GROUP) == {"odd": "unusual"}


def test_maven_g2_u10_a_jar_about_another_plugin_says_nothing(maven: Maven) -> None:
    files = plugin_files(PLUGIN, "demo")
    files[PLUGIN.path()] = samples.plugin_jar(Coordinates("org.apache.maven.plugins", "maven-clean-plugin"), "clean")
    maven.put_all(files)
    assert maven.get(f"{GROUP}/{METADATA}").status_code == 404


def test_maven_g2_g6_the_highest_version_that_is_there_says_the_prefix(maven: Maven) -> None:
    """Whatever was uploaded last, and whatever was sent back of what was read here (U1)."""
    older = Coordinates(artifact=PLUGIN.artifact, version="1.5")
    newer = Coordinates(artifact=PLUGIN.artifact, version="2")
    maven.put_all(plugin_files(newer, "newpfx"))
    maven.put_all({f"{GROUP}/{METADATA}": group_metadata((PLUGIN.artifact, "newpfx"))})
    maven.put_all(plugin_files(older, "midpfx"))
    maven.put_all({f"{GROUP}/{METADATA}": group_metadata((PLUGIN.artifact, "newpfx"), (PLUGIN.artifact, "midpfx"))})
    assert maven.prefixes(GROUP) == {"newpfx": PLUGIN.artifact}
    removal = {"package": PLUGIN.package, "version": "2"}
    assert maven.client.delete(f"/api/v1/repositories/{maven.key}/versions", params=removal).status_code == 204
    assert maven.prefixes(GROUP) == {"midpfx": PLUGIN.artifact}
    audit = maven.server.admin.get(f"/api/v1/audit?namespace={maven.key.partition('/')[0]}&kind=version:delete").json()
    undelete = {"revision": audit["items"][0]["revision"]}
    answer = maven.server.admin.post(f"/api/v1/repositories/{maven.key}/undelete", json=undelete)
    assert answer.status_code == 200 and maven.prefixes(GROUP) == {"newpfx": PLUGIN.artifact}
    assert maven.problems() == []


@pytest.mark.parametrize("order", [("jar", "pom"), ("pom", "jar")])
def test_maven_g2_u10_the_pom_says_that_it_is_a_plugin(maven: Maven, order: tuple[str, str]) -> None:
    """Of an artifact whose name does not, without any metadata sent."""
    odd = Coordinates(artifact="unusual", version="1.0-SNAPSHOT")
    files = {
        "jar": (odd.path(build=BUILDS[0]), samples.plugin_jar(odd, "odd")),
        "pom": (odd.path("pom", build=BUILDS[0]), samples.pom(odd, packaging="maven-plugin")),
    }
    for kind in order:
        path, data = files[kind]
        Maven.created(maven.put(path, data))
    assert maven.prefixes(GROUP) == {"odd": "unusual"}
    library = Coordinates(artifact="library")
    maven.put_all({library.path("pom"): samples.pom(library), library.path(): samples.plugin_jar(library, "none")})
    assert maven.prefixes(GROUP) == {"odd": "unusual"}


def test_maven_g2_e20_the_groups_metadata_say_what_a_jar_does_not(maven: Maven) -> None:
    """Of a jar that cannot be read the publisher says the prefix, also before it comes."""
    told = group_metadata((PLUGIN.artifact, "demo"), ("nowhere", "x"), ("../y", "y"))
    maven.put_all({f"{GROUP}/{METADATA}": told})
    assert maven.get(f"{GROUP}/{METADATA}").status_code == 404
    maven.put_all({PLUGIN.path(): b"no archive", PLUGIN.path("pom"): samples.pom(PLUGIN, packaging="maven-plugin")})
    maven.put_all({PLUGIN.metadata: samples.metadata(PLUGIN, ["1.0"])})
    assert maven.prefixes(GROUP) == {"demo": PLUGIN.artifact}
    maven.put_all({f"{GROUP}/{METADATA}": group_metadata((PLUGIN.artifact, "other"))})
    assert maven.prefixes(GROUP) == {"demo": PLUGIN.artifact, "other": PLUGIN.artifact}
    assert maven.get("org/example/nowhere/").status_code == 404
    names = maven.server.admin.get(f"/api/v1/repositories/{maven.key}/packages").json()["items"]
    assert [each["name"] for each in names] == [PLUGIN.package], "what is only spoken of leaves no name"
    assert maven.problems() == []


def test_maven_m3_p4_e19_a_folder_that_is_group_and_artifact(maven: Maven) -> None:
    artifact = Coordinates("org", "example")
    maven.put_all(plugin_files(PLUGIN, "demo"))
    maven.deploy(artifact)
    root = maven.metadata(GROUP)
    assert maven.prefixes(GROUP) == {"demo": PLUGIN.artifact}
    assert [each.text for each in root.iterfind("versioning/versions/version")] == ["1.0"]
    first = maven.get(f"{GROUP}/{METADATA}")
    assert maven.get(f"{GROUP}/{METADATA}", If_None_Match=first.headers["etag"]).status_code == 304
    for algorithm in ("md5", "sha1", "sha256", "sha512"):
        assert maven.get(f"{GROUP}/{METADATA}.{algorithm}").text == summed(first.content, algorithm)
    # A publisher that knows of versions only sends the document back without its plugins (E19).
    maven.put_all({f"{GROUP}/{METADATA}": samples.metadata(artifact, ["1.0"])})
    assert maven.prefixes(GROUP) == {"demo": PLUGIN.artifact}
    assert maven.delete(artifact.path()).status_code == maven.delete(artifact.path("pom")).status_code == 204
    assert maven.metadata(GROUP).find("versioning") is None


# --- metadata that lie -----------------------------------------------------------------------------------------------


def test_maven_g1_e34_versions_without_files_are_not_believed(maven: Maven) -> None:
    maven.deploy(DEMO)
    foreign = [f"0.{number}" for number in range(500)]
    maven.put_all({DEMO.metadata: samples.metadata(DEMO, [*foreign, "1.0", "9.9"])})
    assert maven.versions() == ["1.0"]
    # The publisher's own is at the end of what it merged, and it alone says that it is whole.
    natives = Coordinates(version="2.0")
    maven.put_all({natives.path("jar", "linux"): b"x"})
    maven.put_all({DEMO.metadata: samples.metadata(DEMO, [*foreign, "1.0", "2.0"])})
    assert maven.versions() == ["1.0", "2.0"]


@pytest.mark.parametrize(
    "told",
    [Coordinates("org.other"), Coordinates(artifact="other"), Coordinates("x" * 5000)],
    ids=["group", "artifact", "long"],
)
def test_maven_g1_b10_metadata_about_another_artifact(maven: Maven, told: Coordinates) -> None:
    maven.deploy(DEMO)
    answer = maven.put(DEMO.metadata, samples.metadata(told, ["1.0"]))
    refused(answer, 400, "bad_request", "its address about org.example:demo")
    assert len(answer.content) < 2000


def test_maven_m7_metadata_without_coordinates_are_taken(maven: Maven) -> None:
    natives = {DEMO.path("jar", "linux"): b"x"}
    maven.put_all(natives)
    inner = "<versioning><versions><version>1.0</version></versions></versioning>"
    for head in ("", "<artifactId>demo</artifactId>", "<groupId>org.example</groupId>"):
        body = f"\ufeff\n<metadata xmlns='http://maven.apache.org/METADATA/1.2.0'>{head}{inner}</metadata>"
        maven.put_all({DEMO.metadata: body.encode()})
    assert maven.versions() == ["1.0"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no XML",
        b"<html/>",
        b"<metadata>",
        b"<!DOCTYPE metadata SYSTEM 'http://127.0.0.1:1/x.dtd'><metadata/>",
        b'<!DOCTYPE m [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]><metadata><groupId>&b;</groupId></metadata>',
        b"<metadata>" + b"<a>" * 10_000,
        b"<metadata>" + b"<a/>" * 600_000 + b"</metadata>",
        b"\x1f\x8b" + b"\0" * 100,
    ],
    ids=["nothing", "text", "page", "cut", "dtd", "entities", "deep", "many", "binary"],
)
@pytest.mark.parametrize("path", [DEMO.metadata, f"{SNAPSHOT.folder()}/{METADATA}", f"{GROUP}/{METADATA}"])
def test_maven_u7_x1_b8_e16_metadata_that_are_none(embedded: Server, path: str, body: bytes) -> None:
    maven = new_maven(embedded)
    refused(maven.put(path, body), 400, "content_invalid")
    assert maven.get(path).status_code == 404


def test_maven_b7_metadata_of_twenty_megabytes(maven: Maven) -> None:
    refused(maven.put(DEMO.metadata, b"<metadata>" + b" " * 20_000_000 + b"</metadata>"), 413, "too_large")


@pytest.mark.parametrize("version", ["../../etc", "1:0", "a b", "${x}", "\u00e9", "x" * 300])
def test_maven_p9_a6_metadata_with_a_version_that_cannot_be(maven: Maven, version: str) -> None:
    maven.deploy(DEMO)
    body = samples.metadata(DEMO, ["1.0"]).replace(b"<version>1.0<", f"<version>{version}<".encode())
    answer = maven.put(DEMO.metadata, body)
    assert answer.status_code in (201, 400)
    assert maven.versions() == ["1.0"]


def test_maven_e31_deleting_metadata_changes_nothing(maven: Maven) -> None:
    maven.deploy(DEMO)
    for path in (DEMO.metadata, f"{DEMO.metadata}.sha1"):
        assert maven.delete(path).status_code == 204
    assert maven.versions() == ["1.0"]


# --- many at once ----------------------------------------------------------------------------------------------------


def clients(maven: Maven, count: int) -> list[Maven]:
    """Callers with a connection each, so that both web processes are met."""
    auth: Any = maven.client.auth
    found = []
    for _ in range(count):
        client = maven.server.client()
        client.auth = auth
        found.append(maven.as_other(client))
    return found


def processes(server: Server) -> int:
    return int(server.environment["REPOMAN_WORKERS"])


@pytest.mark.parametrize("says_whole", [True, False], ids=["with-metadata", "without"])
def test_maven_g5_w3_e1_twenty_deploys_at_once_are_all_listed(maven: Maven, says_whole: bool) -> None:
    assert processes(maven.server) == 2
    barrier = threading.Barrier(20)

    def deploy(numbered: tuple[int, Maven]) -> None:
        number, client = numbered
        at = Coordinates(version=f"1.{number}")
        barrier.wait(60)
        if not says_whole:
            client.deploy(at, text=str(number), says_whole=False)
            return
        seen = client.versions()  # as mvn: read, add, write back
        client.put_all({at.path(): samples.jar(str(number)), at.path("pom"): samples.pom(at)})
        client.put_all({at.metadata: samples.metadata(at, [*seen, at.version])})

    with ThreadPoolExecutor(20) as pool:
        list(pool.map(deploy, enumerate(clients(maven, 20))))
    for client in clients(maven, 4):
        assert client.versions() == [f"1.{number}" for number in range(20)]
        answer = client.get(DEMO.metadata)
        assert client.get(f"{DEMO.metadata}.sha1").text == summed(answer.content, "sha1")
    assert maven.problems() == []


def test_maven_g3_g5_pom_and_jar_at_the_same_moment_are_always_shown(maven: Maven) -> None:
    one, other = clients(maven, 2)
    for number in range(30):
        at = Coordinates(version=f"1.{number}")
        barrier = threading.Barrier(2)

        def put(client: Maven, path: str, data: bytes, barrier: threading.Barrier = barrier) -> None:
            barrier.wait(60)
            Maven.created(client.put(path, data))

        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(put, one, at.path("pom"), samples.pom(at))
            second = pool.submit(put, other, at.path(), samples.jar(str(number)))
            first.result(), second.result()
        assert maven.versions()[-1] == at.version, number
    listed = maven.server.admin.get(
        f"/api/v1/repositories/{maven.key}/files", params={"package": DEMO.package, "version": "1.29"}
    ).json()
    assert len(listed["items"]) == 2
    assert maven.problems() == []


def test_maven_g8_w4_metadata_read_during_deploys_are_whole_and_never_lose_a_version(maven: Maven) -> None:
    is_over = threading.Event()
    seen: list[list[str]] = []

    def watch(client: Maven) -> None:
        while not is_over.is_set():
            answer = client.get(DEMO.metadata)
            if answer.status_code == 200:
                assert answer.headers["x-checksum-sha1"] == summed(answer.content, "sha1")
                root = ElementTree.fromstring(answer.content)
                seen.append([each.text or "" for each in root.iterfind("versioning/versions/version")])
            else:
                assert answer.status_code == 404

    watcher, *writers = clients(maven, 4)
    with ThreadPoolExecutor(4) as pool:
        watching = pool.submit(watch, watcher)
        try:
            work = [
                pool.submit(writer.deploy, Coordinates(version=f"{first}.{number}"), packaging="pom")
                for number in range(5)
                for first, writer in enumerate(writers)
            ]
            for each in work:
                each.result()
        finally:
            is_over.set()
        watching.result()
    assert all(set(one) <= set(other) for one, other in zip(seen, seen[1:], strict=False))
    assert len(maven.versions()) == 15


def test_maven_w5_deletes_and_deploys_of_one_version_at_once(maven: Maven) -> None:
    """Whatever came last, metadata speak of nothing that is not there, and the rows are sound."""
    one, other = clients(maven, 2)
    for number in range(8):
        at = Coordinates(version=f"1.{number}")
        maven.deploy(at, says_whole=False)
        with ThreadPoolExecutor(2) as pool:
            removed = [pool.submit(one.delete, at.path(kind)) for kind in ("jar", "pom")]
            added = pool.submit(other.deploy, at, says_whole=False)
            assert {each.result().status_code for each in removed} <= {204, 404}
            added.result()
        is_listed = at.version in maven.versions()
        there = [kind for kind in ("jar", "pom") if maven.get(at.path(kind)).status_code == 200]
        assert bool(there) >= is_listed and (is_listed or len(there) < 2)
    assert maven.problems() == []


def test_maven_g1_m7_what_makes_no_sense_in_metadata_is_passed_over(maven: Maven) -> None:
    Maven.created(maven.put(DEMO.path(), b"a jar without its POM"))
    body = (
        "<metadata><groupId>null</groupId><artifactId>demo</artifactId><versioning><release>9/8</release><versions>"
        "<version>1.0</version><version>9/8</version><version>null</version></versions></versioning></metadata>"
    )
    Maven.created(maven.put(DEMO.metadata, body.encode()))
    assert maven.versions() == ["1.0"]
