"""Packuments, versions and tarballs on the wire (contract, sections 2 to 5)."""

from __future__ import annotations

import base64
import gzip
import hashlib

import httpx
import pytest

from tests.protocol.npm_client import INSTALL, INSTALL_TYPE, Registry, new_registry, refused
from tests.running import Server

FULL = "application/json"


@pytest.fixture
def registry(server: Server) -> Registry:
    return new_registry(server)


@pytest.fixture
def held(registry: Registry) -> tuple[Registry, bytes]:
    return registry, registry.publish("@s/n", "1.0.0", keywords=["k"], scripts={"postinstall": "true"})


# --- 2: names --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["@s%2fn", "@s%2Fn", "@s/n", "%40s%2fn", "%40s/n", "%40s%2Fn"])
def test_npm_2_1_every_spelling_of_a_scope_is_the_same_package(held: tuple[Registry, bytes], name: str) -> None:
    registry, data = held
    plain = registry.packument("@s/n")
    assert registry.raw("GET", name)[0] == 200
    status, body = registry.raw("GET", name, Accept=FULL)
    assert status == 200 and httpx.Response(200, content=body).json() == plain
    for path in ("{}/1.0.0", "{}/latest", "-/package/{}/dist-tags", "{}/-/n-1.0.0.tgz", "-/package/{}/visibility"):
        assert registry.raw("GET", path.format(name))[0] == 200
    assert registry.raw("GET", f"{name}/-/n-1.0.0.tgz")[1] == data


@pytest.mark.parametrize(
    "path", ["@s/n/-/n-1.0.0.tgz", "@s%2fn/-/n-1.0.0.tgz", "@s/n/-/@s/n-1.0.0.tgz", "@s%2Fn/-/@s%2fn-1.0.0.tgz"]
)
def test_npm_2_2_every_form_of_a_tarball_s_address(held: tuple[Registry, bytes], path: str) -> None:
    registry, data = held
    assert registry.raw("GET", path) == (200, data)


def test_npm_2_2_another_scope_before_the_file_is_another_file(held: tuple[Registry, bytes]) -> None:
    assert held[0].raw("GET", "@s/n/-/@t/n-1.0.0.tgz")[0] == 404


def test_npm_2_6_names_are_case_sensitive(held: tuple[Registry, bytes]) -> None:
    refused(held[0].get("@S%2fn"), 404)


@pytest.mark.parametrize(
    "path",
    [
        *("a%2fb", "@s%252fn", "@s%2f..%2f..", "@s%2f%2e%2e", "@s%5cn", "%2fetc%2fpasswd", "..%2f..", "a%00b", "a%0ab"),
        *("@s%2fn/-/..%2fx", "@s%2fn/-/%2e%2e", "a\xe9", "%ff", "@s%2fn%2f1.0.0"),
    ],
)
def test_A1_A2_A3_hostile_addresses_are_refused(registry: Registry, path: str) -> None:
    status, body = registry.raw("GET", path.encode("latin-1").decode("latin-1") if path.isascii() else "a%c3")
    assert status in (400, 404), body


@pytest.mark.parametrize("path", ["node_modules", ".hidden", "A" * 215, "@s%2f.x", "a:b", "%F0%9F%92%A9"])
def test_A6_A7_A9_names_outside_the_grammar_are_refused(registry: Registry, path: str) -> None:
    refused(registry.get(path), 400)


# --- 3: packuments ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        (INSTALL, INSTALL_TYPE),
        (INSTALL_TYPE, INSTALL_TYPE),
        (f"{INSTALL_TYPE}, {FULL}", INSTALL_TYPE),
        (f"{FULL}, {INSTALL_TYPE}; q=0.5", FULL),
        (FULL, FULL),
        ("*/*", FULL),
        ("", FULL),
        (f"{INSTALL_TYPE}; q=0", FULL),
        ("text/html;q=broken,,;", FULL),
    ],
)
def test_npm_3_1_1_3_1_2_the_form_follows_accept(held: tuple[Registry, bytes], accept: str, media_type: str) -> None:
    answer = held[0].get("@s%2fn", accept=accept)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == media_type
    assert ("_id" in answer.json()) is (media_type == FULL)


