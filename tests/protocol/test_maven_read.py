"""Reading from a Maven repository: files, conditions, ranges, folders, and who may (contract sections 1, 7 and 12)."""

from __future__ import annotations

import email.utils
import re
import time

import httpx
import pytest

from formats.maven import samples
from formats.maven.samples import Coordinates
from tests.protocol import edge_client
from tests.protocol.maven_client import METADATA, SUMS, Maven, missing, new_maven, refused, summed
from tests.running import Server

DEMO = Coordinates()
SNAPSHOT = Coordinates(version="1.0-SNAPSHOT")
BUILD = "20240102.030405-7"
JAR = DEMO.path()
MODULE = b'{"formatVersion": "1.1", "component": {"group": "org.example", "module": "demo", "version": "1.0"}}'


@pytest.fixture(scope="module")
def embedded_maven(embedded: Server) -> Maven:
    return filled(embedded)


@pytest.fixture(scope="module")
def full_maven(full: Server) -> Maven:
    return filled(full)


@pytest.fixture(params=["embedded", "full"])
def maven(request: pytest.FixtureRequest) -> Maven:
    """One repository for all tests that only read, on both deployments."""
    found: Maven = request.getfixturevalue(f"{request.param}_maven")
    return found


def filled(server: Server) -> Maven:
    maven = new_maven(server)
    maven.deploy(
        DEMO,
        more={
            DEMO.path("module"): MODULE,
            DEMO.path("jar.asc"): b"-----BEGIN PGP SIGNATURE-----",
            DEMO.path("html", "report"): b"<script>alert(1)</script>",
            DEMO.path("svg"): b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>",
            f"{DEMO.folder()}/notes.txt": b"notes",
        },
    )
    maven.deploy(SNAPSHOT, build=BUILD)
    maven.put_all({SNAPSHOT.path(): b"under its plain name", f"{SNAPSHOT.folder()}/notes.txt": b"notes"})
    return maven


def same_for_head(maven: Maven, path: str, **headers: str) -> httpx.Response:
    """GET's answer, after HEAD gave the same status and headers without a body (H2)."""
    got, head = maven.get(path, **headers), maven.get(path, "HEAD", **headers)
    assert head.status_code == got.status_code and head.content == b""
    for answer in (got, head):
        for name in ("x-request-id", "date"):
            answer.headers.pop(name, None)
    assert sorted(head.headers.multi_items()) == sorted(got.headers.multi_items())
    return got


# --- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "media_type"),
    [
        (JAR, "application/java-archive"),
        (DEMO.path("pom"), "application/xml"),
        (DEMO.path("module"), "application/json"),
        (DEMO.path("jar.asc"), "application/pgp-signature"),
        (DEMO.path("html", "report"), "application/octet-stream"),
        (DEMO.path("svg"), "application/octet-stream"),
        (f"{DEMO.folder()}/notes.txt", "text/plain; charset=utf-8"),
    ],
)
def test_maven_h2_h12_h13_c1_j2_headers_of_a_release(maven: Maven, path: str, media_type: str) -> None:
    answer = same_for_head(maven, path)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == media_type
    assert answer.headers["content-length"] == str(len(answer.content))
    assert answer.headers["etag"] == f'"{summed(answer.content, "sha256")}"'
    assert answer.headers["cache-control"] == "private, max-age=31536000, immutable"
    assert email.utils.parsedate_to_datetime(answer.headers["last-modified"]).timestamp() <= time.time() + 1
    for algorithm in ("sha1", "md5", "sha256"):
        assert answer.headers[f"x-checksum-{algorithm}"] == summed(answer.content, algorithm)
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"].startswith("sandbox;")
    assert answer.headers["content-disposition"].startswith("attachment;")
    assert answer.headers["accept-ranges"] == "bytes"


@pytest.mark.parametrize(
    ("path", "is_moving"),
    [
        (SNAPSHOT.path(), True),
        (f"{SNAPSHOT.folder()}/notes.txt", True),
        (SNAPSHOT.path(build=BUILD), False),
        (SNAPSHOT.path("pom", build=BUILD), False),
    ],
)
def test_maven_h12_s4_e25_what_may_change_is_asked_for_again(maven: Maven, path: str, is_moving: bool) -> None:
    for _ in range(2):  # the second answer may come by the short cut
        answer = same_for_head(maven, path)
        assert ("immutable" not in answer.headers["cache-control"]) is is_moving
    for algorithm in SUMS:
        told = same_for_head(maven, f"{path}.{algorithm}")
        assert ("immutable" not in told.headers["cache-control"]) is is_moving


