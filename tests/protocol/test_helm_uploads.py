"""ChartMuseum's API on running servers: uploads, provenance, overwriting, removing (helm.md sections 4, 5 and 7)."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from formats.helm import samples
from tests.protocol.helm_client import Charts, new_charts, refused, saved
from tests.running import Server

DATA = samples.chart()
OTHER = samples.chart(text="other bytes")
PROOF = samples.provenance(DATA)


@pytest.fixture
def charts(server: Server) -> Charts:
    return new_charts(server)


@pytest.fixture
def forced(server: Server) -> Charts:
    return new_charts(server, options={"allow_overwrite": True})


# --- success ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content_type",
    ["application/gzip", "application/x-www-form-urlencoded", "application/octet-stream", "text/plain", ""],
)
def test_helm_m1_13_20_a_raw_body_of_any_type(charts: Charts, content_type: str) -> None:
    saved(charts.post(DATA, content_type=content_type))
    assert charts.get("charts/demo-1.0.0.tgz").content == DATA


@pytest.mark.parametrize(
    "filename", ["demo-1.0.0.tgz", "/home/me/../x/demo.tgz", "C:\\charts\\a.tgz", "../../etc/passwd", "ü"]
)
def test_helm_m1_m2_13_19_a_form_whatever_its_file_is_called(charts: Charts, filename: str) -> None:
    saved(charts.form(chart=(filename, DATA)))
    assert charts.get("charts/demo-1.0.0.tgz").content == DATA


def test_helm_h3_13_17_a_form_in_chunks(charts: Charts) -> None:
    boundary = "chunks"
    body = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="chart"; filename="x.tgz"\r\n\r\n'.encode()
        + DATA
        + f"\r\n--{boundary}--\r\n".encode()
    )
    pieces = [body[start : start + 7] for start in range(0, len(body), 7)]
    answer = charts.client.post(
        charts.base + "api/charts",
        content=iter(pieces),
        headers={"Content-Type": f"multipart/form-data; boundary={boundary}"},
    )
    saved(answer)
    assert charts.versions() == ["1.0.0"]


def test_helm_m12_b10_put_under_the_name_that_the_chart_has(charts: Charts) -> None:
    saved(charts.put("demo-1.0.0.tgz", DATA))
    saved(charts.put("charts/demo-1.0.0.tgz.prov", PROOF))
    saved(charts.put("charts/demo-1.0.0.tgz", DATA))
    refused(charts.put("demo-1.0.0.tgz", OTHER), 409, "file already exists")
    refused(charts.put("demo-2.0.0.tgz", DATA), 400, "demo-1.0.0.tgz")
    refused(charts.put("other-1.0.0.tgz", samples.chart("x")), 400, "x-1.0.0.tgz")
    refused(charts.put("demo-1.0.0.tgz.prov", samples.provenance(samples.chart("x"), "x")), 400)
    assert charts.versions() == ["1.0.0"]


def test_m5_the_same_bytes_again_are_a_success(charts: Charts) -> None:
    for _ in range(2):
        saved(charts.post(DATA))
        saved(charts.form(chart=DATA))
        saved(charts.post(PROOF, "api/prov"))
        saved(charts.form(chart=DATA, prov=PROOF))
    assert charts.versions() == ["1.0.0"]
    assert charts.problems() == []


# --- provenance ------------------------------------------------------------------------------------------------------


def test_helm_p1_p3_m5_chart_and_provenance_in_one_form(charts: Charts) -> None:
    saved(charts.form(prov=PROOF, chart=DATA))
    answer = charts.get("charts/demo-1.0.0.tgz.prov")
    assert answer.content == PROOF and answer.headers["content-type"] == "application/pgp-signature"
    assert charts.get("charts/demo-1.0.0.tgz").content == DATA


@pytest.mark.parametrize("way", ["form", "raw"])
def test_helm_p4_13_14_provenance_before_or_after_its_chart(charts: Charts, way: str) -> None:
    proof = samples.provenance(samples.chart(version="2.0.0"), version="2.0.0")
    send: Any = (lambda data: charts.form(prov=data)) if way == "form" else (lambda data: charts.post(data, "api/prov"))
    saved(send(proof))
    assert charts.index()["entries"] == {}
    assert charts.get("charts/demo-2.0.0.tgz.prov").content == proof
    refused(charts.get("api/charts/demo"), 404)
    refused(charts.get("api/charts/demo/2.0.0"), 404)
    charts.publish(version="2.0.0")
    charts.publish()
    saved(send(PROOF))
    assert charts.versions() == ["2.0.0", "1.0.0"]
    assert charts.get("charts/demo-1.0.0.tgz.prov").content == PROOF


def test_helm_p4_provenance_of_other_bytes_is_refused(charts: Charts) -> None:
    charts.publish()
    wrong = samples.provenance(OTHER)
    refused(charts.post(wrong, "api/prov"), 400, "sha256")
    refused(charts.form(chart=samples.chart(version="3.0.0"), prov=PROOF), 400)
    refused(charts.form(chart=DATA, prov=wrong), 400, "sha256")
    assert charts.get("charts/demo-1.0.0.tgz.prov").status_code == 404 and charts.versions() == ["1.0.0"]


def test_helm_p4_m5_provenance_that_waits_does_not_bind(server: Server, charts: Charts) -> None:
    """Whatever somebody has sent to `api/prov` before, a chart is published: with its provenance, or without."""
    stranger = charts.as_other(server.user(charts.key, "publisher"))
    owner = charts.as_other(server.user(charts.key, "publisher"))
    for version in ("1.0.0", "2.0.0", "3.0.0"):
        other = samples.chart(version=version, text="never published")
        saved(stranger.post(samples.provenance(other, version=version), "api/prov"))
    saved(owner.form(chart=DATA, prov=PROOF))
    assert charts.get("charts/demo-1.0.0.tgz.prov").content == PROOF
    # alone: the answer and the audit log say what became of what had waited
    file, data = "demo-2.0.0.tgz.prov", samples.chart(version="2.0.0")
    answer = owner.post(data)
    assert answer.status_code == 201 and answer.json()["saved"] is True and file in answer.json()["warning"]
    refused(charts.get(f"charts/{file}"), 404)
    saved(owner.post(samples.provenance(data, version="2.0.0"), "api/prov"))
    # what one was told is kept is not pushed out by another's that waits as well
    file, data = "demo-3.0.0.tgz.prov", samples.chart(version="3.0.0")
    proof = samples.provenance(data, version="3.0.0")
    refused(owner.post(proof, "api/prov"), 409, "together")
    refused(owner.form(prov=proof), 409, f"'{file}' is there from somebody else")
    saved(stranger.post(samples.provenance(data, version="3.0.0", home="again"), "api/prov"))
    saved(charts.post(proof, "api/prov"))  # a maintainer
    saved(owner.post(data))
    assert charts.get(f"charts/{file}").content == proof and charts.versions() == ["3.0.0", "2.0.0", "1.0.0"]
    audit = server.admin.get("/api/v1/audit", params={"namespace": charts.key.split("/")[0]}).json()["items"]
    gone = [row for row in audit if row["subject"] == "demo/demo-2.0.0.tgz.prov" and row["kind"] == "file:delete"]
    assert len(gone) == 1 and "other bytes" in gone[0]["detail"]["because"]
    replaced = [row["subject"] for row in audit if row["kind"] == "file:replace" and row["detail"]["replaced"]]
    assert sorted(replaced) == ["demo/demo-1.0.0.tgz.prov", "demo/demo-3.0.0.tgz.prov", "demo/demo-3.0.0.tgz.prov"]
    assert charts.problems() == []


def test_helm_m3_p4_a_chart_exists_already_only_where_it_does(charts: Charts) -> None:
    saved(charts.form(chart=DATA, prov=PROOF))
    other = samples.provenance(DATA, home="signed again")
    for answer in (charts.form(chart=DATA, prov=other), charts.form(prov=other), charts.post(other, "api/prov")):
        refused(answer, 409, "demo-1.0.0.tgz.prov")
        assert answer.json()["error"] == "file already exists"
    assert charts.form(chart=OTHER, prov=samples.provenance(OTHER)).json()["error"] == "chart already exists"
    assert charts.get("charts/demo-1.0.0.tgz.prov").content == PROOF


def fields(charts: Charts, *parts: tuple[str, str | None, bytes]) -> httpx.Response:
    """A form of (name, file's name or None, content)."""
    return charts.client.post(charts.base + "api/charts", files=[(name, (file, data)) for name, file, data in parts])


@pytest.mark.parametrize("files", ["", "chart", "prov"])
def test_helm_p4_m1_13_14_parts_without_a_files_name_are_not_dropped(charts: Charts, files: str) -> None:
    """curl's `-F "prov=<file"` sends a file's content as a field."""
    given = {"chart": DATA, "prov": PROOF}
    saved(fields(charts, *((name, name if name == files else None, data) for name, data in given.items())))
    assert charts.get("charts/demo-1.0.0.tgz").content == DATA
    assert charts.get("charts/demo-1.0.0.tgz.prov").content == PROOF
    saved(
        fields(
            charts, ("chart", "c", samples.chart("more")), ("prov", None, b""), ("force", None, b"1"), ("x", None, b"y")
        )
    )
    refused(fields(charts, ("chart", "c", samples.chart("wrong")), ("prov", None, PROOF)), 400, "provenance")
    refused(fields(charts, ("chart", "c", samples.chart("wrong")), ("prov", None, b"no proof")), 400, "provenance")
    assert list(charts.index()["entries"]) == ["demo", "more"]


def test_m5_a_form_is_published_whole_or_not_at_all(charts: Charts) -> None:
    refused(charts.form(chart=DATA, prov=b"no provenance"), 400)
    refused(charts.form(chart=b"no chart", prov=PROOF), 400)
    assert charts.index()["entries"] == {} and charts.get("charts/demo-1.0.0.tgz.prov").status_code == 404


# --- overwriting -----------------------------------------------------------------------------------------------------


def test_helm_m3_other_bytes_are_a_conflict(charts: Charts) -> None:
    charts.publish()
    refused(charts.post(OTHER), 409)
    assert charts.post(OTHER).json()["error"] == "file already exists"
    assert charts.form(chart=OTHER).json()["error"] == "chart already exists"
    refused(charts.post(OTHER, "api/charts?force"), 409)  # the repository does not allow it
    assert charts.get("charts/demo-1.0.0.tgz").content == DATA


def test_helm_m3_h4_13_18_force_without_a_value(server: Server, forced: Charts) -> None:
    forced.publish()
    refused(forced.post(OTHER), 409)
    publisher = forced.as_other(server.user(forced.key, "publisher"))
    refused(publisher.post(OTHER, "api/charts?force"), 403, "maintainer")
    saved(forced.post(OTHER, "api/charts?force"))
    entry = forced.entry()
    assert forced.get(entry["urls"][0]).content == OTHER
    assert entry["digest"] == __import__("hashlib").sha256(OTHER).hexdigest()
    saved(forced.client.post(f"{forced.base}api/charts?force=", files={"chart": ("x", DATA)}))
    assert forced.entry()["digest"] == hashlib.sha256(DATA).hexdigest()
    assert forced.problems() == []


def test_helm_p5_i25_a_provenance_file_goes_with_what_it_speaks_of(forced: Charts) -> None:
    saved(forced.form(chart=DATA, prov=PROOF))
    answer = forced.post(OTHER, "api/charts?force")
    assert answer.status_code == 201 and "demo-1.0.0.tgz.prov" in answer.json()["warning"]
    refused(forced.get("charts/demo-1.0.0.tgz.prov"), 404)
    saved(forced.post(samples.provenance(OTHER), "api/prov"))
    saved(forced.client.post(f"{forced.base}api/charts?force", files={"chart": ("x", DATA), "prov": ("y", PROOF)}))
    assert forced.get("charts/demo-1.0.0.tgz.prov").content == PROOF
    assert forced.get("charts/demo-1.0.0.tgz").content == DATA
    files = forced.server.admin.get(f"/api/v1/repositories/{forced.key}/files", params={"package": "demo"}).json()[
        "items"
    ]
    versions = forced.server.admin.get(f"/api/v1/repositories/{forced.key}/versions", params={"package": "demo"}).json()
    assert [file["bytes"] for file in files] == [len(DATA), len(PROOF)]
    assert [version["bytes"] for version in versions["items"]] == [len(DATA) + len(PROOF)]
    assert forced.problems() == []


# --- removing --------------------------------------------------------------------------------------------------------


def test_helm_m8_p5_a_version_goes_with_all_its_files(charts: Charts) -> None:
    saved(charts.form(chart=DATA, prov=PROOF))
    charts.publish(version="1.0.0+a")
    answer = charts.delete("demo", "1.0.0")
    assert (answer.status_code, answer.json()) == (200, {"deleted": True})
    refused(charts.delete("demo", "1.0.0"), 404)
    refused(charts.delete("other", "1.0.0"), 404)
    refused(charts.delete("demo", "latest"), 404)
    assert charts.versions() == ["1.0.0+a"]
    for path in ("charts/demo-1.0.0.tgz", "charts/demo-1.0.0.tgz.prov"):
        refused(charts.get(path), 404)
    assert charts.raw("DELETE", "api/charts/demo/1.0.0%2Ba")[0] == 200
    assert charts.index()["entries"] == {}
    saved(charts.post(OTHER))  # the name is free again


def test_a_provenance_file_that_waits_can_be_removed(charts: Charts) -> None:
    saved(charts.post(PROOF, "api/prov"))
    assert charts.delete("demo", "1.0.0").status_code == 200
    saved(charts.post(OTHER))


# --- reading the API -------------------------------------------------------------------------------------------------


def test_helm_section_5_reading(charts: Charts) -> None:
    for name, version in (("b", "1.0.0"), ("a", "1.0.0"), ("a", "2.0.0-rc.1"), ("a", "1.5.0"), ("c", "1.0.0-x")):
        charts.publish(name, version)
    entries = charts.index()["entries"]
    assert charts.get("api/charts").json() == entries and list(entries) == ["a", "b", "c"]
    assert charts.get("api/charts").headers["content-type"] == "application/json"
    assert charts.get("api/charts/a").json() == entries["a"]
    assert charts.get("api/charts/a/1.0.0").json() == entries["a"][2]
    assert charts.get("api/charts/a/latest").json()["version"] == "1.5.0"
    assert charts.get("api/charts/c/latest").json()["version"] == "1.0.0-x"
    refused(charts.get("api/charts/a/1"), 404)
    refused(charts.get("api/charts/zzz"), 404)
    assert charts.get("health").json() == {"healthy": True} and "version" in charts.get("info").json()


def test_helm_m7_x7_pages_count_names(charts: Charts) -> None:
    for name in ("d", "a", "c", "b"):
        charts.publish(name)
        charts.publish(name, "2.0.0")
    charts.delete("b", "1.0.0")
    charts.delete("b", "2.0.0")
    names = lambda query: list(charts.get(f"api/charts?{query}").json())  # noqa: E731
    assert names("limit=2") == ["a", "c"] and names("offset=1&limit=1") == ["c"] and names("offset=2") == ["d"]
    assert names("offset=0") == ["a", "c", "d"] and names("offset=9") == []
    for beyond in (100_000, 100_001, 10**9, 10**17):  # whoever asks on until nothing comes must come to an end
        assert names(f"offset={beyond}") == [] == names(f"offset={beyond}&limit={beyond}")
    assert names(f"limit={10**17}") == ["a", "c", "d"]
    for query in ("offset=-1", "limit=0", "limit=-1", "limit=x", "offset=", "limit=1.5", "offset=9999999999999999999"):
        refused(charts.get(f"api/charts?{query}"), 400)


def test_helm_section_5_templates_and_values(charts: Charts) -> None:
    charts.publish(files={"demo/templates/a.yaml": b"a: 1", "demo/charts/x/values.yaml": b"b: 1"}, text="1.10")
    found = charts.get("api/charts/demo/latest/templates").json()
    assert found["values"] == {"text": "1.10"}
    assert {file["name"]: base64.b64decode(file["data"]) for file in found["templates"]}["templates/a.yaml"] == b"a: 1"
    values = charts.get("api/charts/demo/1.0.0/values")
    assert values.text == 'text: "1.10"\n' and values.headers["content-type"] == "application/yaml"
    refused(charts.get("api/charts/demo/9.9.9/values"), 404)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a: .inf\n1: x\n", {"a": None, "1": "x"}),
        ("# nothing: set\n", {}),
        ("", {}),
        ("80: x\non: z\n", {"80": "x", "true": "z"}),
        ("a: &a {b: 1, c: 2}\nd: {<<: *a, c: 3}\n", {"a": {"b": 1, "c": 2}, "d": {"b": 1, "c": 3}}),
        ("a: 1\na: 2\nb: !!str 3\n", {"a": 2, "b": "3"}),
        ("a: [", {}),
        ("- a\n", {}),
    ],
)
def test_helm_section_5_values_that_were_published_can_be_looked_at(charts: Charts, text: str, found: Any) -> None:
    charts.publish("odd", files={"odd/values.yaml": text.encode()})
    assert charts.get("api/charts/odd/1.0.0/values").text == text
    answer = charts.get("api/charts/odd/1.0.0/templates")
    assert answer.status_code == 200 and answer.json()["values"] == found
    assert [file["name"] for file in answer.json()["templates"]] == ["templates/configmap.yaml"]


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "gzip"),
        (b"no chart", "gzip"),
        (DATA[:-30], ""),
        (samples.tarball({"demo/values.yaml": b""}), "Chart.yaml"),
        (samples.chart(document=b"name: demo\nversion: x"), "version"),
        (samples.chart(document=b"name: ../demo\nversion: 1.0.0"), "name"),
        (samples.chart(document=b"name: a/b\nversion: 1.0.0"), "name"),
        (samples.chart(document=b"name: demo\nversion: 1.0.0/../../x"), "version"),
        (samples.chart(document=b"name: demo\nversion: 1.0.0\napiVersion: v7"), "apiVersion"),
        (samples.chart(document=b"name: demo\nversion: 1.0.0\ntype: x"), "type"),
        (samples.chart(document=b"name: demo\nname: x\nversion: 1.0.0"), "twice"),
        (samples.chart(document=b"name: !!python/object:os.system x\nversion: 1.0.0"), "tag"),
        (samples.chart(document=b"name: demo\nversion: 1.0.0\nx: " + b"[" * 200), "deeper"),
        (samples.chart(document=b"\xff"), "UTF-8"),
        (samples.chart(document=b"name: -x\nversion: 1.0.0"), "name"),
        (samples.chart(document=("name: " + "x" * 250 + "\nversion: 1.0.0").encode()), "longer"),
    ],
)  # fmt: skip
def test_m2_m4_b1_b9_bad_charts(charts: Charts, data: bytes, words: str) -> None:
    refused(charts.post(data), 400, words)
    refused(charts.form(chart=data), 400, words)
    assert charts.index()["entries"] == {}


