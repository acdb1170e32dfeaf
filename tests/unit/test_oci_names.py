"""Names, tags, routing and scopes of the OCI format (distribution-spec "Pulling manifests")."""

from __future__ import annotations

import pytest

from formats.oci import handler
from formats.oci.names import check_image, check_known_tag, check_new_tag, is_tag, mount_source, visible_name
from repoman.core.errors import BadRequest, ContentInvalid, NameInvalid, VersionNotFound

D = "sha256:" + "a" * 64


def routed(method: str, path: str) -> tuple[str, dict[str, str]] | None:
    for route in handler.routes:
        match = route.regex.match(path) if method in route.methods else None
        if match is not None:
            return route.name, match.groupdict()
    return None


@pytest.mark.parametrize(
    "name", ["a", "a--b", "a---b", "a__b", "a_b", "a.b", "a/b/c", "0", "blobs/uploads", "v2", "a1-2/b"]
)
def test_N1_names_within_the_grammar_are_taken(name: str) -> None:
    assert check_image(name) == name == handler.normalize(name)


@pytest.mark.parametrize(
    "name", ["", "a___b", "a..b", "A/b", "-a", "a-", "_a", "a/", "/a", "a//b", "a._b", "a/_b", "é", "a b", "a\n", "a:b"]
)
def test_N1_names_outside_the_grammar_are_refused(name: str) -> None:
    with pytest.raises(NameInvalid):
        check_image(name)


def test_N2_A6_the_whole_name_may_have_255_characters() -> None:
    assert check_image("a" * 247, "ns/repo")
    with pytest.raises(NameInvalid):
        check_image("a" * 248, "ns/repo")


def test_A11_a_pathological_name_is_judged_quickly() -> None:
    with pytest.raises(NameInvalid):
        check_image("a-" * 120 + "!")


@pytest.mark.parametrize("tag", ["latest", "_x", "V1.0-rc.1_2", "a" * 128, "sha256-" + "a" * 64 + ".sig"])
def test_N3_tags_within_the_grammar(tag: str) -> None:
    assert is_tag(tag) and check_new_tag(tag) == check_known_tag(tag) == tag


@pytest.mark.parametrize("tag", ["", ".a", "-a", "a" * 129, "a+b", "ü", "a\n", ".INVALID_MANIFEST_NAME"])
def test_N3_P5_a_bad_tag_is_invalid_when_written_and_missing_when_read(tag: str) -> None:
    with pytest.raises(ContentInvalid):
        check_new_tag(tag)
    with pytest.raises(VersionNotFound):
        check_known_tag(tag)


@pytest.mark.parametrize(
    ("method", "path", "name", "image"),
    [
        ("GET", "a/manifests/latest", "manifest", "a"),
        ("HEAD", f"a/b/manifests/{D}", "manifest", "a/b"),
        ("GET", "manifests/manifests/x", "manifest", "manifests"),
        ("GET", "a/blobs/uploads/manifests/latest", "manifest", "a/blobs/uploads"),
        ("GET", "tags/list/x/tags/list", "tags", "tags/list/x"),
        ("GET", f"a/blobs/{D}", "blob", "a"),
        ("HEAD", f"a/blobs/{D}", "blob_probe", "a"),
        ("GET", f"a/blobs/uploads/blobs/{D}", "blob", "a/blobs/uploads"),
        ("POST", "a/blobs/uploads/", "upload_start", "a"),
        ("POST", "a/blobs/uploads", "upload_start", "a"),
        ("POST", "tags/list/x/blobs/uploads/", "upload_start", "tags/list/x"),
        ("POST", "a/blobs/uploads/blobs/uploads/", "upload_start", "a/blobs/uploads"),
        ("PATCH", "a/blobs/uploads/blobs/uploads/id", "upload_chunk", "a/blobs/uploads"),
        ("PUT", "a/blobs/uploads/id", "upload_finish", "a"),
        ("GET", "a/blobs/uploads/id", "upload_status", "a"),
        ("DELETE", "a/blobs/uploads/id", "upload_cancel", "a"),
        ("DELETE", f"a/blobs/{D}", "blob_delete", "a"),
        ("DELETE", "a/manifests/latest", "manifest_delete", "a"),
        ("GET", f"a/referrers/{D}", "referrers", "a"),
    ],
)
def test_N4_addresses_are_read_from_the_right_hand_end(method: str, path: str, name: str, image: str) -> None:
    found = routed(method, path)
    assert found is not None
    assert (found[0], found[1]["image"]) == (name, image)


