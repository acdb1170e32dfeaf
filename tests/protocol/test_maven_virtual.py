"""Maven repositories over several: whose versions are listed, whose files are served, where deploys go."""

from __future__ import annotations

import hashlib
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from formats.maven import samples
from formats.maven.samples import Coordinates
from tests.protocol.test_virtual_rules import Group, group
from tests.running import Deployment, Server
from tests.tools.upstream import Answer, Upstream

DEMO = Coordinates()
OTHER = Coordinates(artifact="other")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Deployment.embedded(tmp_path_factory.mktemp("maven-virtual"), REPOMAN_UPSTREAM_ALLOW="127.0.0.0/8") as found:
        yield found


def at(version: str, artifact: str = "demo") -> Coordinates:
    return Coordinates(artifact=artifact, version=version)


def put(server: Server, key: str, path: str, data: bytes, client: httpx.Client | None = None) -> None:
    answer = (client or server.admin).put(f"/maven/{key}/{path}", content=data)
    assert answer.status_code == 201, answer.text


def deploy(server: Server, key: str, where: Coordinates, text: str = "") -> bytes:
    data = samples.jar(text or f"{key} {where.version}")
    put(server, key, where.path(), data)
    put(server, key, where.path("pom"), samples.pom(where))
    return data


def offer(upstream: Upstream, where: Coordinates, *versions: str) -> dict[str, bytes]:
    """Let the upstream have these versions of the artifact. Returns their jars."""
    found = {}
    for version in versions:
        each = Coordinates(where.group, where.artifact, version)
        found[version] = samples.jar(f"upstream {version}")
        upstream.add(f"/{each.path()}", Answer(found[version]))
        upstream.add(f"/{each.path()}.sha1", Answer(hashlib.sha1(found[version]).hexdigest().encode()))
        upstream.add(f"/{each.path('pom')}", Answer(samples.pom(each)))
    upstream.add(f"/{where.metadata}", Answer(samples.metadata(where, versions)))
    return found


def get(server: Server, key: str, path: str, **options: Any) -> httpx.Response:
    return server.client().get(f"/maven/{key}/{path}", **options)


def listed(server: Server, key: str, where: Coordinates = DEMO) -> list[str]:
    answer = get(server, key, where.metadata)
    assert answer.status_code == 200, answer.text
    assert get(server, key, f"{where.metadata}.sha1").text == hashlib.sha1(answer.content).hexdigest()
    return [part.partition("<")[0] for part in answer.text.split("<version>")[1:]]


def members(server: Server, upstream: Upstream, **settings: Any) -> tuple[Group, str, str, str]:
    """A group with two locals and a remote, and a virtual over them that deploys to the first."""
    found = group(server, "maven")
    first, second = found.local(), found.local()
    remote = found.remote(upstream.url(), settings=settings)
    return found, first, second, found.virtual(first, second, remote, deploy_target=first)


def test_maven_v7_versions_of_all_locals_are_merged_in_order(server: Server, upstream: Upstream) -> None:
    _, first, second, virtual = members(server, upstream)
    one = deploy(server, first, at("1.0"))
    deploy(server, second, at("1.0"))
    ten = deploy(server, second, at("1.10"))
    deploy(server, second, at("1.9"))
    assert listed(server, virtual) == ["1.0", "1.9", "1.10"]
    assert get(server, virtual, at("1.0").path()).content == one
    assert get(server, virtual, at("1.10").path()).content == ten
    assert get(server, virtual, f"{at('1.0').path()}.md5").text == hashlib.md5(one).hexdigest()


def test_maven_a_version_comes_from_one_local_member_alone(server: Server, upstream: Upstream) -> None:
    _, first, second, virtual = members(server, upstream)
    deploy(server, first, at("1.0"))
    deploy(server, second, at("1.0"))
    put(server, second, at("1.0").path(classifier="sources"), b"of another build")
    assert get(server, virtual, at("1.0").path(classifier="sources")).status_code == 404
    assert get(server, virtual, f"{at('1.0').path(classifier='sources')}.sha1").status_code == 404


def test_maven_e33_names_held_locally_hide_the_upstreams(server: Server, upstream: Upstream) -> None:
    found, first, _, virtual = members(server, upstream)
    offer(upstream, DEMO, "1.0", "99.0")
    theirs = offer(upstream, OTHER, "2.0")
    deploy(server, first, at("1.0"))
    assert listed(server, virtual) == ["1.0"]
    assert get(server, virtual, at("99.0").path()).status_code == 404
    assert upstream.requests == []
    assert listed(server, virtual, OTHER) == ["2.0"]
    assert get(server, virtual, at("2.0", "other").path()).content == theirs["2.0"]
    found.patch(virtual, options={"allow_remote_names": ["org.example:*"]})
    assert listed(server, virtual) == ["1.0", "99.0"]
    assert get(server, virtual, at("99.0").path()).status_code == 200