def test_b2_a_compression_bomb_is_stopped(charts: Charts) -> None:
    bomb = samples.chart(files={"demo/big": bytes(90 << 20)})
    assert len(bomb) < 200_000
    refused(charts.post(bomb), 400)


def test_helm_m4_forms_that_are_refused(charts: Charts) -> None:
    refused(charts.form(), 400)
    refused(charts.form(file=DATA), 400, "'chart'")
    refused(charts.form(chart=DATA, provenance=PROOF), 400, "provenance")
    refused(
        charts.client.post(charts.base + "api/charts", data={"chart": "text"}, files={"x": (None, b"y")}), 400, "gzip"
    )
    refused(
        charts.client.post(charts.base + "api/charts", data={"force": "text"}, files={"x": (None, b"y")}),
        400,
        "no file",
    )
    refused(fields(charts, ("chart", "a", DATA), ("chart", None, DATA)), 400, "one 'chart'")
    refused(fields(charts, ("chart", None, b"x" * (9 << 20))), 413, "as a file")
    twice = [("chart", ("a", DATA)), ("chart", ("b", OTHER))]
    refused(charts.client.post(charts.base + "api/charts", files=twice), 400)
    refused(charts.post(DATA, content_type="multipart/form-data"), 400)
    refused(charts.post(DATA, "api/prov"), 400)
    refused(charts.post(b"x" * (2 << 20), "api/prov"), 413)
    refused(charts.form(prov=b"x" * (2 << 20)), 400)
    assert charts.index()["entries"] == {}


