"""Maven repositories that show an upstream's: files and their checksums, metadata, snapshots, policies, trouble."""

from __future__ import annotations

import hashlib
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from formats.maven import samples
from formats.maven.samples import Coordinates
from tests.fault.upstreams import until
from tests.running import Deployment, Server
from tests.tools.upstream import Answer, Upstream, html_page

DEMO = Coordinates()
JAR = samples.jar()
POM = samples.pom(DEMO)
SNAPSHOT = Coordinates(version="1.0-SNAPSHOT")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Deployment.embedded(tmp_path_factory.mktemp("maven-remote"), REPOMAN_UPSTREAM_ALLOW="127.0.0.0/8") as found:
        yield found


@dataclass
class Tree:
    """A repository of ours, and what its upstream has."""

    server: Server
    key: str
    upstream: Upstream

    def get(self, path: str, **headers: str) -> httpx.Response:
        return self.server.client().get(f"/maven/{self.key}/{path}", headers=headers)

    def head(self, path: str) -> httpx.Response:
        return self.server.client().head(f"/maven/{self.key}/{path}")

    def offer(self, path: str, data: bytes, *sums: str, **more: Any) -> None:
        """A file at the upstream, with these checksum files beside it."""
        self.upstream.add(f"/m2/{path}", Answer(data, **more))
        for algorithm in sums:
            told = hashlib.new(algorithm, data).hexdigest()
            self.upstream.add(f"/m2/{path}.{algorithm}", Answer(f"{told}  {path.rpartition('/')[2]}\n".encode()))

    def asked(self, path: str, method: str = "GET") -> int:
        return self.upstream.count(f"/m2/{path}", method)


def tree(server: Server, upstream: Upstream, *, options: dict[str, Any] | None = None, **settings: Any) -> Tree:
    remote = {"url": upstream.url("/m2"), "connect_timeout": 2, "read_timeout": 5, "negative_ttl": 0, **settings}
    key = server.make_repository(
        format="maven", type="remote", remote=remote, anonymous_read=True, options=options or {}
    )
    return Tree(server, key, upstream)


def virtual_of(member: Tree) -> Tree:
    namespace, members = member.key.partition("/")[0], [member.key]
    key = member.server.make_repository(namespace, format="maven", type="virtual", members=members, anonymous_read=True)
    return Tree(member.server, key, member.upstream)


# --- files -----------------------------------------------------------------------------------------------------------


def test_maven_c1_a_file_is_fetched_once_with_its_checksums(server: Server, upstream: Upstream) -> None:
    repository = tree(server, upstream)
    repository.offer(DEMO.path(), JAR, "sha1")
    found = repository.get(DEMO.path())
    assert found.content == JAR and found.headers["x-checksum-sha1"] == hashlib.sha1(JAR).hexdigest()
    again = repository.get(DEMO.path())
    assert again.content == JAR and again.headers["content-type"] == "application/java-archive"
    for algorithm in ("md5", "sha1", "sha256", "sha512"):
        told = repository.get(f"{DEMO.path()}.{algorithm}")
        assert told.text == hashlib.new(algorithm, JAR).hexdigest(), algorithm
        assert told.headers["content-type"].startswith("text/plain")
    assert repository.asked(DEMO.path()) == 1 and repository.asked(f"{DEMO.path()}.sha1") == 1
    assert again.headers["x-checksum-md5"] == hashlib.md5(JAR).hexdigest()


def test_maven_s1_g8_many_at_once_cost_one_file_and_one_checksum(server: Server, upstream: Upstream) -> None:
    repository = tree(server, upstream)
    repository.offer(DEMO.path(), JAR, "sha1", delay=1.5)
    clients = [server.client() for _ in range(16)]

    def read(client: httpx.Client) -> bytes:
        return client.get(f"/maven/{repository.key}/{DEMO.path()}").content

    with ThreadPoolExecutor(len(clients)) as readers:
        found = [readers.submit(read, client) for client in clients[:4]]
        assert until(lambda: repository.asked(DEMO.path()) == 1, 10)
        for client in clients[4:]:  # the checksum has come, the file has not
            found.append(readers.submit(read, client))
            time.sleep(0.03)
        assert {each.result() for each in found} == {JAR}
    assert repository.asked(DEMO.path()) == 1
    assert repository.asked(f"{DEMO.path()}.sha1") <= 2, "one for each process"


