"""What every format's handler keeps to, whichever it is; and that a new one needs a folder and a line in the settings.

The handlers are those of the settings, and the toy one beside this file. A format that has no `Case` here fails.
"""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import pytest

from formats.helm import samples as helm
from formats.maven import samples as maven
from formats.npm import samples as npm
from formats.oci import listing as oci_listing
from formats.oci import samples as oci
from formats.pypi import samples as pypi
from repoman.core import errors
from repoman.core.actor import Action
from repoman.core.errors import ContentInvalid, NameInvalid, RepomanError
from repoman.core.format import FormatHandler, handlers
from repoman.core.records import Document, Listing
from repoman.core.refs import ListingRef
from repoman.core.wire import Response, Route
from tests.contract import toy
from tests.running import Deployment, Server

FOREIGN = "https://upstream.example/base"
OURS = "http://here.example/x/ns/repo"
LOGIN_PAGE = b"<!DOCTYPE html><html><head><title>Sign in</title></head><body><form>Sign in</form></body></html>"
JUNK = {
    "nothing": b"",
    "a login page": LOGIN_PAGE,
    "half a document": b'{"name": "demo", "vers',
    "other JSON": b"[1, 2, 3]",
    "an error": b'{"errors": [{"code": "DENIED"}], "error": "no"}',
    "binary": bytes(range(256)),
}


@dataclass(frozen=True)
class Page:
    """An upstream's document, and the forms in which we render what it says."""

    ref: ListingRef
    body: bytes
    media_type: str = "application/json"
    forms: tuple[str, ...] = ("",)
    render: Callable[[Listing], bytes] | None = None  # where the format's views write the document themselves


@dataclass(frozen=True)
class Case:
    """`names`: spellings with what rows hold; `packages`: file name → (bytes, name, version) that it claims to be."""

    names: Mapping[str, str]
    bad_names: tuple[str, ...]
    pages: tuple[Page, ...] = ()
    packages: Mapping[str, tuple[bytes, str, str]] = field(default_factory=dict)
    # Routes that read but whose paths name no content of a repository: hints, redirects, questions about people.
    nameless: frozenset[str] = frozenset()
    # Routes that change nothing although their method is not a safe one.
    harmless: frozenset[str] = frozenset()


def _npm_page() -> Page:
    documents = {
        version: npm.document("@a/demo", version, npm.package("@a/demo", version)) for version in ("1.0.0", "1.1.0-b")
    }
    found = documents["1.0.0"]
    for version, document in documents.items():
        entry = document["versions"][version]
        entry["dist"]["tarball"] = f"{FOREIGN}/@a/demo/-/demo-{version}.tgz"
        found["versions"][version] = entry
    found["versions"]["1.1.0-b"]["deprecated"] = "do not use"
    found.pop("_attachments")
    found["dist-tags"] = {"latest": "1.0.0", "beta": "1.1.0-b"}
    found["time"] = {"created": "2020-01-01T00:00:00.000Z", "modified": "2021-01-01T00:00:00.000Z"}
    found["time"] |= dict.fromkeys(documents, "2020-06-01T00:00:00.000Z")
    return Page(ListingRef("versions", "@a/demo"), json.dumps(found).encode(), forms=("full",))


def _pypi_page() -> Page:
    files = []
    for sample in (pypi.wheel("demo", "1.0"), pypi.sdist("demo", "1.0"), pypi.wheel("demo", "2.0b1")):
        files.append(
            {
                "filename": sample.filename,
                "url": f"{FOREIGN}/files/{sample.filename}",
                "hashes": {"sha256": sample.sha256},
                "size": len(sample.data),
                "requires-python": ">=3.8",
                "upload-time": "2024-01-02T03:04:05.000000Z",
                "yanked": "broken" if sample.version == "2.0b1" else False,
            }
        )
    page = {"meta": {"api-version": "1.1"}, "name": "demo", "versions": ["1.0", "2.0b1"], "files": files}
    return Page(
        ListingRef("versions", "demo"), json.dumps(page).encode(), "application/vnd.pypi.simple.v1+json", ("json",)
    )


