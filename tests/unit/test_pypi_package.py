"""What archives say about themselves, and which archives are refused."""

from __future__ import annotations

import gzip
import io
import tarfile
import time
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from formats.pypi import package, samples
from repoman.core.errors import BadRequest, ContentInvalid
from repoman.core.records import Facts
from tests.tools.effort import allowed


def inspect(sample: samples.Sample, filename: str = "", data: bytes | None = None) -> Facts:
    data = sample.data if data is None else data
    return package.inspect(filename or sample.filename, io.BytesIO(data), len(data))


def refused(sample: samples.Sample, words: str = ".", **more: object) -> None:
    with pytest.raises(BadRequest, match=words):
        inspect(sample, **more)  # type: ignore[arg-type]


def test_pypi_8_1_15_a_wheels_facts() -> None:
    sample = samples.wheel("Demo.Package", "1.0", requires=("idna>=2", "attrs; extra == 'x'"))
    facts = inspect(sample)
    assert (facts.name, facts.version) == ("demo-package", "1.0")
    assert facts.documents == {"METADATA": sample.metadata}
    assert facts.metadata["name"] == "Demo.Package"
    assert facts.metadata["requires_dist"] == ["idna>=2", "attrs; extra == 'x'"]
    assert facts.metadata["requires_python"] == ">=3.8"
    assert facts.metadata["description"] == "# A sample\n"
    assert facts.metadata["description_content_type"] == "text/markdown"
    assert "problems" not in facts.metadata


def test_pypi_8_1_15_an_sdists_facts() -> None:
    facts = inspect(samples.sdist("Demo.Package", "1.0rc1"))
    assert (facts.name, facts.version, facts.documents) == ("demo-package", "1.0rc1", {})
    assert facts.metadata["summary"] == "A sample."


@pytest.mark.parametrize("version", ["1.0", "1.1", "1.2", "2.0", "2.1", "2.2", "2.3", "2.4", "2.5", "2.9"])
def test_pypi_8_1_14_versions_of_the_metadata(version: str) -> None:
    document = samples.metadata("demo", "1.0", metadata_version=version, more="Import-Name: demo\nNew-Field: x")
    for sample in (samples.wheel("demo", document=document), samples.sdist("demo", document=document)):
        assert inspect(sample).metadata["metadata_version"] == version


@pytest.mark.parametrize("version", ["3.0", "0.9", "2", "two", "2.1.1"])
def test_pypi_8_1_14_versions_of_the_metadata_that_are_refused(version: str) -> None:
    refused(samples.wheel("demo", document=samples.metadata("demo", "1.0", metadata_version=version)), "not known")


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"Metadata-Version: 2.1\n\n",
        b"Metadata-Version: 2.1\nName: demo\n\n",
        b"Metadata-Version: 2.1\nName: demo\nName: other\nVersion: 1.0\n\n",
        b"Metadata-Version: 2.1\nName: demo\nVersion: 1.0\nVersion: 2.0\n\n",
        b"Metadata-Version: 2.1\nName: \xff\nVersion: 1.0\n\n",
        b"Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n\n\0",
        b"Metadata-Version: 2.1\nName: other\nVersion: 1.0\n\n",
        b"Metadata-Version: 2.1\nName: demo\nVersion: 1.1\n\n",
        b"Metadata-Version: 2.1\nName: ../demo\nVersion: 1.0\n\n",
        b"Metadata-Version: 2.1\nName: demo\nVersion: latest\n\n",
        b"Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n" + b"X: y\n" * 30_000 + b"\n",
        b"Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n" + b"".join(b"X-%d: y\r" % n for n in range(300)) + b"\n",
        b"Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n\n" + b"x" * (5 * 1024 * 1024),
    ],
    ids=range(14),
)
def test_pypi_b10_metadata_that_contradict_or_cannot_be_read(document: bytes) -> None:
    began = time.process_time()
    refused(samples.wheel("demo", document=document))
    refused(samples.sdist("demo", document=document))
    assert time.process_time() - began < allowed(4)


def test_pypi_metadata_are_not_read_as_mail() -> None:
    """Headers that would make a mail of several parts of it, or an encoded one."""
    document = samples.metadata(
        "demo",
        "1.0",
        more="Content-Type: multipart/mixed; boundary=x\nContent-Transfer-Encoding: base64\nMIME-Version: 1.0",
    )
    assert inspect(samples.wheel("demo", document=document)).metadata["description"] == "# A sample\n"


