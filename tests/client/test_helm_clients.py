"""helm 3, helm 4 and cm-push against local repositories, and through remote and virtual ones (helm.md section 12)."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from formats.helm import samples
from formats.helm.chartyaml import load
from formats.helm.package import inspect
from tests.client import helm_scenarios as scenarios
from tests.client.helm_scenarios import HELMS, Desk, Place
from tests.running import Deployment, Server

helms = pytest.mark.parametrize("helm", HELMS)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    return Desk(home)


def place_of(server: Server, key: str, role: str = "maintainer", login: str = "password") -> Place:
    username, password = server.make_user(key, role)
    if login == "token":
        made = server.token(server.client(username, password), actions=["read", "publish"], repositories=[key])
        username, password = "ci", made["token"]
    return Place(f"{server.url}/helm/{key}", username, password)


@pytest.fixture
def place(embedded: Server) -> Place:
    return place_of(embedded, embedded.make_repository(format="helm", options={"allow_overwrite": True}))


def seed(desk: Desk, place: Place) -> dict[str, Path]:
    """Versions of `demo`, newest first, and another chart."""
    versions = ("2.0.0-rc.1", "1.10.0", "1.2.0+build.5", "1.0.0")
    scenarios.publish(desk, place, "other", "0.1.0")
    return {version: scenarios.publish(desk, place, "demo", version, appVersion="1.10") for version in versions}


@helms
@pytest.mark.parametrize("login", ["password", "token"])
def test_helm_12_1_reading(desk: Desk, embedded: Server, helm: str, login: str) -> None:
    place = place_of(embedded, embedded.make_repository(format="helm"), login=login)
    archives = {
        version: scenarios.publish(desk, place, "demo", version) for version in ("2.0.0-rc.1", "1.10.0", "1.2.0")
    }
    scenarios.read_everything(desk, place, helm, archives)
    wrong = Place(place.url, place.username or "x", "wrong")
    desk.forget()
    said = desk.run(helm, "repo", "add", "wrong", wrong.url, *wrong.sign_in, fails=True)
    assert "401" in said
    assert "401" in desk.run(helm, "repo", "add", "nobody", place.url, fails=True)


@helms
def test_a_public_repository_and_an_empty_one(desk: Desk, embedded: Server, helm: str) -> None:
    key = embedded.make_repository(format="helm", anonymous_read=True)
    nobody = Place(f"{embedded.url}/helm/{key}")
    scenarios.add(desk, nobody, helm)
    assert "[]" in desk.run(helm, "search", "repo", "ours/", "-o", "json")
    archive = scenarios.publish(desk, place_of(embedded, key), "demo", "1.0.0")
    scenarios.read_everything(desk, nobody, helm, {"1.0.0": archive})


@helms
def test_helm_c9_i12_13_21_versions_with_build_metadata(desk: Desk, place: Place, helm: str) -> None:
    archives = {
        version: scenarios.publish(desk, place, "demo", version) for version in ("1.0.0+a.1", "1.0.0", "1.0.0+b")
    }
    scenarios.add(desk, place, helm)
    for version, archive in archives.items():
        folder = desk.folder(f"got-{version}")
        desk.run(helm, "pull", "ours/demo", "--version", version, "-d", folder)
        assert (folder / f"demo-{version}.tgz").read_bytes() == archive.read_bytes()


@helms
def test_helm_12_2_p2_signed_charts(desk: Desk, place: Place, helm: str) -> None:
    archive, public = scenarios.publish_signed(desk, place, helm, "demo", "1.0.0")
    scenarios.verify(desk, place, helm, archive, public)
    scenarios.publish(desk, place, "bare", "1.0.0")
    desk.run(helm, "repo", "update")
    desk.run(helm, "pull", "ours/bare", "--verify", "--keyring", public, fails=True)


@helms
def test_helm_a8_dependencies(desk: Desk, place: Place, helm: str) -> None:
    seed(desk, place)
    scenarios.depend(desk, place, helm, "1.10.0")


def test_helm_12_3_section_7_cm_push(desk: Desk, embedded: Server, place: Place) -> None:
    chart = scenarios.write_chart(desk.folder("source"), "demo", "1.0.0")
    assert "Done" in scenarios.cm_push(desk, place, chart)
    (chart / "values.yaml").write_text("text: other\n")
    desk.run("helm3", "package", chart, "-d", desk.folder("packages"))
    archive = desk.folder("packages") / "demo-1.0.0.tgz"
    said = scenarios.cm_push(desk, place, archive, fails=True)
    assert "409" in said and "already exists" in said
    scenarios.cm_push(desk, place, archive, "--force")
    scenarios.cm_push(desk, place, chart, "--version", "1.1.0+b", "--app-version", "7")
    key = place.url.partition("/helm/")[2]
    scenarios.cm_push(desk, place, chart, "--version", "1.2.0", "--context-path", f"/helm/{key}")
    user = embedded.client(place.username, place.password)
    made = embedded.token(user, actions=["read", "publish"], repositories=[key])
    scenarios.cm_push(desk, place, chart, "--version", "1.3.0", token=made["token"])
    scenarios.add(desk, place, "helm3")
    rows = scenarios.found(desk, "helm3", "ours/demo", "-l")
    assert [row[1] for row in rows] == ["1.3.0", "1.2.0", "1.1.0+b", "1.0.0"]
    assert next(row[2] for row in rows if row[1] == "1.1.0+b") == "7"
    assert "401" in scenarios.cm_push(desk, Place(place.url, "nobody", "x"), chart, "--version", "9.0.0", fails=True)
    reader = place_of(embedded, key, "reader")
    assert "403" in scenarios.cm_push(desk, reader, chart, "--version", "9.0.0", fails=True)


def test_helm_h7_the_plugin_and_its_own_addresses(desk: Desk, place: Place) -> None:
    """Helm 4 does not take the plugin in the form in which it is published."""
    helm = "helm3"
    scenarios.install_plugin(desk)
    chart = scenarios.write_chart(desk.folder("source"), "demo", "1.0.0")
    scenarios.add(desk, place, helm)
    assert "Done" in desk.run(helm, "cm-push", chart, "ours")
    desk.run(helm, "repo", "update")
    assert scenarios.found(desk, helm, "ours/demo") == [("ours/demo", "1.0.0", "")]
    http = {"HELM_REPO_USE_HTTP": "true", "HELM_REPO_USERNAME": place.username, "HELM_REPO_PASSWORD": place.password}
    own = place.url.replace("http://", "cm://")
    desk.run(helm, "repo", "add", "theirs", own, *place.sign_in, environment=http)
    desk.run(helm, "pull", "theirs/demo", environment=http)
    archive = desk.home / "demo-1.0.0.tgz"
    with place.client() as client:
        assert archive.read_bytes() == client.get(f"{place.url}/charts/demo-1.0.0.tgz").content


def test_what_is_refused_is_said(desk: Desk, embedded: Server) -> None:
    namespace = embedded.make_namespace(quota_bytes=1000)
    place = place_of(embedded, embedded.make_repository(namespace, format="helm"))
    chart = scenarios.write_chart(desk.folder("source"), "demo", "1.0.0")
    (chart / "large.bin").write_bytes(random.Random(1).randbytes(9000))
    said = scenarios.cm_push(desk, place, chart, fails=True)
    assert "403" in said and "1000" in said


def test_helm_o17_a_chart_pushed_to_a_registry_is_not_in_an_index(desk: Desk, embedded: Server) -> None:
    """The same name and version in both: two formats, two repositories, and neither shows what the other has."""
    namespace = embedded.make_namespace()
    place = place_of(embedded, embedded.make_repository(namespace, format="helm"))
    oci = embedded.make_repository(namespace, format="oci")
    username, password = embedded.make_user(oci, "maintainer")
    chart = scenarios.write_chart(desk.folder("source"), "demo", "5.0.0")
    desk.run("helm4", "package", chart, "-d", desk.folder("packages"))
    desk.run("helm4", "registry", "login", embedded.host, "-u", username, "-p", password, "--plain-http")
    archive = desk.folder("packages") / "demo-5.0.0.tgz"
    desk.run("helm4", "push", archive, f"oci://{embedded.host}/{oci}", "--plain-http")
    scenarios.add(desk, place, "helm4")
    assert scenarios.found(desk, "helm4", "ours/", "-l") == []
    scenarios.publish(desk, place, "other", "1.0.0")
    desk.run("helm4", "pull", f"oci://{embedded.host}/{oci}/other", "--version", "1.0.0", "--plain-http", fails=True)


@helms
def test_helm_x6_v8_two_charts_of_one_file_name(desk: Desk, embedded: Server, helm: str) -> None:
    """`foo-1` of version 2.0.0 and `foo` of version 1-2.0.0, in two members of a virtual repository."""
    namespace = embedded.make_namespace()
    keys = [embedded.make_repository(namespace, format="helm") for _ in range(2)]
    key = embedded.make_repository(namespace, format="helm", type="virtual", members=keys)
    scenarios.publish(desk, place_of(embedded, keys[0]), "foo", "1-2.0.0")
    _, public = scenarios.publish_signed(desk, place_of(embedded, keys[1]), helm, "foo-1", "2.0.0")
    place = place_of(embedded, namespace, "reader")
    place = Place(f"{embedded.url}/helm/{key}", place.username, place.password)
    scenarios.add(desk, place, helm)
    for name, version, options in (("foo", "1-2.0.0", []), ("foo-1", "2.0.0", ["--verify", "--keyring", public])):
        assert f"name: {name}\nversion: {version}\n" in desk.run(
            helm, "show", "chart", f"ours/{name}", "--version", version
        )
        folder = desk.folder(f"pulled-{name}")
        desk.run(helm, "pull", f"ours/{name}", "--version", version, *options, "-d", folder)
        pulled = (folder / "foo-1-2.0.0.tgz").read_bytes()
        with place.client() as client:
            assert pulled == client.get(f"{place.url}/charts/{name}/foo-1-2.0.0.tgz").content
        assert claimed(pulled) == (name, version)


def claimed(data: bytes) -> tuple[str, str]:
    facts = inspect("chart.tgz", io.BytesIO(data), len(data))
    return facts.name, facts.version


# --- what Go's strict parser makes of it -----------------------------------------------------------------------------

NASTY: dict[str, str] = {
    "number": "appVersion: 1.10", "exponent": "appVersion: 1e3", "octal": "appVersion: 0123",
    "colons": "appVersion: 1:30",
    "large": "appVersion: 20240101.5", "yes": "appVersion: y", "null": "appVersion: null",
    "date": "appVersion: 2024-01-02",
    "moment": "appVersion: 2024-01-02T03:04:05Z", "quoted": 'appVersion: "1.10"', "hex": "appVersion: 0x1F",
    "infinite": "appVersion: .inf", "unicode": 'description: "h\\u00e9llo \\u200b\\u2028 \\U0001f680"', "bom": "\ufeff",
    "lines": "description: |\n  line one\n  line two\n\n", "folded": "description: >-\n  a\n  b", "tab": "home:\ta",
    "anchors": "home: &x http://a\nsources: [*x, *x]",
    "annotations": "annotations:\n  a: 1\n  b: yes\n  c: null\n  d: |\n    x\n",
    "huge": "annotations:\n  a: " + "x" * 200_000, "unknown": "vendor: {a: [1, {b: c}]}\nfoo: bar",
    "case": "Home: a\nAPPVERSION: 7",
    "keywords": "keywords: [1, yes, a, null]", "maintainers": "maintainers: null",
    "hollow": "maintainers: [{}, {name: a, x: y}]",
    "nothing": "home: ''\nkeywords: []\nannotations: {}", "deprecated": "deprecated: on",
    "relics": "engine: gotpl\ntillerVersion: 1",
    "dependencies": "dependencies:\n- {name: a, version: 1, repository: 'http://x', tags: [a, 1], enabled: true, alias: b,"
    " import-values: [x, {child: a, parent: b}, 1.50]}\n- {name: a}",
    "documents": "home: a\n---\nhome: b", "windows": "home: a\r\nicon: b\r",
    "html": "description: '<script>alert(1)</script>'",
    "escapes": 'description: "a\\"b\\\\c\\x07\\e"', "kube": "kubeVersion: 1.20", "old": "apiVersion: v1",
    "library": "type: library",
    # what helm does not take, or takes and should not
    "twice": "home: a\nhome: b", "null maintainer": "maintainers: [null]", "text": "keywords: a",
    "alias": "dependencies: [{name: a, alias: a.b}]",
    "same": "dependencies: [{name: a}, {name: a}]", "type": "type: foo", "bool": "deprecated: 'true'",
    "nested": "annotations: {a: {b: c}}",
    "tag": "home: !!str x", "key": "annotations: {1: x}", "merge": "x: &x {home: a}\n<<: *x", "api": "apiVersion: v9",
    "requirements": "",
}  # fmt: skip
REQUIREMENTS: dict[str, str] = {  # beside it, as charts for Helm 2 have it
    "old": "dependencies:\n- {name: a, version: 1.x, repository: 'http://x'}\n- {name: b, condition: c.d}",
    "dependencies": "dependencies: [{name: c, version: 2}]", "unknown": "foo: bar", "case": "# nothing",
    "library": "dependencies: [{name: z, tags: [t]}]", "nothing": "dependencies: []",
    "requirements": "dependencies: [{name: a}, {name: a}]",
}  # fmt: skip
REFUSED = ("twice", "null maintainer", "text", "alias", "same", "type", "bool", "nested", "tag", "key", "merge", "api",
           "requirements")  # fmt: skip


@helms
def test_helm_12_6_i4_i6_nasty_charts_in_one_index(desk: Desk, embedded: Server, place: Place, helm: str) -> None:
    """Each is published, or refused by name; helm reads the index of all, and sees in it what it sees in the archives."""
    folder = desk.folder("nasty")
    with place.client() as client:
        for number, (what, text) in enumerate(NASTY.items()):
            name = f"chart-{number}"
            api = "" if "apiVersion" in text else "apiVersion: v2\n"
            document = f"{api}name: {name}\nversion: 1.{number}.0\n{text}\n"
            document = "\ufeff" + document.replace("\ufeff", "") if what == "bom" else document
            beside = {f"{name}/requirements.yaml": REQUIREMENTS[what].encode()} if what in REQUIREMENTS else {}
            data = samples.chart(name, f"1.{number}.0", document=document.encode(), files=beside)
            answer = client.post(f"{place.url}/api/charts", content=data)
            assert answer.status_code == (400 if what in REFUSED else 201), (what, answer.text)
            if what not in REFUSED:
                (folder / f"{name}-1.{number}.0.tgz").write_bytes(data)
    desk.run(helm, "repo", "index", folder)
    theirs = load((folder / "index.yaml").read_bytes())["entries"]
    with place.client() as client:
        ours = json.loads(client.get(f"{place.url}/index.yaml").content)["entries"]
    assert ours.keys() == theirs.keys() and len(ours) == len(NASTY) - len(REFUSED)
    for name in theirs:
        (one,), (other,) = ours[name], theirs[name]
        changes = {"urls", "created"}
        assert {key: one[key] for key in one if key not in changes} == {
            key: other[key] for key in other if key not in changes
        }, name
    scenarios.add(desk, place, helm)
    rows = scenarios.found(desk, helm, "ours/", "-l")
    assert len(rows) == len(ours)
    assert {row[0].removeprefix("ours/"): row[2] for row in rows} == {
        name: entries[0].get("appVersion", "") for name, entries in ours.items()
    }


# --- through remote and virtual repositories -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The upstream, which is stopped and started again."""
    with Deployment.embedded(tmp_path_factory.mktemp("origin")) as found:
        yield found


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Deployment.embedded(tmp_path_factory.mktemp("relay"), REPOMAN_UPSTREAM_ALLOW="127.0.0.0/8") as found:
        yield found