def _oci_pages() -> Iterator[Page]:
    tags = {"name": "app", "tags": ["1.0", "latest", "v2"]}

    def render_tags(found: Listing) -> bytes:
        return oci_listing.tag_list("app", [entry.name for entry in found.entries])

    def render_referrers(found: Listing) -> bytes:
        return oci_listing.referrers_index([oci_listing.referrer_descriptor(entry) for entry in found.entries])

    yield Page(ListingRef("tags", "app"), json.dumps(tags).encode(), render=render_tags)
    subject = oci.image()
    signature = oci.artifact(b"s", subject=subject.descriptor())
    entry = signature.descriptor(artifactType="application/vnd.example.signature.v1", annotations={"a": "b"})
    index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [entry]}
    for kind in ("referrers", "referrers-by-tag"):
        ref = ListingRef(kind, "app", arguments=(("subject", subject.digest),))
        yield Page(ref, json.dumps(index).encode(), index["mediaType"], render=render_referrers)


def _helm_page() -> Page:
    entries = [
        helm.entry(
            helm.chart("demo", version), "demo", version, url=f"{FOREIGN}/charts/demo-{version}.tgz", appVersion="1.10"
        )
        for version in ("1.1.0+a", "1.0.0", "1.0.0-rc.1")
    ]
    body = helm.index(*entries, helm.entry(b"", "third"), unknown=[1])
    return Page(ListingRef("versions", "demo"), body, "application/x-yaml", ("index",))


_DEMO = maven.Coordinates()
_SNAPSHOT = maven.Coordinates(version="1.0-SNAPSHOT")


def _maven_pages() -> Iterator[Page]:
    versions = maven.metadata(_DEMO, ["1.0-SNAPSHOT", "1.0", "2.0-beta", "2.0"])
    plugins = b"<plugins><plugin><name>D</name><prefix>d</prefix><artifactId>d-plugin</artifactId></plugin></plugins>"
    both = versions.replace(b"<versioning>", plugins + b"<versioning>")
    yield Page(ListingRef("releases", _DEMO.package), versions, "application/xml")
    yield Page(ListingRef("releases", _DEMO.package), both, "application/xml")
    about = ListingRef("version", _DEMO.package, arguments=(("version", _SNAPSHOT.version),))
    kinds = (("", "jar"), ("", "jar.asc"), ("", "pom"), ("sources", "jar"))
    yield Page(about, maven.snapshot_metadata(_SNAPSHOT, "20240102.030405-7", kinds), "text/xml")
    yield Page(about, maven.snapshot_metadata(_SNAPSHOT, "20240102.030405-7", ()), "text/xml")


def _toy_page() -> Page:
    files = [
        {"version": version, "path": f"{version}/a.toy", "url": f"{FOREIGN}/demo/{version}/a.toy", "size": 3,
         "sha256": "a" * 64}
        for version in ("1.0", "2.0")
    ]  # fmt: skip
    return Page(ListingRef("versions", "demo"), json.dumps({"toy": "demo", "files": files}).encode(), forms=("json",))