def test_npm_3_1_5_I5_caches_keep_the_forms_apart(held: tuple[Registry, bytes]) -> None:
    for accept in (INSTALL, FULL):
        headers = held[0].get("@s%2fn", accept=accept).headers
        vary = {part.strip().lower() for part in headers["vary"].split(",")}
        assert vary == {"accept", "accept-encoding"}
        assert headers["cache-control"] == "private, no-cache, must-revalidate"


def test_npm_3_1_6_a_read_before_a_change_is_fresh(held: tuple[Registry, bytes]) -> None:
    registry, _ = held
    answer = registry.get("@s%2fn?write=true", accept="*/*")
    assert answer.json()["_rev"] and "no-store" in answer.headers["cache-control"]
    short = registry.get("@s%2fn?write=true", accept=INSTALL)
    assert list(short.json()["versions"]) == ["1.0.0"]


def test_npm_3_2_the_full_document(held: tuple[Registry, bytes]) -> None:
    registry, data = held
    found = registry.packument("@s/n")
    assert found["_id"] == found["name"] == "@s/n" and found["_rev"]
    assert found["dist-tags"] == {"latest": "1.0.0"}
    assert found["description"] == "@s/n for tests" and found["keywords"] == ["k"] and found["readme"] == "# A sample\n"
    user = registry.get("-/whoami").json()["username"]
    assert found["maintainers"] == [{"name": user, "email": ""}]
    version = found["versions"]["1.0.0"]
    assert (
        version["_id"] == "@s/n@1.0.0" and version["_npmUser"]["name"] == user and version["_nodeVersion"] == "20.0.0"
    )
    assert version["hasInstallScript"] is True and "readme" not in version
    dist = version["dist"]
    assert dist["shasum"] == hashlib.sha1(data).hexdigest()
    assert dist["integrity"] == "sha512-" + base64.b64encode(hashlib.sha512(data).digest()).decode()
    assert dist["fileCount"] == 3 and dist["unpackedSize"] > 0
    assert dist["tarball"] == f"{registry.url}@s/n/-/n-1.0.0.tgz"
    assert registry.client.get(dist["tarball"]).content == data


def test_npm_3_3_the_abbreviated_document(held: tuple[Registry, bytes]) -> None:
    found = held[0].packument("@s/n", accept=INSTALL)
    full = held[0].packument("@s/n")
    assert set(found) == {"name", "modified", "dist-tags", "versions", "time"}
    assert found["modified"] == full["time"]["modified"] and found["time"] == full["time"]
    version = found["versions"]["1.0.0"]
    assert version["dist"] == full["versions"]["1.0.0"]["dist"] and version["hasInstallScript"] is True
    assert not {"scripts", "readme", "_nodeVersion", "description"} & version.keys()


@pytest.mark.parametrize("accept", [INSTALL, FULL])
def test_npm_3_4_1_unchanged_documents_are_not_sent_again(held: tuple[Registry, bytes], accept: str) -> None:
    registry, _ = held
    first = registry.get("@s%2fn", accept=accept)
    tag = first.headers["etag"]
    assert not tag.startswith("W/")
    again = registry.get("@s%2fn", accept=accept, if_none_match=tag)
    assert (again.status_code, again.headers["etag"], again.content) == (304, tag, b"")
    assert registry.get("@s%2fn", accept=accept, if_none_match='"other"').status_code == 200
    assert registry.get("@s%2fn", accept=accept).headers["etag"] == tag


def test_npm_3_4_2_every_change_gives_another_tag(held: tuple[Registry, bytes]) -> None:
    registry, _ = held
    seen = [registry.get("@s%2fn", accept=FULL).headers["etag"], registry.get("@s%2fn", accept=INSTALL).headers["etag"]]

    def changed() -> None:
        etag = registry.get("@s%2fn", accept=FULL).headers["etag"]
        assert etag not in seen
        seen.append(etag)

    registry.put("-/package/@s%2fn/dist-tags/stable", "1.0.0")
    changed()
    document = registry.packument("@s/n")
    document["versions"]["1.0.0"]["deprecated"] = "old"
    assert registry.put("@s%2fn", document).status_code == 200
    changed()
    registry.publish("@s/n", "1.1.0")
    changed()
    assert registry.get("@s%2fn", accept=FULL, host="other.example").headers["etag"] not in seen