def test_maven_e34_deploys_through_a_virtual_claim_nothing_of_others(server: Server, upstream: Upstream) -> None:
    found, first, second, virtual = members(server, upstream)
    found.patch(virtual, options={"allow_remote_names": ["*"]})
    offer(upstream, DEMO, "1.0", "1.1")
    deploy(server, second, at("1.2"))
    assert listed(server, virtual) == ["1.0", "1.1", "1.2"]
    put(server, virtual, at("1.3").path(), b"jar")
    put(server, virtual, at("1.3").path("pom"), samples.pom(at("1.3")))
    put(server, virtual, DEMO.metadata, samples.metadata(DEMO, ["1.0", "1.1", "1.2", "1.3"]))
    assert listed(server, first) == ["1.3"] and listed(server, virtual) == ["1.0", "1.1", "1.2", "1.3"]
    gone = server.admin.delete(f"/maven/{virtual}/{at('1.3').path()}")
    assert gone.status_code == 405


def test_maven_10_virtual_without_a_target_takes_nothing(server: Server, upstream: Upstream) -> None:
    found = group(server, "maven")
    virtual = found.virtual(found.local())
    answer = server.admin.put(f"/maven/{virtual}/{DEMO.path()}", content=b"x")
    assert answer.status_code == 405 and answer.headers["content-type"] == "application/problem+json"


def test_maven_s2_snapshots_through_a_virtual(server: Server, upstream: Upstream) -> None:
    _, first, second, virtual = members(server, upstream)
    snapshot, build = at("1.0-SNAPSHOT"), "20240102.030405-1"
    for key, text in ((second, b"second"), (first, b"first")):
        put(server, key, snapshot.path(build=build), text)
        put(server, key, snapshot.path("pom", build=build), samples.pom(snapshot))
    metadata = get(server, virtual, f"{snapshot.folder()}/maven-metadata.xml")
    assert f"<value>1.0-{build}</value>" in metadata.text
    assert get(server, virtual, snapshot.path(build=build)).content == b"first"
    theirs = Coordinates(artifact="theirs", version="2-SNAPSHOT")
    upstream.add(f"/{theirs.folder()}/maven-metadata.xml", Answer(samples.snapshot_metadata(theirs, build)))
    upstream.add(f"/{theirs.path(build=build)}", Answer(b"theirs"))
    assert f"2-{build}" in get(server, virtual, f"{theirs.folder()}/maven-metadata.xml").text
    assert get(server, virtual, theirs.path(build=build)).content == b"theirs"


def newest(server: Server, key: str, where: Coordinates) -> dict[str, str]:
    """The newest build of each kind of file, by a snapshot's metadata; each is there."""
    answer = get(server, key, f"{where.folder()}/maven-metadata.xml")
    assert answer.status_code == 200, answer.text
    found = {}
    for each in ElementTree.fromstring(answer.content).iterfind("versioning/snapshotVersions/snapshotVersion"):
        classifier, extension = each.findtext("classifier") or "", each.findtext("extension") or ""
        build = (each.findtext("value") or "").removeprefix(where.version.removesuffix("SNAPSHOT"))
        assert get(server, key, where.path(extension, classifier, build)).status_code == 200, (extension, build)
        found[f"{classifier}.{extension}"] = build
    return found


def test_maven_b3_x2_a_snapshot_has_the_newest_builds_of_all_locals(server: Server, upstream: Upstream) -> None:
    _, first, second, virtual = members(server, upstream)
    snapshot, old, new = at("1.0-SNAPSHOT"), "20240101.000000-7", "20240601.000000-2"
    for key, build in ((first, old), (second, new)):
        put(server, key, snapshot.path(build=build), f"{key} {build}".encode())
        put(server, key, snapshot.path("pom", build=build), samples.pom(snapshot))
    put(server, first, snapshot.path(classifier="sources", build=old), b"sources")
    put(server, second, snapshot.path(build=old), b"the same name in the second")
    assert newest(server, virtual, snapshot) == {".jar": new, ".pom": new, "sources.jar": old}
    jar = get(server, virtual, snapshot.path(build=old))
    assert jar.content == f"{first} {old}".encode(), "the first that has it"
    assert get(server, virtual, f"{snapshot.path(build=old)}.sha1").text == hashlib.sha1(jar.content).hexdigest()
    metadata = get(server, virtual, f"{snapshot.folder()}/maven-metadata.xml").text
    assert "<buildNumber>7</buildNumber>" in metadata, "what the next build counts from (S7)"
    assert upstream.requests == []


def test_maven_b3_x2_a_snapshot_has_the_newest_builds_of_all_remotes(server: Server, upstream: Upstream) -> None:
    found = group(server, "maven")
    remotes = [found.remote(upstream.url(name)) for name in ("/a", "/b", "/c")]
    virtual = found.virtual(*remotes)
    snapshot, old, new = at("1.0-SNAPSHOT"), "20240101.000000-7", "20240601.000000-2"
    kinds = [("", "jar"), ("", "pom"), ("sources", "jar")]
    for name, build, has in (("a", old, kinds), ("b", new, kinds[:2])):
        document = samples.snapshot_metadata(snapshot, build, has)
        upstream.add(f"/{name}/{snapshot.folder()}/maven-metadata.xml", Answer(document))
        for classifier, extension in has:
            upstream.add(f"/{name}/{snapshot.path(extension, classifier, build)}", Answer(f"{name} {build}".encode()))
    assert newest(server, virtual, snapshot) == {".jar": new, ".pom": new, "sources.jar": old}
    assert "<lastUpdated>20240601000000<" in get(server, virtual, f"{snapshot.folder()}/maven-metadata.xml").text
    assert get(server, virtual, snapshot.path(build=new)).content == f"b {new}".encode()
    other = at("2-SNAPSHOT")  # the older form says a build, and no files
    for name, build in (("a", old), ("b", new)):
        document = samples.snapshot_metadata(other, build, ())
        upstream.add(f"/{name}/{other.folder()}/maven-metadata.xml", Answer(document))
    text = get(server, virtual, f"{other.folder()}/maven-metadata.xml").text
    assert "<timestamp>20240601.000000</timestamp>\n      <buildNumber>2<" in text