_WHEEL, _SDIST = pypi.wheel("Demo.Package", "1.0"), pypi.sdist("demo-package", "1.0")
CASES = {
    "oci": Case(
        {"app": "app", "team/app_x/y--z": "team/app_x/y--z"},
        ("App", "a//b", "-a", "a/", "ü", ""),
        tuple(_oci_pages()),
        nameless=frozenset({"no_image"}),
        harmless=frozenset({"no_image"}),
    ),
    "generic": Case({"a/b.txt": "a/b.txt", "gru\u0308n": "gr\u00fcn"}, ("", "a/", "../a", "a//b", "/a", "a\0b")),
    "helm": Case(
        {"demo": "demo", "My.Chart_x-1": "My.Chart_x-1"},
        ("", "a/b", "..", "-a", "a\0b", " a", "a%2fb"),
        (_helm_page(),),
        {
            "chart.tgz": (helm.chart("demo", "1.0.0+a"), "demo", "1.0.0+a"),
            "chart.tgz.prov": (helm.provenance(b"x", "demo", "v1.2"), "demo", "v1.2"),
        },
        nameless=frozenset({"health", "info", "index_hint"}),
    ),
    "maven": Case(
        {"org.example:demo": "org.example:demo", "a:Scala-x_2.13": "a:Scala-x_2.13"},
        ("", "demo", "a:", ":a", "a:b:c", "a b:c", "../a:b", "a..b:c", "a:${x}"),
        tuple(_maven_pages()),
        {
            "1.0/demo-1.0.pom": (maven.pom(_DEMO), _DEMO.package, "1.0"),
            "1.0/demo-1.0.jar": (maven.plugin_jar(_DEMO, "d"), _DEMO.package, "1.0"),
        },
    ),
    "npm": Case(
        {"demo": "demo", "@a/demo": "@a/demo"},
        ("", "@a", "@a/", ".demo", "a b", "a/b", "node_modules"),
        (_npm_page(),),
        {"demo-1.0.0.tgz": (npm.package("demo", "1.0.0"), "demo", "1.0.0")},
        nameless=frozenset(
            {"collaborators", "visibility", "access_read", "scope_packages", "user_packages", "search", "keys", "user"}
        ),
        harmless=frozenset({"audit_bulk", "audit_tree"}),
    ),
    "pypi": Case(
        {"demo": "demo", "My.Demo__x": "my-demo-x", "A": "a"},
        ("", "-a", "a-", "a b", "ü"),
        (_pypi_page(),),
        {
            _WHEEL.filename: (_WHEEL.data, "demo-package", "1.0"),
            _SDIST.filename: (_SDIST.data, "demo-package", "1.0"),
        },
        nameless=frozenset({"index_slash", "project_slash", "upload_hint", "project_hint"}),
        harmless=frozenset({"index_hint"}),
    ),
    "toy": Case(
        {"demo": "demo", "Demo": "demo"},
        ("", "1", "a b"),
        (_toy_page(),),
        {"a.toy": (toy.sample("demo", "1.0"), "demo", "1.0")},
    ),
}
HANDLERS: dict[str, FormatHandler] = {**handlers(), toy.handler.name: toy.handler}


@pytest.fixture(params=sorted(HANDLERS))
def handler(request: pytest.FixtureRequest) -> FormatHandler:
    return HANDLERS[request.param]


@pytest.fixture
def case(handler: FormatHandler) -> Case:
    return CASES[handler.name]


# --- names -----------------------------------------------------------------------------------------------------------


def test_normalize_gives_one_spelling_and_leaves_it_alone(handler: FormatHandler, case: Case) -> None:
    for spelling, kept in case.names.items():
        assert handler.normalize(spelling) == kept
        assert handler.normalize(kept) == kept
    for name in case.bad_names:
        with pytest.raises(NameInvalid):
            handler.normalize(name)


def test_any_text_can_be_sorted_as_a_version(handler: FormatHandler) -> None:
    texts = ["1.0", "1.0.0", "2.0-beta", "", "latest", "ü", "10.0", "1.0+build", "9" * 300]
    assert sorted(map(handler.version_key, texts)) == [handler.version_key(text) for text in _sorted(handler, texts)]
    for text in texts:
        assert handler.version_identity(text) == handler.version_identity(text)
        hash(handler.version_identity(text))


def _sorted(handler: FormatHandler, texts: list[str]) -> list[str]:
    return sorted(texts, key=handler.version_key)


# --- documents -------------------------------------------------------------------------------------------------------


def rendered(handler: FormatHandler, page: Page, found: Listing, form: str) -> Document:
    if page.render is not None:
        return Document(page.render(found), page.media_type)
    return handler.render_listing(page.ref, found, form, OURS)


def without_addresses(found: Listing) -> Listing:
    entries = tuple(
        replace(entry, files=tuple(replace(file, url="") for file in entry.files)) for entry in found.entries
    )
    return replace(found, entries=entries)


def test_what_is_parsed_and_rendered_says_the_same_and_leads_to_us(handler: FormatHandler, case: Case) -> None:
    for page in case.pages:
        found = handler.parse_listing(page.ref, page.body, url=f"{FOREIGN}/page", media_type=page.media_type)
        assert found.entries
        for form in page.forms:
            document = rendered(handler, page, found, form)
            assert b"upstream.example" not in document.data
            again = handler.parse_listing(
                page.ref, document.data, url=f"{OURS}/page", media_type=document.media_type or page.media_type
            )
            once_more = rendered(handler, page, again, form)
            assert once_more.data == document.data  # and the same records give the same bytes
            assert [entry.name for entry in again.entries] == [entry.name for entry in found.entries]
            assert again.tags == found.tags
            for ours, theirs in zip(without_addresses(again).entries, without_addresses(found).entries, strict=True):
                assert (ours.yanked, ours.yanked_reason, ours.deprecated) == (
                    theirs.yanked, theirs.yanked_reason, theirs.deprecated,
                )  # fmt: skip
                assert [(file.path, file.size, file.digests) for file in ours.files] == [
                    (file.path, file.size, file.digests) for file in theirs.files
                ]
                assert (ours.media_type, ours.artifact_type, ours.size) == (
                    theirs.media_type, theirs.artifact_type, theirs.size,
                )  # fmt: skip
            if handler.is_listed:  # files have the addresses that the document gives them
                assert all(file.url.startswith(OURS) for entry in again.entries for file in entry.files)
                assert all(file.url.startswith(FOREIGN) for entry in found.entries for file in entry.files)