def test_npm_3_4_3_without_a_validator_there_is_a_body(held: tuple[Registry, bytes]) -> None:
    for _ in range(3):
        assert held[0].get("@s%2fn", accept=INSTALL).status_code == 200


def test_npm_3_4_6_15_28_encodings(registry: Registry) -> None:
    for number in range(6):
        registry.publish("n", f"1.{number}.0")
    plain = registry.get("n", accept_encoding="identity")
    assert "content-encoding" not in plain.headers and int(plain.headers["content-length"]) == len(plain.content)
    packed = registry.get("n", accept_encoding="gzip,deflate")
    assert packed.headers["content-encoding"] == "gzip" and packed.json() == plain.json()
    assert int(packed.headers["content-length"]) < len(plain.content)
    for odd in ("gzip/deflate", ";;;", "\x7f", "br, zstd"):
        assert registry.get("n", accept_encoding=odd.replace("\x7f", "*;q=0")).content == plain.content


def test_npm_3_head_answers_like_get(held: tuple[Registry, bytes]) -> None:
    registry, _ = held
    for path in ("@s%2fn", "@s/n/1.0.0", "-/package/@s%2fn/dist-tags", "@s/n/-/n-1.0.0.tgz"):
        got, headed = registry.get(path), registry.ask("HEAD", path)
        assert headed.status_code == got.status_code == 200 and headed.content == b""
        drop = {"date", "x-request-id"}
        assert {k: v for k, v in headed.headers.items() if k not in drop} == {
            k: v for k, v in got.headers.items() if k not in drop
        }


def test_npm_3_5_one_version(held: tuple[Registry, bytes]) -> None:
    registry, _ = held
    registry.publish("@s/n", "2.0.0-rc.1", tag="next")
    versions = registry.packument("@s/n")["versions"]
    for selector, version in (("1.0.0", "1.0.0"), ("latest", "1.0.0"), ("next", "2.0.0-rc.1")):
        found = registry.get(f"@s%2fn/{selector}")
        assert found.json().pop("dist") == versions[version]["dist"]
        assert found.json()["version"] == version
        assert registry.get(f"@s/n/{selector}", if_none_match=found.headers["etag"]).status_code == 304
    for path in ("@s%2fn/9.9.9", "@s%2fn/nothing", "nobody/1.0.0"):
        refused(registry.get(path), 404)


def test_npm_3_5_4_slashes_too_many(held: tuple[Registry, bytes]) -> None:
    for path in ("/@s/n/1.0.0", "@s/n/1.0.0/", "/@s%2fn", "@s%2fn/"):
        assert held[0].raw("GET", path)[0] == 200


# --- 4: times --------------------------------------------------------------------------------------------------------


def test_npm_4_1_4_2_times_are_the_server_s_and_complete(registry: Registry) -> None:
    from formats.npm import samples

    document, _ = samples.publication("n", "1.0.0")
    document["time"] = {"1.0.0": "1999-01-01T00:00:00.000Z", "modified": "1999-01-01T00:00:00.000Z"}
    assert registry.put("n", document).status_code == 201
    registry.publish("n", "1.0.1")
    time = registry.packument("n")["time"]
    assert set(time) == {"created", "modified", "1.0.0", "1.0.1"}
    assert all(value > "2026" and value.endswith("Z") and len(value) == 24 for value in time.values())
    assert time["created"] <= time["1.0.0"] <= time["1.0.1"] <= time["modified"]


# --- 5: tarballs -----------------------------------------------------------------------------------------------------