def test_c3_an_upload_in_a_content_coding_is_refused(charts: Charts) -> None:
    for path in ("api/charts", "api/prov"):
        answer = charts.client.post(charts.base + path, content=DATA, headers={"Content-Encoding": "gzip"})
        refused(answer, 415)
    assert charts.index()["entries"] == {}


def test_a_part_of_an_upload_is_refused(charts: Charts) -> None:
    for method, path in (("POST", "api/charts"), ("POST", "api/prov"), ("PUT", "charts/demo-1.0.0.tgz")):
        headers = {"Content-Range": f"bytes 0-9/{len(DATA)}"}
        refused(
            charts.client.request(method, charts.base + path, content=DATA[:10], headers=headers), 400, f"on {method}"
        )


def test_a_body_that_is_cut_publishes_nothing(charts: Charts) -> None:
    connection = http.client.HTTPConnection(charts.server.host, timeout=20)
    request = next(charts.client.auth.auth_flow(charts.client.build_request("POST", "/")))  # type: ignore[union-attr]
    connection.putrequest("POST", charts.base + "api/charts")
    connection.putheader("Authorization", request.headers["authorization"])
    connection.putheader("Content-Length", str(len(DATA) + 100))
    connection.endheaders()
    connection.send(DATA)
    connection.close()
    assert charts.index()["entries"] == {}