def test_maven_p2_both_spellings_of_a_builds_folder(maven: Maven) -> None:
    path = SNAPSHOT.path(build=BUILD).replace("1.0-SNAPSHOT/", f"1.0-{BUILD}/")
    assert maven.get(path).content == maven.get(SNAPSHOT.path(build=BUILD)).content != b""


@pytest.mark.parametrize("algorithm", SUMS)
@pytest.mark.parametrize("path", [JAR, DEMO.path("module"), DEMO.path("jar.asc"), f"{DEMO.folder()}/notes.txt"])
def test_maven_c4_c6_c11_every_sum_of_every_file(maven: Maven, path: str, algorithm: str) -> None:
    answer = same_for_head(maven, f"{path}.{algorithm}")
    assert answer.status_code == 200
    assert answer.text == summed(maven.get(path).content, algorithm)  # bare, lower case, no newline
    assert answer.headers["content-type"].startswith("text/plain")
    assert answer.headers["content-length"] == str(len(answer.content))


def test_maven_h8_r5_nothing_is_packed_or_negotiated(maven: Maven) -> None:
    plain = maven.get(JAR, Accept_Encoding="identity")
    other = maven.get(JAR, Accept_Encoding="gzip, deflate", Accept="application/problem+json,*/*")
    assert plain.content == other.content and "content-encoding" not in other.headers
    assert "accept" not in [name.strip().lower() for name in other.headers.get("vary", "").split(",")]
    odd = maven.get(DEMO.path("pom"), Accept="image/png")
    assert odd.status_code == 200 and odd.headers["content-type"] == "application/xml"


# --- conditions and ranges -------------------------------------------------------------------------------------------


def wagon_date(moment: float) -> str:
    """As Wagon writes it: a short day's name and a year of two digits."""
    return time.strftime("%a, %d-%b-%y %H:%M:%S GMT", time.gmtime(moment))


def test_maven_h4_h6_conditions(maven: Maven) -> None:
    first = maven.get(JAR)
    modified = email.utils.parsedate_to_datetime(first.headers["last-modified"]).timestamp()
    dates = {"http": email.utils.formatdate(modified, usegmt=True), "wagon": wagon_date(modified)}
    early = {"http": email.utils.formatdate(modified - 5, usegmt=True), "wagon": wagon_date(modified - 5)}
    for method in ("GET", "HEAD"):
        assert maven.get(JAR, method, If_None_Match=first.headers["etag"]).status_code == 304
        assert maven.get(JAR, method, If_None_Match='"x"').status_code == 200
        for form in ("http", "wagon"):
            assert maven.get(JAR, method, If_Modified_Since=dates[form]).status_code == 304, form
            assert maven.get(JAR, method, If_Modified_Since=early[form]).status_code == 200, form
            assert maven.get(JAR, method, If_Unmodified_Since=early[form]).status_code == 412, form
        assert maven.get(JAR, method, If_Modified_Since="yesterday").status_code == 200
    not_modified = maven.get(JAR, If_None_Match=first.headers["etag"])
    assert not_modified.content == b"" and not_modified.headers["etag"] == first.headers["etag"]


def test_maven_h5_no_cache_is_answered_like_any_other(maven: Maven) -> None:
    first = maven.get(JAR)
    again = maven.get(JAR, Cache_Control="no-cache, no-store", Pragma="no-cache", If_None_Match=first.headers["etag"])
    assert again.status_code == 304


def test_maven_h7_i4_ranges(maven: Maven) -> None:
    whole = maven.get(JAR)
    size = len(whole.content)
    part = maven.get(JAR, Range="bytes=10-", Accept_Encoding="identity", If_Unmodified_Since=whole.headers["date"])
    assert part.status_code == 206 and part.content == whole.content[10:]
    assert part.headers["content-range"] == f"bytes 10-{size - 1}/{size}"
    assert maven.get(JAR, Range="bytes=-5").content == whole.content[-5:]
    assert maven.get(JAR, Range="bytes=0-0", If_Range=whole.headers["etag"]).content == whole.content[:1]
    assert maven.get(JAR, Range="bytes=0-0", If_Range='"other"').content == whole.content
    refused(maven.get(JAR, Range=f"bytes={size}-"), 416, "range_invalid")
    assert maven.get(JAR, Range="bytes=0-1,3-4").status_code in (200, 416)
    assert maven.get(JAR, Range="lines=1-2").content == whole.content
    many = maven.get(JAR, Range="bytes=" + ",".join(f"{n}-{n}" for n in range(500)))
    assert many.status_code in (200, 400, 416) and len(many.content) <= size + 1000