def test_npm_5_2_5_3_G10_addresses_follow_the_request(held: tuple[Registry, bytes]) -> None:
    registry, _ = held
    found = registry.packument("@s/n", host="packages.example:8443")
    assert found["versions"]["1.0.0"]["dist"]["tarball"].startswith(
        f"http://packages.example:8443{registry.base}@s/n/-/"
    )
    assert registry.packument("@s/n")["versions"]["1.0.0"]["dist"]["tarball"].startswith(registry.url)
    forged = registry.get(
        "@s%2fn", x_forwarded_host="evil.example", x_forwarded_proto="https", forwarded="host=evil.example"
    )
    assert "evil.example" not in forged.text


def test_npm_5_8_5_9_what_a_tarball_is_served_with(held: tuple[Registry, bytes]) -> None:
    registry, data = held
    answer = registry.get("@s/n/-/n-1.0.0.tgz", accept_encoding="gzip", accept=INSTALL)
    assert answer.content == data and gzip.decompress(data)
    headers = answer.headers
    assert headers["content-type"] == "application/octet-stream"
    assert headers["content-length"] == str(len(data)) and "content-encoding" not in headers
    assert headers["accept-ranges"] == "bytes"
    assert headers["cache-control"] == "private, max-age=31536000, immutable"
    assert headers["x-content-type-options"] == "nosniff"
    assert registry.get("@s/n/-/n-1.0.0.tgz", if_none_match=headers["etag"]).status_code == 304
    part = registry.get("@s/n/-/n-1.0.0.tgz", range="bytes=10-19")
    assert part.status_code == 206 and part.content == data[10:20]


def test_npm_5_both_ways_to_a_tarball_answer_alike(held: tuple[Registry, bytes]) -> None:
    """The short cut answers plain GETs; a query sends the same request the long way."""
    registry, _ = held
    drop = {"date", "x-request-id"}
    answers = [registry.get(f"@s/n/-/n-1.0.0.tgz{query}") for query in ("", "", "?x=1")]
    assert len({answer.content for answer in answers}) == 1
    assert len({tuple(sorted((k, v) for k, v in answer.headers.items() if k not in drop)) for answer in answers}) == 1


def test_npm_5_13_anonymous_readers_are_challenged_for_what_is_private(held: tuple[Registry, bytes]) -> None:
    stranger = held[0].as_other(held[0].server.client())
    for path in ("@s%2fn", "@s/n/-/n-1.0.0.tgz", "nobody", "-/v1/search?text=n", "-/package/@s%2fn/dist-tags"):
        answer = stranger.get(path)
        refused(answer, 401)
        assert answer.headers["www-authenticate"] == 'Bearer realm="Repoman", Basic realm="Repoman", charset="UTF-8"'


def test_F1_F5_strangers_find_nothing(held: tuple[Registry, bytes]) -> None:
    registry, _ = held
    other = registry.as_other(registry.server.client(*registry.server.make_user()))
    for path in ("@s%2fn", "@s/n/-/n-1.0.0.tgz", "@s/n/1.0.0", "-/v1/search?text=n", "-/package/@s%2fn/visibility"):
        refused(other.get(path), 404)


def test_anybody_reads_what_is_public(server: Server) -> None:
    registry = new_registry(server, anonymous_read=True)
    data = registry.publish("n", "1.0.0")
    anyone = registry.as_other(server.client())
    assert anyone.versions("n") == ["1.0.0"] and anyone.get("n/-/n-1.0.0.tgz").content == data
    refused(anyone.put("n", {}), 401)


def test_npm_1_4_what_is_missing_is_json(held: tuple[Registry, bytes]) -> None:
    for path in (
        "nobody",
        "@no/body",
        "n/-/x.tgz",
        "@s/n/-/n-9.9.9.tgz",
        "-/nothing/here",
        "",
        "-/all",
        "-/v1/login/x",
    ):
        refused(held[0].get(path), 404)


def test_I6_other_methods_are_refused(held: tuple[Registry, bytes]) -> None:
    registry, _ = held
    for method, path in (("POST", "@s%2fn"), ("PATCH", "@s%2fn"), ("DELETE", "@s%2fn"), ("PUT", "@s/n/-/n-1.0.0.tgz")):
        answer = registry.ask(method, path)
        refused(answer, 405)
        assert "GET" in answer.headers["allow"]