def test_maven_c7_g5_other_bytes_than_the_upstreams_checksum_are_not_kept(server: Server, upstream: Upstream) -> None:
    repository = tree(server, upstream)
    repository.offer(DEMO.path(), JAR, corrupt=True)
    repository.upstream.add(f"/m2/{DEMO.path()}.sha1", Answer(hashlib.sha1(JAR).hexdigest().encode()))
    with pytest.raises(httpx.RemoteProtocolError):  # the last piece is held back, so that nobody has all of it
        answer = repository.get(DEMO.path())
        assert answer.status_code == 502, answer.status_code
        raise httpx.RemoteProtocolError("refused before the first byte")
    listed = server.admin.get(f"/api/v1/repositories/{repository.key}/packages").json()["items"]
    assert listed == []
    upstream.add(f"/m2/{DEMO.path()}", Answer(JAR))
    assert until(lambda: repository.get(DEMO.path()).status_code == 200, 20)


@pytest.mark.parametrize("told", [b"", b"not a checksum", b"<html>login</html>"])
def test_maven_c7_a_checksum_that_is_missing_or_unreadable_is_no_checksum(
    server: Server, upstream: Upstream, told: bytes
) -> None:
    repository = tree(server, upstream)
    repository.offer(DEMO.path(), JAR)
    if told:
        upstream.add(f"/m2/{DEMO.path()}.sha1", Answer(told))
    assert repository.get(DEMO.path()).content == JAR
    assert repository.get(f"{DEMO.path()}.sha1").text == hashlib.sha1(JAR).hexdigest()


def test_maven_c5_checksums_are_read_in_every_form(server: Server, upstream: Upstream) -> None:
    told = hashlib.sha1(JAR).hexdigest()
    for number, form in enumerate(
        (told, told.upper(), f"{told}\n", f"{told}  demo.jar", f"SHA1 (demo.jar) = {told}", f"demo.jar: {told}\r\n")
    ):
        at = Coordinates(version=f"1.{number}")
        repository = tree(server, upstream)
        repository.offer(at.path(), JAR + b"x")
        upstream.add(f"/m2/{at.path()}.sha1", Answer(form.encode()))
        with pytest.raises(httpx.RemoteProtocolError):
            answer = repository.get(at.path())
            assert answer.status_code == 502, (form, answer.status_code)
            raise httpx.RemoteProtocolError("refused before the first byte")


def test_maven_a_checksum_of_what_is_not_here_is_the_upstreams(server: Server, upstream: Upstream) -> None:
    repository = tree(server, upstream)
    repository.offer(DEMO.path(), JAR, "sha1")
    assert repository.get(f"{DEMO.path()}.sha1").text == hashlib.sha1(JAR).hexdigest()
    assert repository.get(f"{DEMO.path()}.sha256").status_code == 404
    assert repository.asked(DEMO.path()) == 0


def test_maven_h2_head_of_what_is_not_here_fetches_nothing(server: Server, upstream: Upstream) -> None:
    repository = tree(server, upstream)
    repository.offer(DEMO.path(), JAR, "sha1")
    found = repository.head(DEMO.path())
    assert found.status_code == 200 and found.headers["content-length"] == str(len(JAR))
    assert repository.asked(DEMO.path()) == 0
    assert repository.head(Coordinates(version="9").path()).status_code == 404


def test_maven_h1_h14_missing_is_404_and_not_known_is_not(server: Server, upstream: Upstream) -> None:
    repository = tree(server, upstream)
    assert repository.get(DEMO.path()).status_code == 404
    assert repository.get("archetype-catalog.xml").status_code == 404
    assert repository.get(".meta/prefixes.txt").status_code == 404
    upstream.add(f"/m2/{DEMO.path()}.sha1", Answer(status=503))
    upstream.add(f"/m2/{DEMO.path()}", Answer(status=503))
    assert repository.get(DEMO.path()).status_code in (502, 503)