# --- what is not there -----------------------------------------------------------------------------------------------

MISSING = [
    DEMO.path("war"),
    DEMO.path("war.sha1"),
    Coordinates(version="2.0").path(),
    Coordinates(artifact="none").path("pom"),
    Coordinates(artifact="none").metadata,
    f"{Coordinates(artifact='none').metadata}.sha1",
    f"{Coordinates(version='2.0-SNAPSHOT').folder()}/{METADATA}",
    f"{DEMO.folder()}/{METADATA}",
    f"org/{METADATA}",
    f"{METADATA}.sha1",
    METADATA,
    "archetype-catalog.xml",
    ".meta/prefixes.txt",
    ".meta/prefixes.txt.sha1",
    ".index/nexus-maven-repository-index.gz",
    ".index/nexus-maven-repository-index.properties",
    "org/example/demo/1.0/nothing/here.jar",
    "org/example/demo/1.0/",
    "none/",
    "org/ex/ample/",
    "robots.txt",
    "org/example/demo+/1.0/demo+-1.0.jar",
    "org/exam ple/demo/1.0/demo-1.0.jar",
]


@pytest.mark.parametrize("path", [path for path in MISSING if path != "org/example/demo/1.0/"])
def test_maven_h1_e7_g9_f3_i2_i3_missing_is_404(maven: Maven, path: str) -> None:
    answer = same_for_head(maven, path)
    assert answer.status_code == 404
    missing(maven.get(path))  # E23: never a page
    assert answer.headers["cache-control"] == "private, no-cache"


def test_maven_h1_e7_challenge_or_404_but_never_403(maven: Maven) -> None:
    """Who may read gets 404 for what is missing; a stranger for everything; nobody signed in is asked who they are."""
    stranger = maven.as_other(maven.server.client(*maven.server.make_user()))
    anonymous = maven.as_other(maven.server.client())
    wrong = maven.as_other(maven.server.client(maven.server.make_user()[0], "wrong"))
    for path in (
        JAR,
        f"{JAR}.sha1",
        DEMO.metadata,
        DEMO.path("war"),
        f"org/{METADATA}",
        "org/",
        "",
        "x/y",
        "a b/c/d/e",
    ):
        assert stranger.get(path).status_code == 404, path
        for method in ("GET", "HEAD"):
            answer = anonymous.get(path, method)
            assert answer.status_code == 401, path
            challenges = answer.headers.get_list("www-authenticate")
            assert len(challenges) == 1 and challenges[0].startswith('Basic realm="'), path
        refused(anonymous.get(path), 401, "authentication_required")
    answer = wrong.get(JAR)
    refused(answer, 401, "credentials_invalid")
    assert len(answer.headers.get_list("www-authenticate")) == 1


def test_maven_h16_a4_the_repositorys_name_escaped_is_judged_alike(maven: Maven) -> None:
    escaped = "".join(f"%{ord(character):02x}" if character.isalnum() else character for character in maven.key)
    anonymous = maven.server.client()
    assert (
        anonymous.get(f"/maven/{escaped}/{JAR}").status_code == anonymous.get(f"/maven/{maven.key}/{JAR}").status_code
    )
    assert maven.client.get(f"/maven/{escaped}/{JAR}").content == maven.get(JAR).content
    for path in ("/maven/", "/maven//", f"/maven/{maven.key.partition('/')[0]}/", f"/maven//{JAR}"):
        assert maven.client.get(path).status_code in (400, 404), path


def test_maven_h1_anonymous_reading_where_it_is_allowed(server: Server) -> None:
    maven = new_maven(server, anonymous_read=True)
    maven.deploy(DEMO)
    anonymous = maven.as_other(server.client())
    assert anonymous.get(JAR).status_code == 200
    assert anonymous.versions() == ["1.0"]
    assert anonymous.get(DEMO.path("war")).status_code == 404
    for method, path in (("PUT", DEMO.path("war")), ("PUT", DEMO.metadata), ("DELETE", JAR)):
        answer = anonymous.ask(method, path, content=b"x")
        refused(answer, 401, "authentication_required")
        assert len(answer.headers.get_list("www-authenticate")) == 1