def test_b_mutated_charts_never_make_a_server_error(charts: Charts) -> None:
    seed = random.Random(7)
    good = samples.chart(annotations={"a": "b"})
    proof = samples.provenance(good)
    for number in range(60):
        source, to = (good, "api/charts") if number % 2 else (proof, "api/prov")
        data = bytearray(source)
        for _ in range(seed.randint(1, 4)):
            data[seed.randrange(len(data))] = seed.randrange(256)
        answer = charts.post(bytes(data[: seed.choice([len(data), seed.randrange(len(data))])]), to)
        assert answer.status_code in (201, 400, 409), answer.text


def test_a8_names_that_differ_by_case_alone(charts: Charts) -> None:
    charts.publish("demo")
    refused(charts.post(samples.chart("Demo")), 409, "case")
    assert list(charts.index()["entries"]) == ["demo"]


def test_over_quota(server: Server) -> None:
    namespace = server.make_namespace(quota_bytes=600)
    key = server.make_repository(namespace, format="helm")
    charts = Charts(server, server.user(key, "publisher"), key)
    charts.publish()
    refused(charts.post(samples.chart(version="2.0.0", files={"demo/x": random.Random(1).randbytes(2000)})), 403, "600")
    assert charts.versions() == ["1.0.0"]


def test_f2_what_cannot_be_written(server: Server, charts: Charts) -> None:
    for method, path in (("PUT", "index.yaml"), ("POST", "charts/demo-1.0.0.tgz"), ("DELETE", "charts/demo-1.0.0.tgz")):
        answer = charts.client.request(method, charts.base + path, content=b"x")
        refused(answer, 405)
        assert "GET" in answer.headers["allow"]
    remote = new_charts(server, type="remote", remote={"url": "https://charts.example.org/"})
    refused(remote.post(DATA), 405, "upstream")