def test_maven_e23_a_login_page_is_no_jar(server: Server, upstream: Upstream) -> None:
    repository = tree(server, upstream)
    upstream.everywhere = html_page()
    assert repository.get(DEMO.path()).status_code == 502
    assert repository.get(DEMO.metadata).status_code == 502


def test_maven_e30_module_files_and_what_they_name(server: Server, upstream: Upstream) -> None:
    repository = tree(server, upstream)
    repository.offer(DEMO.path("module"), b'{"formatVersion": "1.1"}')
    repository.offer("org/example/demo/1.0/demo-0.9-special.jar", JAR)
    assert repository.get(DEMO.path("module")).headers["content-type"] == "application/json"
    assert repository.get("org/example/demo/1.0/demo-0.9-special.jar").content == JAR


def test_maven_versions_that_are_held_are_listed_by_the_api(server: Server, upstream: Upstream) -> None:
    repository = tree(server, upstream)
    repository.offer(DEMO.path(), JAR)
    repository.offer(DEMO.path("pom"), POM)
    assert repository.get(DEMO.path()).status_code == repository.get(DEMO.path("pom")).status_code == 200
    base = f"/api/v1/repositories/{repository.key}"
    versions = server.admin.get(f"{base}/versions", params={"package": DEMO.package}).json()["items"]
    assert [item["version"] for item in versions] == ["1.0"] and versions[0]["bytes"] == len(JAR) + len(POM)
    files = server.admin.get(f"{base}/files", params={"package": DEMO.package, "version": "1.0"}).json()["items"]
    assert [item["name"] for item in files] == ["1.0/demo-1.0.jar", "1.0/demo-1.0.pom"]


# --- metadata --------------------------------------------------------------------------------------------------------


def test_maven_g4_g7_metadata_is_made_anew_and_its_checksum_fits(server: Server, upstream: Upstream) -> None:
    repository = tree(server, upstream)
    repository.offer(DEMO.metadata, samples.metadata(DEMO, ["1.10", "1.9", "1.9", "1/2", "1.11-SNAPSHOT"]), etag='"1"')
    found = repository.get(DEMO.metadata)
    assert found.text.index("<version>1.9<") < found.text.index("<version>1.10<") and "1/2" not in found.text
    assert "<latest>1.11-SNAPSHOT</latest>" in found.text and "<release>1.10</release>" in found.text
    assert "<lastUpdated>20240102030405</lastUpdated>" in found.text
    assert repository.get(f"{DEMO.metadata}.sha1").text == hashlib.sha1(found.content).hexdigest()
    assert found.headers["x-checksum-sha1"] == hashlib.sha1(found.content).hexdigest()
    assert repository.asked(DEMO.metadata) == 1 and repository.asked(f"{DEMO.metadata}.sha1") == 0


def test_maven_g6_metadata_is_confirmed_and_served_stale(server: Server) -> None:
    with Upstream() as upstream:
        repository = tree(server, upstream, metadata_ttl=0)
        repository.offer(DEMO.metadata, samples.metadata(DEMO, ["1.0"]), etag='"1"')
        first = repository.get(DEMO.metadata)
        second = repository.get(DEMO.metadata)
        assert second.content == first.content
        assert upstream.seen(f"/m2/{DEMO.metadata}")[-1].headers["if-none-match"] == '"1"'
        repository.offer(DEMO.metadata, samples.metadata(DEMO, ["1.0", "1.1"]), etag='"2"')
        assert "1.1" in repository.get(DEMO.metadata).text
        repository.offer(DEMO.metadata, b"<metadata><versioning><versions><version>2", etag='"3"')
        stale = repository.get(DEMO.metadata)
        assert stale.status_code == 200 and "1.1" in stale.text and "stale" in stale.headers["cache-status"]
    assert until(lambda: "1.1" in repository.get(DEMO.metadata).text, 10)