def test_maven_f7_e5_a_token_that_may_only_publish_reads_nothing(maven: Maven) -> None:
    token = maven.server.token(maven.client, actions=["publish"])["token"]
    writer = maven.as_other(maven.server.client("token", token))
    for path in (JAR, f"{JAR}.sha1", DEMO.metadata, "org/"):
        assert writer.get(path).status_code in (403, 404), path
    writer.deploy(Coordinates(artifact="written"))
    plugin = Coordinates(artifact="plain", version="1.0")
    writer.put_all({plugin.path("pom"): samples.pom(plugin, packaging="maven-plugin"), plugin.path(): samples.jar()})
    writer.put_all({plugin.metadata: samples.metadata(plugin, ["1.0"])})
    assert maven.versions(plugin) == ["1.0"]


@pytest.mark.parametrize(
    "target",
    [
        "../../../etc/passwd",
        "org/..%2f..%2f..%2fetc%2fpasswd",
        "org/%2e%2e/%2e%2e/etc/passwd",
        "org/%252e%252e/x/y/z",
        "org/..%5c..%5cetc%5cpasswd",
        "org/example/demo/1.0/demo-1.0.jar%2520",
        "org/example/demo/1.0/demo-1.0-%25%34%31.jar",
        "org/example/demo/1.0/demo-1.0.jar%7",
        "org/example/demo/1.0/demo-1.0.%zzjar",
        "%2F%2F..%2Fetc/passwd",
        "//etc/passwd",
        "org//example/demo/1.0/demo-1.0.jar",
        "org/example%2Fdemo/1.0/demo-1.0.jar",
        "org/example/demo/1.0/demo-1.0.jar%00",
        "org/example/demo/1.0/demo%0d%0aX-Evil:1-1.0.jar",
        "org/example/demo/1.0/demo%7f.jar",
        "org/example/demo/1.0/%ff.jar",
        "org/example/demo/1.0/%c0%ae.jar",
        "org/example/demo/1.0/%e2%80%ae.jar",
        "org/example/demo/1.0/%ed%a0%80.jar",
        "org/example/demo/" + "1" * 300 + "/x.jar",
        "org/example/demo/1.0/" + "x" * 5000,
        "a/" * 400,
        "a/" * 400 + "b",
        "org/example/demo/${project.version}/demo-${project.version}.jar",
        "org/./example/demo/1.0/demo-1.0.jar",
        "maven-metadata.xml/../x",
        "?after=" + "x" * 3000,
        "org/?limit=-1",
        "org/?limit=99999999999999999999",
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE"])
def test_maven_p11_p9_a1_a2_a3_a6_a7_r1_hostile_addresses(maven: Maven, method: str, target: str) -> None:
    status, body = maven.raw(method, target, **({"Content-Length": "0"} if method == "PUT" else {}))
    assert 400 <= status < 500 or (status == 200 and target.startswith("?")), (status, body)
    assert b"root:" not in body and b"Traceback" not in body


# --- folders ---------------------------------------------------------------------------------------------------------


def links(answer: httpx.Response) -> list[str]:
    """As Ivy's parser finds them: `<a href="x">x</a>`, text and address alike (I4)."""
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/html")
    found = re.findall(r'<a href="([^"]*)">([^<]*)</a>', answer.text)
    return [href for href, text in found if href == text and href != "../"]


def test_maven_i4_p12_folders(maven: Maven) -> None:
    assert "org/" in links(same_for_head(maven, ""))
    assert links(maven.get("org/")) == ["example/"]
    assert "demo/" in links(maven.get("org/example/"))
    assert links(maven.get("org/example/demo/")) == ["1.0-SNAPSHOT/", "1.0/", METADATA]
    in_version = links(maven.get("org/example/demo/1.0/"))
    assert {"demo-1.0.jar", "demo-1.0.pom", "notes.txt"} <= set(in_version)
    assert not [name for name in in_version if name.endswith((".sha1", ".md5"))]
    assert METADATA in links(maven.get("org/example/demo/1.0-SNAPSHOT/"))
    for folder in ("org/", "org/example/demo/", "org/example/demo/1.0/"):
        for name in links(maven.get(folder)):
            assert maven.get(folder + name).status_code == 200, folder + name


def test_maven_p12_a_folder_without_its_slash(maven: Maven) -> None:
    for path in ("org", "org/example", "org/example/demo", "org/example/demo/1.0", "org/example/demo/1.0-SNAPSHOT"):
        answer = same_for_head(maven, path)
        assert answer.status_code == 301, path
        assert answer.headers["location"] == f"/maven/{maven.key}/{path}/"
    assert same_for_head(maven, "org/example/demo/1.1").status_code == 404


def test_maven_i5_pages(server: Server) -> None:
    maven = new_maven(server)
    for number in range(5):
        maven.put_all({f"org/example/demo/1.0/file-{number}.txt": b"x"}, sums=())
    seen: list[str] = []
    answer = maven.ask("GET", "org/example/demo/1.0/", query="?limit=2")
    for _ in range(5):
        seen += links(answer)
        more = re.search(r'<a href="(\?[^"]+)" rel="next">', answer.text)
        if more is None:
            break
        answer = maven.ask("GET", "org/example/demo/1.0/", query=more[1].replace("&amp;", "&"))
    assert seen == [f"file-{number}.txt" for number in range(5)]
    for query in ("?limit=0", "?limit=x", "?limit=-5"):
        refused(maven.ask("GET", "org/", query=query), 400, "bad_request")
    assert answer.headers["cache-control"] == "private, no-cache"


def test_maven_i5_j2_names_are_escaped(server: Server) -> None:
    maven = new_maven(server)
    name = "a'b\"&amp;<script>alert(1)<.txt"
    Maven.created(maven.put(f"org/example/demo/1.0/{name}", b"x"))
    answer = maven.get("org/example/demo/1.0/")
    assert "<script>" not in answer.text and "default-src 'none'" in answer.headers["content-security-policy"]
    (href,) = [link for link in re.findall(r'href="([^"]*)"', answer.text) if "script" in link]
    target = href.replace("&amp;", "&").replace("&#x27;", "'").replace("&#39;", "'")
    assert maven.raw("GET", f"org/example/demo/1.0/{target}") == (200, b"x")


def test_maven_p4_a_folder_that_is_group_and_artifact(server: Server) -> None:
    maven = new_maven(server)
    upper, lower = Coordinates("org", "foo", "1.0"), Coordinates("org.foo", "bar", "2.0")
    maven.deploy(upper)
    maven.deploy(lower)
    assert links(maven.get("org/foo/")) == ["1.0/", "bar/", METADATA]
    assert maven.versions(upper) == ["1.0"] and maven.versions(lower) == ["2.0"]
    assert maven.get(upper.path()).status_code == maven.get(lower.path()).status_code == 200


def test_maven_e27_a10_names_that_look_alike_when_joined(server: Server) -> None:
    """The same artifact in two groups, a-b 1 and a b-1: each by itself, when one goes the other stays."""
    maven = new_maven(server)
    pairs = [
        Coordinates("org.a", "demo"),
        Coordinates("org.b", "demo"),
        Coordinates("x", "a-b", "1"),
        Coordinates("x", "a", "b-1"),
    ]
    for number, at in enumerate(pairs):
        maven.deploy(at, text=f"text {number}")
    assert len({maven.get(at.path()).content for at in pairs}) == 4
    assert maven.delete(pairs[0].path()).status_code == maven.delete(pairs[2].path()).status_code == 204
    assert [maven.get(at.path()).status_code for at in pairs] == [404, 200, 404, 200]
    answer = maven.client.delete(
        f"/api/v1/repositories/{maven.key}/versions", params={"package": "x:a", "version": "b-1"}
    )
    assert answer.status_code == 204
    assert maven.versions(pairs[2]) == ["1"] and maven.versions(pairs[3]) == []


@pytest.mark.parametrize("method", ["OPTIONS", "MKCOL", "POST", "PATCH", "PROPFIND"])
def test_maven_w11_w14_i6_other_methods_are_not_known(maven: Maven, method: str) -> None:
    answer = maven.ask(method, JAR)
    assert answer.status_code == 405
    assert {"GET", "HEAD", "PUT", "DELETE"} == {name.strip() for name in answer.headers["allow"].split(",")}


def test_maven_n3_an_upgrade_to_http2_is_ignored(embedded: Server) -> None:
    maven = new_maven(embedded, anonymous_read=True)
    maven.deploy(DEMO)
    answer = edge_client.ask(
        embedded,
        "GET",
        f"/maven/{maven.key}/{JAR}",
        "Connection: Upgrade, HTTP2-Settings",
        "Upgrade: h2c",
        "HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA",
    )
    assert answer.status == 200 and answer.body == samples.jar()