def test_maven_x3_a_members_metadata_of_another_artifact_are_skipped(server: Server, upstream: Upstream) -> None:
    found = group(server, "maven")
    remotes = [found.remote(upstream.url(name)) for name in ("/a", "/b")]
    virtual = found.virtual(*remotes)
    upstream.add(f"/a/{DEMO.metadata}", Answer(samples.metadata(OTHER, ["9.9"])))
    assert get(server, virtual, DEMO.metadata).status_code == 502, "nobody has said that it is not there"
    upstream.add(f"/b/{DEMO.metadata}", Answer(samples.metadata(DEMO, ["1.0"])))
    assert listed(server, virtual) == ["1.0"]
    assert get(server, virtual, DEMO.metadata).headers["x-repoman-incomplete"] == remotes[0]


def test_maven_m3_plugins_of_all_members(server: Server, upstream: Upstream) -> None:
    _, first, _, virtual = members(server, upstream)
    plugin = at("1.0", "our-maven-plugin")
    put(server, first, plugin.path(), samples.plugin_jar(plugin, "ours"))
    put(server, first, plugin.path("pom"), samples.pom(plugin, packaging="maven-plugin"))
    theirs = "<plugin><prefix>{}</prefix><artifactId>{}</artifactId></plugin>"
    body = theirs.format("theirs", "theirs-plugin") + theirs.format("ours", "evil-plugin")
    upstream.add("/org/example/maven-metadata.xml", Answer(f"<metadata><plugins>{body}</plugins></metadata>".encode()))
    found = get(server, virtual, "org/example/maven-metadata.xml").text
    assert "<artifactId>our-maven-plugin</artifactId>" in found and "<prefix>theirs</prefix>" in found
    assert "evil" not in found, "a prefix that is held locally is not the upstream's to give away"


@pytest.mark.parametrize("strict", [True, False])
def test_maven_h14_a_member_that_fails_is_no_404(server: Server, upstream: Upstream, strict: bool) -> None:
    found, first, _, virtual = members(server, upstream)
    found.patch(virtual, options={"strict": strict, "allow_remote_names": ["org.example:demo"]})
    upstream.everywhere = Answer(status=503)
    deploy(server, first, DEMO)
    answer = get(server, virtual, DEMO.metadata)
    assert answer.status_code in ((502, 503) if strict else (200,)), answer.text
    assert get(server, virtual, DEMO.path()).status_code == 200, "what comes before it does not need it"
    assert get(server, virtual, at("7.0", "unknown").path()).status_code in (502, 503)
    if not strict:
        assert answer.headers["x-repoman-incomplete"] and "no-store" in answer.headers["cache-control"]


def test_maven_explain_says_where_a_file_comes_from(server: Server, upstream: Upstream) -> None:
    found, first, second, virtual = members(server, upstream)
    deploy(server, second, DEMO)
    lines = found.explain(DEMO.path(), key=virtual)
    assert [(line["repository"], line["outcome"]) for line in lines[:2]] == [
        (first, "does not have it"),
        (second, "has it"),
    ]
    assert lines[2]["hidden_by"] == second
    assert any(line.get("answers") for line in found.explain(DEMO.metadata, key=virtual))


def test_maven_i4_folders_of_a_virtual_show_what_locals_hold(server: Server, upstream: Upstream) -> None:
    _, first, second, virtual = members(server, upstream)
    deploy(server, first, at("1.0"))
    deploy(server, second, at("1.0", "second"))
    page = get(server, virtual, "org/example/").text
    assert '<a href="demo/">demo/</a>' in page and '<a href="second/">second/</a>' in page
    assert '<a href="1.0/">1.0/</a>' in get(server, virtual, "org/example/second/").text
    assert '<a href="second-1.0.jar">second-1.0.jar</a>' in get(server, virtual, "org/example/second/1.0/").text


def test_maven_c8_h3_a_checksum_without_its_file_claims_no_name(server: Server, upstream: Upstream) -> None:
    offer(upstream, DEMO, "1.0")
    _, first, _, virtual = members(server, upstream)
    put(server, virtual, f"{at('2.0').path()}.sha1", b"0" * 40)
    assert listed(server, virtual) == ["1.0"]
    assert server.admin.get(f"/api/v1/repositories/{first}/packages").json()["items"] == []