@pytest.mark.parametrize("path", ["manifests/latest", f"blobs/{D}", "blobs/uploads/", "tags/list", f"referrers/{D}"])
def test_an_address_without_an_image_has_its_own_answer(path: str) -> None:
    for method in ("GET", "PUT", "POST"):
        found = routed(method, path)
        assert found is not None and found[0] == "no_image"


def test_F11_a_tag_that_looks_like_a_digest_stays_a_tag() -> None:
    found = routed("GET", "a/manifests/sha256-" + "a" * 64)
    assert found is not None
    route = next(route for route in handler.routes if route.name == "manifest")
    assert route.hot is not None
    lookup = route.hot(**found[1])
    assert lookup is not None and (lookup.kind, lookup.package) == ("tag", "a")


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("GET", "a/b/manifests/x", "repository:ns/repo/a/b:pull"),
        ("HEAD", f"a/blobs/{D}", "repository:ns/repo/a:pull"),
        ("POST", "a/blobs/uploads/", "repository:ns/repo/a:pull,push"),
        ("PUT", "a/manifests/x", "repository:ns/repo/a:pull,push"),
        ("DELETE", "a/manifests/x", "repository:ns/repo/a:pull,delete"),
        ("GET", "a/blobs/uploads/id", "repository:ns/repo/a:pull,push"),
        ("GET", 'a"b/manifests/x', ""),
        ("GET", "nonsense", ""),
    ],
)
def test_A31_A33_scopes_follow_the_method(method: str, path: str, scope: str) -> None:
    assert handler.scope_of("ns/repo", method, path) == scope


def test_A32_cancelling_an_upload_needs_push_only() -> None:
    assert handler.scope_of("ns/repo", "DELETE", "a/blobs/uploads/id") == "repository:ns/repo/a:pull,push"


def test_A34_the_catalog_has_a_scope_of_its_own() -> None:
    assert handler.scope_of("", "GET", "/v2/_catalog") == "registry:catalog:*"
    assert handler.scope_of("", "GET", "/v2/") == ""


def test_N7_N8_names_are_the_clients_own() -> None:
    assert visible_name("/v2/ns/repo", "a/b") == "ns/repo/a/b"
    assert visible_name("/ns/repo/v2", "a/b") == "a/b"


def test_U12_a_from_that_names_nothing_is_no_source() -> None:
    assert mount_source("/v2/ns/repo", "ns/repo", None) is None
    assert mount_source("/v2/ns/repo", "ns/repo", "x/y/z") == "x/y/z"
    assert mount_source("/ns/repo/v2", "ns/repo", "z") == "ns/repo/z"
    assert mount_source("/v2/ns/repo", "ns/repo", "../../etc") == ""
    assert mount_source("/v2/ns/repo", "ns/repo", "x/y") == ""


def test_options_are_typed_and_bounded() -> None:
    assert handler.parse_options({}).allow_sparse_manifests is False
    assert handler.parse_options({"immutable_tags": ["v*"]}).immutable_tags == ("v*",)
    for bad in ({"x": 1}, {"allow_sparse_manifests": "yes"}, {"immutable_tags": "v*"}, {"immutable_tags": ["v" * 129]}):
        with pytest.raises(BadRequest):
            handler.parse_options(bad)


def test_client_url_has_no_scheme() -> None:
    assert handler.client_url("https://host:8443", "ns/repo") == "host:8443/ns/repo"