def test_pypi_metadata_of_old_tools() -> None:
    document = (
        b"Metadata-Version: 1.1\r\nName: demo\r\nVersion: 1.0\r\nSummary: UNKNOWN\r\nLicense: UNKNOWN\r\n"
        b"Keywords: a, b c\r\nDescription: One\r\n        two\r\nClassifier: A\r\nClassifier: B\r\n"
        b"Project-URL: Home, https://example.org\r\n"
    )
    found = inspect(samples.sdist("demo", document=document)).metadata
    assert "summary" not in found and "license" not in found
    assert found["classifiers"] == ["A", "B"]
    assert found["project_urls"] == {"Home": "https://example.org"}
    assert str(found["description"]).startswith("One")


def test_pypi_long_values_are_cut_and_long_descriptions_left_out() -> None:
    document = samples.metadata("demo", "1.0", summary="s" * 100_000, description="d" * 300_000)
    found = inspect(samples.wheel("demo", document=document)).metadata
    assert len(str(found["summary"])) == 8192 and "description" not in found


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=300))
def test_pypi_r1_any_metadata_are_read_or_refused(noise: bytes) -> None:
    for document in (noise, b"Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n" + noise):
        try:
            package.read_metadata(document)
        except ContentInvalid:
            pass


# --- wheels ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["METADATA", "WHEEL", "RECORD"])
def test_pypi_15_4_a_wheel_lacks_nothing(name: str) -> None:
    refused(samples.wheel(left_out=[name]), f"lacks .*{name}")


def test_pypi_15_4_one_dist_info_folder_that_agrees_with_the_file_name() -> None:
    refused(samples.wheel("demo", files={"other-1.0.dist-info/METADATA": b"x"}), "one .dist-info")
    sample = samples.wheel("demo")
    refused(sample, "metadata say", filename="demo-1.1-py3-none-any.whl")
    refused(sample, "project", filename="other-1.0-py3-none-any.whl")
    data = sample.data.replace(b"demo-1.0.dist-info", b"demo-1.1.dist-info")
    refused(sample, "does not belong", data=data)


def test_pypi_15_4_old_spellings_agree() -> None:
    sample = samples.wheel("Foo.Bar", "1.0")
    assert inspect(sample, filename="Foo.Bar-1.0-py3-none-any.whl").name == "foo-bar"


def test_pypi_15_4_the_wheels_own_version() -> None:
    for text in (b"Wheel-Version: 2.0\n", b"Generator: x\n"):
        refused(samples.wheel("demo", files={"demo-1.0.dist-info/WHEEL": text}), "Wheel-Version|not known")


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"\xff\n",
        b'"open\n',
        b"a,b\n",
        b"demo/__init__.py,sha256=AAAA,16\n",
        b"demo/__init__.py,,17\ndemo-1.0.dist-info/METADATA,,\ndemo-1.0.dist-info/WHEEL,,\n",
        b"demo/__init__.py,sha256=AAAA,\ndemo-1.0.dist-info/METADATA,,\ndemo-1.0.dist-info/WHEEL,,\n",
        b"demo/__init__.py,md5=AAAA,\ndemo-1.0.dist-info/METADATA,,\ndemo-1.0.dist-info/WHEEL,,\n",
        b"demo/__init__.py,,\ndemo-1.0.dist-info/METADATA,,\ndemo-1.0.dist-info/WHEEL,,\nmore.py,,\n",
        b"demo/__init__.py,,\n" * 10_000,
    ],
    ids=range(10),
)
def test_pypi_b11_record_that_misses_or_misstates(record: bytes) -> None:
    facts = inspect(samples.wheel("demo", record=record))
    problems = facts.metadata["problems"]
    assert isinstance(problems, list) and 0 < len(problems) <= 10


def test_pypi_b11_record_without_hashes_and_with_signatures() -> None:
    record = (
        b"demo/__init__.py,,\r\ndemo-1.0.dist-info\\METADATA,,\r\ndemo-1.0.dist-info/WHEEL,,\r\n"
        b"demo-1.0.dist-info/RECORD,,\r\n"
    )
    files = {"demo-1.0.dist-info/RECORD.jws": b"{}"}
    assert "problems" not in inspect(samples.wheel("demo", record=record, files=files)).metadata


def test_pypi_b3_the_zips_framing_is_checked() -> None:
    sample = samples.wheel("demo")
    refused(sample, data=sample.data + b"more")
    refused(sample, data=b"more" + sample.data)
    refused(sample, data=sample.data[:-5])
    refused(sample, data=b"")
    refused(sample, data=b"<html>login</html>")