def test_maven_x3_metadata_of_another_artifact_are_not_taken(server: Server, upstream: Upstream) -> None:
    """Neither as versions nor as "not there", which nobody has said: a good copy is served on."""
    repository = tree(server, upstream, metadata_ttl=0)
    wrong = samples.metadata(Coordinates("x", "y"), ["9.9"])
    repository.offer(DEMO.metadata, wrong)
    answer = repository.get(DEMO.metadata)
    assert answer.status_code == 502 and "x:y" in answer.json()["detail"]
    good = Coordinates(artifact="good")
    repository.offer(good.metadata, samples.metadata(good, ["1.0", "null", "9/8"]))
    assert "<version>1.0</version>" in repository.get(good.metadata).text
    repository.offer(good.metadata, wrong)
    stale = repository.get(good.metadata)
    assert stale.text.count("<version>") == 1 and "stale" in stale.headers["cache-status"]


@pytest.mark.parametrize("damage", ["<!DOCTYPE metadata [<!ENTITY x SYSTEM 'file:///etc/passwd'>]>", "<a>" * 5000])
def test_maven_x1_b8_hostile_metadata_is_not_read(server: Server, upstream: Upstream, damage: str) -> None:
    repository = tree(server, upstream)
    repository.offer(DEMO.metadata, damage.encode() + samples.metadata(DEMO, ["1.0"]))
    answer = repository.get(DEMO.metadata)
    assert answer.status_code == 502 and "root:" not in answer.text


def test_maven_m3_plugins_of_an_upstreams_group(server: Server, upstream: Upstream) -> None:
    repository = tree(server, upstream)
    plugin = b"<plugin><name>X</name><prefix>x</prefix><artifactId>x-plugin</artifactId></plugin>"
    repository.offer("org/example/maven-metadata.xml", b"<metadata><plugins>%s</plugins></metadata>" % plugin)
    found = repository.get("org/example/maven-metadata.xml")
    assert "<prefix>x</prefix>" in found.text and "versioning" not in found.text
    assert repository.get("org/maven-metadata.xml").status_code == 404


# --- snapshots -------------------------------------------------------------------------------------------------------


def test_maven_s2_a_snapshot_is_followed_and_its_builds_are_fixed(server: Server, upstream: Upstream) -> None:
    repository = tree(server, upstream, metadata_ttl=1)
    folder = f"{SNAPSHOT.folder()}/maven-metadata.xml"
    first, second = "20240102.030405-1", "20240103.030405-2"
    repository.offer(folder, samples.snapshot_metadata(SNAPSHOT, first))
    repository.offer(SNAPSHOT.path(build=first), JAR, "sha1")
    assert f"1.0-{first}" in repository.get(folder).text
    assert repository.get(SNAPSHOT.path(build=first)).content == JAR
    repository.offer(folder, samples.snapshot_metadata(SNAPSHOT, second))
    assert until(lambda: f"1.0-{second}" in repository.get(folder).text, 10)
    assert repository.get(SNAPSHOT.path(build=first)).headers["cache-control"].endswith("immutable")
    assert repository.asked(SNAPSHOT.path(build=first)) == 1


def test_maven_s5_e25_a_snapshot_under_its_plain_name_is_asked_for_again(server: Server, upstream: Upstream) -> None:
    repository = tree(server, upstream, metadata_ttl=0)
    repository.offer(SNAPSHOT.path(), b"one", "sha1")
    assert repository.get(SNAPSHOT.path()).content == b"one"
    repository.offer(SNAPSHOT.path(), b"two", "sha1")
    found = repository.get(SNAPSHOT.path())
    assert found.content == b"two" and found.headers["cache-control"] == "private, no-cache"


def test_maven_s2_the_older_form_of_snapshot_metadata(server: Server, upstream: Upstream) -> None:
    repository = tree(server, upstream)
    repository.offer(
        f"{SNAPSHOT.folder()}/maven-metadata.xml", samples.snapshot_metadata(SNAPSHOT, "20240102.030405-3", ())
    )
    found = repository.get(f"{SNAPSHOT.folder()}/maven-metadata.xml")
    assert "<buildNumber>3</buildNumber>" in found.text and "snapshotVersions" not in found.text