def relayed(relay: Server, source: Place, kind: str) -> Place:
    """A remote repository of the source, or a virtual one with a local member before that remote."""
    namespace = relay.make_namespace()
    remote = {"url": f"{source.url}/", "username": source.username, "password": source.password, "metadata_ttl": 1}
    key = relay.make_repository(namespace, format="helm", type="remote", remote=remote)
    if kind == "virtual":
        local = relay.make_repository(namespace, format="helm")
        key = relay.make_repository(namespace, format="helm", type="virtual", members=[local, key], deploy_target=local)
    return Place(f"{relay.url}/helm/{key}", *relay.make_user(namespace, "maintainer"))


@helms
@pytest.mark.parametrize("kind", ["remote", "virtual"])
def test_helm_12_2_cold_warm_and_with_the_upstream_stopped(
    desk: Desk, origin: Server, relay: Server, helm: str, kind: str
) -> None:
    source = place_of(origin, origin.make_repository(format="helm"))
    archives = seed(desk, source)
    archive, public = scenarios.publish_signed(desk, source, helm, "signed", "1.0.0")
    place = relayed(relay, source, kind)
    for _ in ("cold", "warm"):
        scenarios.read_everything(desk, place, helm, archives)
        scenarios.depend(desk, place, helm, "1.10.0")
        scenarios.verify(desk, place, helm, archive, public)
    origin.stop()
    try:
        scenarios.read_everything(desk, place, helm, archives)
        scenarios.verify(desk, place, helm, archive, public)
    finally:
        origin.start()


@helms
def test_publishing_through_a_virtual_repository(desk: Desk, origin: Server, relay: Server, helm: str) -> None:
    source = place_of(origin, origin.make_repository(format="helm"))
    scenarios.publish(desk, source, "theirs", "1.0.0")
    scenarios.publish(desk, source, "demo", "9.0.0")
    place = relayed(relay, source, "virtual")
    chart = scenarios.write_chart(desk.folder("source"), "demo", "1.0.0")
    scenarios.cm_push(desk, place, chart)
    archive, public = scenarios.publish_signed(desk, place, helm, "signed", "1.0.0")
    scenarios.verify(desk, place, helm, archive, public)
    names = {(row[0], row[1]) for row in scenarios.found(desk, helm, "ours/", "-l")}
    assert names == {("ours/demo", "1.0.0"), ("ours/signed", "1.0.0"), ("ours/theirs", "1.0.0")}