# --- races -----------------------------------------------------------------------------------------------------------


def test_w3_versions_pushed_at_once_are_all_in_the_index(charts: Charts) -> None:
    """Over two processes: the server has as many workers."""
    versions = [f"1.{number}.0" for number in range(16)]
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda version: charts.post(samples.chart(version=version)), versions))
    for answer in answers:
        saved(answer)
    for _ in range(8):
        assert sorted(charts.versions()) == sorted(versions)
    assert sorted(entry["version"] for entry in charts.get("api/charts/demo").json()) == sorted(versions)


def test_w2_one_version_with_different_bytes_has_one_winner(charts: Charts) -> None:
    data = [samples.chart(text=f"text {number}") for number in range(12)]
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(charts.post, data))
    statuses = [answer.status_code for answer in answers]
    assert sorted(statuses) == [201] + [409] * 11
    assert charts.get("charts/demo-1.0.0.tgz").content == data[statuses.index(201)]


def test_w4_w5_i25_an_index_always_names_the_bytes_that_are_there(forced: Charts) -> None:
    """While a chart is overwritten with and without its provenance, what is there agrees with itself."""
    pairs = [(data, samples.provenance(data)) for data in (samples.chart(text=f"text {number}") for number in range(6))]
    forced.publish()

    def write(number: int) -> None:
        data, proof = pairs[number % 6]
        if number % 3:
            forced.client.post(f"{forced.base}api/charts?force", files={"chart": ("x", data), "prov": ("y", proof)})
        else:
            forced.post(data, "api/charts?force")
            forced.post(proof, "api/prov")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(24)))
    chart = forced.get("charts/demo-1.0.0.tgz").content
    proof = forced.get("charts/demo-1.0.0.tgz.prov")
    assert forced.entry()["digest"] == __import__("hashlib").sha256(chart).hexdigest()
    assert proof.status_code == 404 or proof.content == samples.provenance(chart)
    assert json.loads(forced.get("index.yaml").content)["entries"]["demo"][0]["digest"]