def test_maven_v5_s4_the_checksum_of_a_moving_file_is_that_of_the_bytes_served(
    server: Server, upstream: Upstream
) -> None:
    repository = tree(server, upstream)
    moving = SNAPSHOT.path()
    repository.offer(moving, b"one", "sha1")
    assert repository.get(moving).content == b"one"
    repository.offer(moving, b"two", "sha1")
    upstream.forget()
    for each in (repository, virtual_of(repository)):
        for algorithm in ("sha1", "md5", "sha256", "sha512"):
            assert each.get(f"{moving}.{algorithm}").text == hashlib.new(algorithm, b"one").hexdigest(), algorithm
        assert each.get(moving).content == b"one" and upstream.requests == []


def test_maven_v5_s4_file_and_checksum_are_renewed_together_and_stale_together(server: Server) -> None:
    with Upstream() as upstream:
        repository = tree(server, upstream, metadata_ttl=0)
        moving = SNAPSHOT.path()
        for text in (b"one", b"two"):
            repository.offer(moving, text, "sha1")
            assert repository.get(moving).content == text
            assert repository.get(f"{moving}.sha1").text == hashlib.sha1(text).hexdigest()
        repository.offer(moving, b"three", "sha1")
        upstream.add(f"/m2/{moving}.sha1", Answer(status=503))
        stale = repository.get(moving)
        assert stale.content == b"two" and "stale" in stale.headers["cache-status"]
        assert repository.get(f"{moving}.sha1").text == hashlib.sha1(b"two").hexdigest()
    assert repository.get(moving).content == b"two"
    assert repository.get(f"{moving}.md5").text == hashlib.md5(b"two").hexdigest()


@pytest.mark.parametrize(("policy", "hidden"), [("release", SNAPSHOT), ("snapshot", DEMO)])
def test_maven_v4_what_the_policy_excludes_is_not_asked_for(
    server: Server, upstream: Upstream, policy: str, hidden: Coordinates
) -> None:
    repository = tree(server, upstream, options={"version_policy": policy})
    repository.offer(hidden.path(), JAR)
    assert repository.get(hidden.path()).status_code == 404
    assert repository.get(f"{hidden.path()}.sha1").status_code == 404
    assert upstream.requests == []


def test_maven_x6_m6_what_the_policy_excludes_is_not_listed(server: Server, upstream: Upstream) -> None:
    repository = tree(server, upstream, options={"version_policy": "release"})
    repository.offer(DEMO.metadata, samples.metadata(DEMO, ["1.0", "1.1", "2.0-SNAPSHOT"]))
    snapshots = Coordinates(artifact="snapshots")
    repository.offer(snapshots.metadata, samples.metadata(snapshots, ["2.0-SNAPSHOT"]))
    virtual = virtual_of(repository)

    def latest() -> set[str | None]:
        roots = [ElementTree.fromstring(each.get(DEMO.metadata).content) for each in (repository, virtual)]
        assert len({len(list(root.iter("version"))) for root in roots}) == 1
        return {root.findtext("versioning/latest") for root in roots}

    assert latest() == {"1.1"}
    assert repository.get(snapshots.metadata).status_code == 404, "an empty list would be remembered"
    for policy, expected in (("snapshot", "2.0-SNAPSHOT"), (None, "2.0-SNAPSHOT"), ("release", "1.1")):
        changed = {"options": {"version_policy": policy}}
        assert server.admin.patch(f"/api/v1/repositories/{repository.key}", json=changed).status_code == 200
        assert latest() == {expected}, policy
    assert repository.asked(DEMO.metadata) == 1


def test_maven_10_remote_takes_no_uploads_and_lists_no_folders(server: Server, upstream: Upstream) -> None:
    repository = tree(server, upstream)
    answer = server.admin.put(f"/maven/{repository.key}/{DEMO.path()}", content=JAR)
    assert answer.status_code == 405 and answer.headers["content-type"] == "application/problem+json"
    assert repository.get("org/example/").status_code == 404
    assert upstream.requests == []