def test_g6_what_is_no_document_of_the_format_is_refused(handler: FormatHandler, case: Case) -> None:
    for page in case.pages:
        for what, body in JUNK.items():
            for media_type in (page.media_type, "text/html", ""):
                with pytest.raises(ContentInvalid):
                    found = handler.parse_listing(page.ref, body, url=f"{FOREIGN}/page", media_type=media_type)
                    pytest.fail(f"{handler.name} took {what} as {media_type!r}: {found}")
        if handler.is_listed:
            assert case.pages
            other = replace(page.ref, package="other")
            with pytest.raises(ContentInvalid):
                handler.parse_listing(other, page.body, url=f"{FOREIGN}/page", media_type=page.media_type)


def test_packages_say_what_they_are_and_unknown_bytes_are_refused(handler: FormatHandler, case: Case) -> None:
    for path, (data, name, version) in case.packages.items():
        facts = handler.inspect(path, io.BytesIO(data), len(data))
        assert (handler.normalize(facts.name), facts.version) == (name, version)
        for cut in (data[:-20], data[:10]):
            if handler.name != "toy" or cut == data[:10]:
                with pytest.raises(ContentInvalid):
                    handler.inspect(path, io.BytesIO(cut), len(cut))
    for path in [*case.packages, "unknown.bin"]:
        for junk in JUNK.values():
            with pytest.raises(ContentInvalid):
                handler.inspect(path, io.BytesIO(junk), len(junk))


def test_what_is_asked_of_an_upstream_stays_below_its_address(handler: FormatHandler, case: Case) -> None:
    options = handler.parse_options({})
    for page in case.pages:
        request = handler.upstream(page.ref, options)
        assert request.path and not request.url
        assert not request.path.startswith("/") and ".." not in request.path
        assert handler.upstream_base("https://host/base/").startswith("https://host/")


# --- errors ----------------------------------------------------------------------------------------------------------


def every_error() -> list[type[RepomanError]]:
    found: list[type[RepomanError]] = []
    waiting = [RepomanError]
    while waiting:
        kind = waiting.pop()
        found.append(kind)
        waiting += kind.__subclasses__()
    return [kind for kind in found if kind.__module__ == errors.__name__]


@pytest.mark.parametrize("kind", every_error(), ids=lambda kind: kind.__name__)
def test_every_error_has_an_answer_in_the_words_of_the_format(handler: FormatHandler, kind: type[RepomanError]) -> None:
    error = kind("what happened <b>here</b>\r\nX-Evil: 1", field="a", allow=["GET"], size=3)
    for head in (False, True):
        answer = handler.error(error, mount="/x/ns/repo", head=head)
        assert isinstance(answer, Response)
        assert answer.status == kind.status or (kind.status < 500 and 400 <= answer.status < 500)
        assert isinstance(answer.content, bytes) and answer.content
        for name, value in answer.headers:
            assert name and "\r" not in value and "\n" not in value
        assert "\n" not in (answer.reason or "") and "\r" not in (answer.reason or "")
        types = [value for name, value in answer.headers if name.lower() == "content-type"]
        assert len(types) == 1 and "html" not in types[0]
    assert handler.challenge(errors.AuthenticationRequired(), base_url="http://h", scope="")


# --- routes ----------------------------------------------------------------------------------------------------------


