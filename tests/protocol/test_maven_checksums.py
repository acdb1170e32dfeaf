"""Checksums that clients send: before, after and without their file; right and wrong (contract section 5)."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor

import pytest

from formats.maven import samples
from formats.maven.samples import Coordinates
from tests.protocol.maven_client import SUMS, Maven, new_maven, refused, summed
from tests.running import Server

DEMO = Coordinates()
JAR = DEMO.path()
DATA = samples.jar()
ZEROS = {"md5": "0" * 32, "sha1": "0" * 40, "sha256": "0" * 64, "sha512": "0" * 128}


@pytest.fixture
def maven(server: Server) -> Maven:
    return new_maven(server)


@pytest.mark.parametrize("algorithm", SUMS)
def test_maven_c5_every_form_of_a_sum_is_taken(maven: Maven, algorithm: str) -> None:
    maven.put_all({JAR: DATA}, sums=())
    told = summed(DATA, algorithm)
    odd = f"r-{ZEROS[algorithm]}.jar"
    for form in (
        told,
        told.upper(),
        f"{told}\n",
        f"\n {told} \r\n",
        f"{told}  demo-1.0.jar\n",
        f"{told} *demo-1.0.jar",
        f"{algorithm.upper()} (demo-1.0.jar) = {told}\n",
        f"{told}  {odd}\n",
        f"{told} {odd}",
        f"{told}  {ZEROS[algorithm]}\n",
        f"{algorithm.upper()} ({odd}) = {told}",
    ):
        Maven.created(maven.put(f"{JAR}.{algorithm}", form.encode()))
    assert maven.get(f"{JAR}.{algorithm}").text == told


@pytest.mark.parametrize("algorithm", SUMS)
def test_maven_c9_a_wrong_sum_after_its_file(maven: Maven, algorithm: str) -> None:
    maven.put_all({JAR: DATA}, sums=())
    answer = maven.put(f"{JAR}.{algorithm}", ZEROS[algorithm].encode())
    refused(answer, 400, "bad_request", "not " + ZEROS[algorithm])
    assert (answer.json()["expected"], answer.json()["actual"]) == (ZEROS[algorithm], summed(DATA, algorithm))
    assert maven.get(JAR).content == DATA, "what is there stays"
    assert maven.get(f"{JAR}.{algorithm}").text == summed(DATA, algorithm)


@pytest.mark.parametrize("algorithm", SUMS)
def test_maven_c8_e14_a_wrong_sum_before_its_file_refuses_it_until_it_is_corrected(
    maven: Maven, algorithm: str
) -> None:
    Maven.created(maven.put(f"{JAR}.{algorithm}", ZEROS[algorithm].encode()))
    assert maven.get(f"{JAR}.{algorithm}").status_code == 404
    answer = maven.put(JAR, DATA)
    refused(answer, 400, "content_invalid", "nothing was stored")
    assert maven.get(JAR).status_code == 404
    Maven.created(maven.put(f"{JAR}.{algorithm}", summed(DATA, algorithm).encode()))
    Maven.created(maven.put(JAR, DATA))
    assert maven.get(JAR).content == DATA
    assert f".{algorithm}" not in maven.get(f"{DEMO.folder()}/").text


def test_maven_c8_an_early_sum_can_be_taken_back(maven: Maven) -> None:
    Maven.created(maven.put(f"{JAR}.sha1", ZEROS["sha1"].encode()))
    assert maven.delete(f"{JAR}.sha1").status_code == 204
    Maven.created(maven.put(JAR, DATA))
    assert maven.delete(f"{JAR}.sha1").status_code == 204  # what is derived goes with its file
    assert maven.get(f"{JAR}.sha1").text == summed(DATA, "sha1")


def test_maven_c8_e13_an_older_deploy_that_was_cut_does_not_stand_in_the_way(maven: Maven) -> None:
    """Sums of a first build arrived, its files did not; the repeated build made other bytes."""
    for algorithm in SUMS:
        Maven.created(maven.put(f"{JAR}.{algorithm}", summed(b"the first build", algorithm).encode()))
    for algorithm in SUMS:
        Maven.created(maven.put(f"{JAR}.{algorithm}", summed(DATA, algorithm).encode()))
    Maven.created(maven.put(JAR, DATA))


def test_maven_c8_h3_what_is_only_announced_is_nowhere(maven: Maven) -> None:
    Maven.created(maven.put(f"{JAR}.md5", ZEROS["md5"].encode()))
    for path in (f"{DEMO.folder()}/", f"{JAR}.md5", DEMO.metadata):
        assert maven.get(path).status_code == 404
    assert "org" not in maven.get("").text
    listed = maven.server.admin.get(f"/api/v1/repositories/{maven.key}/packages").json()
    assert listed["items"] == [] and maven.problems() == []


def test_maven_u8_c8_e14_all_at_once(maven: Maven) -> None:
    """As a client that uploads everything at the same time and never sends metadata."""
    for number in range(5):
        at = Coordinates(version=f"1.{number}")
        files = {at.path(): samples.jar(str(number)), at.path("pom"): samples.pom(at), at.path("jar", "sources"): b"s"}
        sums = {f"{path}.{name}": summed(data, name).encode() for path, data in files.items() for name in SUMS}
        signatures = {f"{path}.asc": b"signature of " + path.encode() for path in files}
        everything = {**sums, **files, **signatures}
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda pair: maven.put(*pair), everything.items()))
        assert {answer.status_code for answer in answers} == {201}, [a.text for a in answers if a.status_code != 201]
        for path, data in files.items():
            assert maven.get(path).content == data and maven.get(f"{path}.sha512").text == summed(data, "sha512")
        assert maven.get(f"{at.path()}.asc").status_code == 200
    assert maven.versions() == [f"1.{number}" for number in range(5)]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"   ",
        b"not a sum",
        b"0" * 39,
        b"g" * 40,
        b"0" * 41,
        b"<html></html>",
        b"\0" * 40,
        ("0" * 40 + " " + "1" * 40).encode(),
    ],
)
def test_maven_c5_c2_what_is_no_sum(maven: Maven, body: bytes) -> None:
    for _ in range(2):
        refused(maven.put(f"{JAR}.sha1", body), 400, "bad_request", "no sha1 checksum")
        maven.put_all({JAR: DATA}, sums=())


def test_maven_c5_a_sum_of_megabytes_is_not_read(maven: Maven) -> None:
    answer = maven.put(f"{JAR}.sha1", b"0" * 5_000_000)
    refused(answer, 413, "too_large")


def test_maven_s5_sums_of_what_changes_are_never_compared_with_what_comes_next(maven: Maven) -> None:
    at = Coordinates(version="1.0-SNAPSHOT")
    for data in (b"first", b"second"):
        Maven.created(maven.put(f"{at.path()}.sha1", summed(data, "sha1").encode()))
        Maven.created(maven.put(at.path(), data))
        assert maven.get(f"{at.path()}.sha1").text == summed(data, "sha1")


def test_maven_g7_e2_c1_sums_of_metadata_are_those_of_what_is_served(maven: Maven) -> None:
    maven.deploy(DEMO)
    for path in (f"{JAR}.sha1", f"{DEMO.metadata}.sha1"):
        for _ in range(2):
            told = maven.get(path)
            assert told.headers["etag"] == f'"{told.text}"' and told.headers["content-type"].startswith("text/plain")
            assert maven.get(path, If_None_Match=told.headers["etag"]).status_code == 304
    for folder in (DEMO.metadata,):
        Maven.created(maven.put(f"{folder}.sha1", ZEROS["sha1"].encode()))
        answer = maven.get(folder)
        for algorithm in SUMS:
            told = maven.get(f"{folder}.{algorithm}")
            assert told.text == summed(answer.content, algorithm)
            assert told.headers["cache-control"] == "private, no-cache"
        assert answer.headers["x-checksum-sha1"] == summed(answer.content, "sha1")
        assert answer.headers["x-checksum-md5"] == summed(answer.content, "md5")


def test_maven_p6_signatures_of_sums_and_sums_of_signatures(maven: Maven) -> None:
    maven.put_all(
        {JAR: DATA, f"{JAR}.sha512.asc": b"of the sum", f"{JAR}.asc": b"of the jar", f"{JAR}.sigstore.json": b"{}"},
        sums=(),
    )
    assert maven.get(f"{JAR}.sha512.asc").content == b"of the sum"
    Maven.created(maven.put(f"{JAR}.asc.sha1", summed(b"of the jar", "sha1").encode()))
    refused(maven.put(f"{JAR}.asc.md5", ZEROS["md5"].encode()), 400, "bad_request")
    assert maven.get(f"{JAR}.asc.md5").text == hashlib.md5(b"of the jar").hexdigest()
    assert maven.get(f"{JAR}.sha512.asc.sha256").text == summed(b"of the sum", "sha256")


def test_maven_a1_a_signature_stays_what_it_is(maven: Maven) -> None:
    maven.put_all({JAR: DATA, f"{JAR}.asc": b"one"}, sums=())
    Maven.created(maven.put(f"{JAR}.asc", b"one"))
    refused(maven.put(f"{JAR}.asc", b"two"), 409, "conflict")


def test_maven_a2_a_file_takes_its_signatures_and_sums_along(maven: Maven) -> None:
    alone = Coordinates(artifact="alone")
    for at in (DEMO, alone):
        maven.put_all(
            {at.path(): DATA, f"{at.path()}.asc": b"s", f"{at.path()}.sha512.asc": b"s", at.path("jar", "x"): b"x"}
        )
    maven.put_all({DEMO.path("pom"): samples.pom(DEMO)})
    for at in (DEMO, alone):  # of a version that is shown, and of one that is not
        assert maven.delete(at.path()).status_code == 204
        for suffix in ("", ".asc", ".sha1", ".sha512.asc", ".asc.sha1"):
            assert maven.get(f"{at.path()}{suffix}").status_code == 404, suffix
        assert maven.get(at.path("jar", "x")).status_code == 200


def test_maven_a2_a_longer_name_does_not_go_with_a_shorter_one(maven: Maven) -> None:
    names = ("demo-1.0", "demo-1.0.tar", "demo-1.0.tar.gz", "demo-1.0.pom")
    for name in names:
        data = samples.pom(DEMO) if name.endswith("pom") else name.encode()
        Maven.created(maven.put(f"{DEMO.folder()}/{name}", data))
    for name in names[:2]:
        assert maven.delete(f"{DEMO.folder()}/{name}").status_code == 204
    assert [maven.get(f"{DEMO.folder()}/{name}").status_code for name in names] == [404, 404, 200, 200]