def test_pypi_b2_a_bomb_stops_at_once() -> None:
    sample = samples.wheel("demo", files={"demo/zeros": bytes(80 * 1024 * 1024)})
    began = time.process_time()
    refused(sample, "50 times")
    assert time.process_time() - began < allowed(1)


def test_pypi_15_a_wheel_with_100000_files() -> None:
    files = {f"demo/{number // 1000}/module_{number}.py": b"" for number in range(100_000)}
    sample = samples.wheel("demo", files=files)
    began = time.process_time()
    assert inspect(sample).version == "1.0"
    assert time.process_time() - began < allowed(10)


def test_pypi_b6_files_that_are_two_things() -> None:
    tar_header = tarfile.TarInfo("demo").tobuf()
    sample = samples.wheel("demo")
    refused(sample, data=tar_header + sample.data)
    refused(samples.sdist("demo"), data=sample.data)
    refused(sample, data=samples.sdist("demo").data)
    refused(samples.sdist("demo"), data=samples.sdist("demo").data + sample.data)


def test_pypi_15_1_b6_a_wheel_whose_first_block_is_a_tar_header() -> None:
    """The fields of the header lie in an extra field of the first member."""
    target = io.BytesIO()
    info = zipfile.ZipInfo("a", samples.MOMENT)
    info.extra = b"\x99\x99" + (477).to_bytes(2, "little") + bytes(477)
    with zipfile.ZipFile(target, "w") as opened:
        opened.writestr(info, b"")
    block = bytearray(target.getvalue()[:512])
    block[100:156] = tarfile.TarInfo("x").tobuf()[100:156]
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    assert tarfile.TarInfo.frombuf(bytes(block), "latin-1", "strict")
    refused(samples.wheel("demo"), "tar archive as well", data=bytes(block) + target.getvalue()[512:])


# --- sdists ----------------------------------------------------------------------------------------------------------


def test_pypi_15_5_one_top_folder_with_pkg_info() -> None:
    refused(samples.sdist("demo", files={"other/file": b"x"}), "one top folder")
    refused(samples.sdist("demo", files={"top.txt": b"x"}), "one top folder")
    sample = samples.sdist("demo")
    plain = gzip.decompress(sample.data).replace(b"PKG-INFO", b"PKG-INFX")
    refused(sample, data=gzip.compress(plain))


def test_pypi_15_5_an_sdist_made_with_a_leading_dot() -> None:
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w:gz") as archive:
        document = samples.metadata("demo", "1.0")
        for name, data in (("./demo-1.0/PKG-INFO", document), ("./demo-1.0/setup.py", b"")):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    assert inspect(samples.sdist("demo"), data=plain.getvalue()).version == "1.0"


@pytest.mark.parametrize("kind", ["absolute", "parent", "link_out", "device", "truncated", "zip", "bomb"])
def test_pypi_b1_b2_b5_hostile_sdists(kind: str) -> None:
    document = samples.metadata("demo", "1.0")
    if kind == "zip":
        target = io.BytesIO()
        with zipfile.ZipFile(target, "w") as opened:
            opened.writestr("demo-1.0/PKG-INFO", document)
        refused(samples.sdist("demo"), data=target.getvalue())
        return
    if kind == "bomb":
        sample = samples.sdist("demo", files={"demo-1.0/zeros": bytes(100 * 1024 * 1024)})
        began = time.process_time()
        refused(sample, "bomb|times")
        assert time.process_time() - began < allowed(2)
        return
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as archive:
        member = tarfile.TarInfo("demo-1.0/PKG-INFO")
        member.size = len(document)
        archive.addfile(member, io.BytesIO(document))
        evil = tarfile.TarInfo({"absolute": "/etc/passwd", "parent": "demo-1.0/../../x"}.get(kind, "demo-1.0/x"))
        if kind == "link_out":
            evil.type, evil.linkname = tarfile.SYMTYPE, "../../etc/passwd"
        if kind == "device":
            evil.type = tarfile.CHRTYPE
        archive.addfile(evil)
    data = gzip.compress(plain.getvalue())
    refused(samples.sdist("demo"), data=data[:-20] if kind == "truncated" else data)


def test_other_kinds_of_files_are_refused() -> None:
    refused(samples.sdist("demo"), filename="demo-1.0.zip")
    refused(samples.sdist("demo"), filename="../demo-1.0.tar.gz")