def test_f2_every_route_says_what_it_demands(handler: FormatHandler, case: Case) -> None:
    names = [route.name for route in handler.routes]
    assert all(names) and len(set(names)) == len(names)
    for route in handler.routes:
        assert isinstance(route.action, Action) and route.methods
        if not {"GET", "HEAD"} & set(route.methods):
            writes = route.action in (Action.PUBLISH, Action.DELETE, Action.MANAGE)
            assert writes or route.action is Action.PUBLIC or route.name in case.harmless, route.name
        elif set(route.methods) - {"GET", "HEAD"}:
            assert route.name in case.harmless, route.name
    for option in dataclasses.fields(handler.options):
        assert option.default is not dataclasses.MISSING, f"{option.name} needs a default"


def test_every_route_that_reads_content_says_which(handler: FormatHandler, case: Case) -> None:
    """So that `explain` can say where it comes from."""

    def reads(route: Route) -> bool:
        return "GET" in route.methods and route.action is Action.READ

    without = {route.name for route in handler.routes if reads(route) and route.ref is None}
    assert without == case.nameless, without ^ case.nameless
    for route in handler.routes:
        if route.hot is not None:
            assert route.ref is not None and route.hot_headers is not None, route.name


# --- a sixth format --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def with_toy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Deployment.embedded(
        tmp_path_factory.mktemp("toy"),
        DJANGO_SETTINGS_MODULE="tests.contract.toy_settings",
        REPOMAN_UPSTREAM_ALLOW="127.0.0.0/8",
    ) as server:
        yield server


def test_a_new_format_is_a_folder_and_a_line_and_has_all_types_of_repository(with_toy: Server) -> None:
    server = with_toy
    namespace = server.make_namespace()
    origin = server.make_repository(format="toy", anonymous_read=True)
    local = server.make_repository(namespace, format="toy", anonymous_read=True)
    url = f"{server.url}/toy/{origin}/"
    remote = server.make_repository(
        namespace, format="toy", type="remote", remote={"url": url, "metadata_ttl": 0}, anonymous_read=True
    )
    key = server.make_repository(
        namespace, format="toy", type="virtual", members=[local, remote], deploy_target=local, anonymous_read=True
    )
    for package, version in (("demo", "1.0"), ("demo", "2.0"), ("held", "9.0")):
        data = toy.sample(package, version, "theirs")
        assert server.admin.put(f"/toy/{origin}/{package}/{version}/a.toy", content=data).status_code == 201
    client = server.client()

    page = client.get(f"/toy/{remote}/demo/")
    assert [file["url"] for file in page.json()["files"]] == [
        f"{server.url}/toy/{remote}/demo/{version}/a.toy" for version in ("1.0", "2.0")
    ]
    for file in page.json()["files"]:
        assert client.get(file["url"]).content == toy.sample("demo", file["version"], "theirs")
    assert client.get(f"/toy/{remote}/other/").status_code == 404

    ours = toy.sample("held", "1.0", "ours")
    assert server.admin.put(f"/toy/{key}/held/1.0/a.toy", content=ours).status_code == 201
    assert server.admin.put(f"/toy/{key}/held/1.1/a.toy", content=b"no toy").status_code == 400
    assert [file["version"] for file in client.get(f"/toy/{key}/held/").json()["files"]] == ["1.0"]
    assert client.get(f"/toy/{key}/held/1.0/a.toy").content == ours
    assert client.get(f"/toy/{key}/held/9.0/a.toy").status_code == 404
    assert client.get(f"/toy/{key}/demo/2.0/a.toy").content == toy.sample("demo", "2.0", "theirs")
    assert client.delete(f"/toy/{key}/held/1.0/a.toy").status_code == 405
    assert server.admin.put(f"/toy/{remote}/x/1.0/a.toy", content=toy.sample("x", "1.0")).status_code == 405

    api = f"/api/v1/repositories/{local}"
    assert [item["name"] for item in server.admin.get(f"{api}/packages").json()["items"]] == ["held"]
    versions = server.admin.get(f"{api}/versions", params={"package": "Held"}).json()["items"]
    assert [item["version"] for item in versions] == ["1.0"]
    said = server.admin.get(f"/api/v1/repositories/{key}/explain", params={"path": "held/9.0/a.toy"}).json()
    assert [(line["repository"], line.get("hidden_by")) for line in said["sources"]] == [(local, None), (remote, local)]
    checked = server.job("fsck", rehash=True)
    assert checked["state"] == "succeeded", checked
