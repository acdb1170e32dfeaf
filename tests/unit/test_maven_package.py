"""What POMs and plugins' jars say about themselves, and what they cannot make a reader do (X1 to X5, U10, B1 to B10)."""

from __future__ import annotations

import base64
import io
import tracemalloc
import warnings
import zipfile
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from formats.maven import package, samples
from formats.maven.samples import Coordinates
from repoman.core.errors import ContentInvalid
from repoman.core.records import Facts

DEMO = Coordinates()
PLUGIN = Coordinates("org.example", "demo-maven-plugin", "1.0")


def pom(inner: str | bytes, *, head: str = "<project>") -> Facts:
    data = f"{head}{inner}</project>".encode() if isinstance(inner, str) else inner
    return package.inspect("1/b-1.pom", io.BytesIO(data), len(data))


def gav(group: str = "g", artifact: str = "a", version: str = "1") -> str:
    return f"<groupId>{group}</groupId><artifactId>{artifact}</artifactId><version>{version}</version>"


def parent(group: str = "pg", artifact: str = "pa", version: str = "9") -> str:
    return f"<parent>{gav(group, artifact, version)}</parent>"


def properties(**values: str) -> str:
    return "<properties>" + "".join(f"<{name}>{value}</{name}>" for name, value in values.items()) + "</properties>"


def named(inner: str) -> tuple[str, str]:
    found = pom(inner)
    return found.name, found.version


# --- coordinates -----------------------------------------------------------------------------------------------------


def test_maven_x3_a_pom_says_what_it_is() -> None:
    found = pom(
        samples.pom(DEMO, more="<name>A\n  demo</name><description>Of it.</description><url>https://x.example</url>")
    )
    assert (found.name, found.version) == (DEMO.package, "1.0")
    assert found.metadata == {"packaging": "jar", "name": "A demo", "description": "Of it.", "url": "https://x.example"}


@pytest.mark.parametrize(
    ("inner", "name", "version"),
    [
        (parent() + "<artifactId>a</artifactId>", "pg:a", "9"),
        (parent() + "<groupId>g</groupId><artifactId>a</artifactId>", "g:a", "9"),
        (parent() + "<artifactId>a</artifactId><version>2</version>", "pg:a", "2"),
        (parent() + gav(), "g:a", "1"),
        ("<parent><groupId>pg</groupId></parent><artifactId>a</artifactId><version>1</version>", "pg:a", "1"),
        (gav(version="${revision}") + properties(revision="3"), "g:a", "3"),
        (
            gav(version="${revision}${sha1}${changelist}") + properties(revision="3", sha1="", changelist="-SNAPSHOT"),
            "g:a",
            "3-SNAPSHOT",
        ),
        (gav(artifact="a_${scala}") + properties(scala="2.13"), "g:a_2.13", "1"),
        (gav(version="${project.parent.version}") + parent(), "g:a", "9"),
        (gav(artifact="${project.groupId}-x"), "g:g-x", "1"),
        (gav(group="${pom.version}"), "1:a", "1"),
        (gav(version="${one}") + properties(one="${two}", two="${three}", three="7"), "g:a", "7"),
        (gav(version="\n 1 \n"), "g:a", "1"),
        (gav(version="<!-- x -->1"), "g:a", "1"),
        ("<dependencies><dependency>" + gav("x", "y", "z") + "</dependency></dependencies>" + gav(), "g:a", "1"),
        (gav() + gav("x", "y", "2"), "g:a", "1"),
        (
            gav(version="${project.version.x}") + "<properties><project.version.x>5</project.version.x></properties>",
            "g:a",
            "5",
        ),
    ],
)
def test_maven_x3_inheritance_and_placeholders(inner: str, name: str, version: str) -> None:
    assert named(inner) == (name, version)


@pytest.mark.parametrize(
    "inner",
    [
        gav(version="${revision}"),  # defined nowhere, or in a parent that is not looked up
        gav(version="${env.HOME}"),
        gav(version="${project.version}"),  # itself
        gav(version="${one}") + properties(one="${two}", two="${one}"),
        gav(version="${one}") + properties(one="x${one}"),
        gav(version="${" + "x" * 300 + "}"),
    ],
)
def test_maven_x3_x4_what_is_not_explained_stays(inner: str) -> None:
    found = pom(inner)
    assert package.has_placeholder(found.version)
    assert len(found.version) <= package.VALUE_LENGTH


@pytest.mark.parametrize(
    ("inner", "words"),
    [
        ("", "no groupId and no artifactId and no version"),
        ("<artifactId>a</artifactId>", "no groupId and no version"),
        (parent(), "no artifactId"),  # which is never inherited
        (gav(version=" "), "no version"),
        (gav(version="${x}") + properties(x=""), "no version"),
        (f"<x>{gav()}</x>", "no groupId"),
    ],
)
def test_maven_x3_what_is_missing_is_named(inner: str, words: str) -> None:
    with pytest.raises(ContentInvalid, match=words):
        pom(inner)


@pytest.mark.parametrize(
    "head",
    [
        "<project>",
        '<project xmlns="http://maven.apache.org/POM/4.0.0">',
        '<project xmlns="http://maven.apache.org/POM/4.1.0" root="true">',
        '<m:project xmlns:m="http://maven.apache.org/POM/4.1.0" xmlns="http://maven.apache.org/POM/4.1.0">',
        '<?xml version="1.0" encoding="UTF-8"?>\n<!-- a comment --><project>',
        "\ufeff<project>",
    ],
)
def test_maven_n5_x2_namespaces_and_beginnings(head: str) -> None:
    end = "</m:project>" if "<m:" in head else "</project>"
    assert (found := pom(f"{head}{gav()}{end}".encode())) and (found.name, found.version) == ("g:a", "1")


def test_maven_x2_encodings() -> None:
    data = f'<?xml version="1.0" encoding="ISO-8859-1"?><project>{gav()}<name>caf\u00e9</name></project>'
    assert pom(data.encode("latin-1")).metadata["name"] == "caf\u00e9"
    with pytest.raises(ContentInvalid):
        pom(data.replace("ISO-8859-1", "UTF-8").encode("latin-1"))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<html/>",
        b"<project>&nbsp;</project>",
        b"<!DOCTYPE project [<!ENTITY a SYSTEM 'file:///etc/passwd'>]><project><groupId>&a;</groupId></project>",
        samples.jar(),
        samples.metadata(DEMO, ["1.0"]),
    ],
)
def test_maven_x1_x2_e16_what_is_no_pom(data: bytes) -> None:
    with pytest.raises(ContentInvalid):
        pom(data)


def test_maven_x1_a_pom_of_more_than_a_megabyte_is_not_read() -> None:
    class Unread(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise AssertionError("it is read all the same")

    with pytest.raises(ContentInvalid, match="at most 1048576"):
        package.inspect("x.pom", Unread(), 1024 * 1024 + 1)
    small = f"<project>{gav()}<!-- {'x' * (1024 * 1024 - 100)} -->".encode() + b"</project>"
    assert len(small) <= 1024 * 1024 and pom(small).name == "g:a"


@pytest.mark.parametrize(
    "inner",
    [
        # a short text of many placeholders for a long one
        "<groupId>g</groupId><artifactId>"
        + "${x}" * 100_000
        + "</artifactId><version>1</version>"
        + properties(x="y" * 500_000),
        gav(version="${x}" * 400) + properties(x="y" * 1_900),
        gav(version="${x0}") + properties(**{f"x{n}": f"${{x{n + 1}}}" * 400 for n in range(8)}, x8="y" * 1_000),
        gav() + "<packaging>" + "${x}" * 100_000 + "</packaging>" + properties(x="y" * 500_000),
        gav() + "<description>" + "${x}" * 100_000 + "</description>" + properties(x="y" * 500_000),
        "<groupId>${project.artifactId}</groupId><artifactId>" + "z" * 900_000 + "</artifactId><version>1</version>",
        parent(version="v" * 400_000)
        + "<artifactId>a</artifactId><version>"
        + "${project.parent.version}" * 10_000
        + "</version>",
    ],
    ids=["long and many", "many", "nested", "packaging", "description", "own", "parent"],
)
def test_maven_x3_b8_placeholders_do_not_multiply(inner: str) -> None:
    tracemalloc.start()
    try:
        found = pom(inner)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20 * 1024 * 1024
    assert len(found.name) + len(found.version) < 10_000
    assert all(len(str(value)) <= package.TEXT_LENGTH for value in found.metadata.values())


def test_maven_packaging_and_parent_are_kept() -> None:
    found = pom(gav() + parent() + "<packaging>maven-plugin</packaging>")
    assert found.metadata == {"packaging": "maven-plugin", "parent": "pg:pa:9"}
    assert pom(gav() + "<packaging></packaging>").metadata["packaging"] == "jar"
    assert pom(gav() + "<packaging>${p}</packaging>" + properties(p="pom")).metadata["packaging"] == "pom"


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="ab${}.projectversin-<>&;/", max_size=80))
def test_maven_x3_any_version_text_is_read_or_refused(value: str) -> None:
    try:
        found = pom(gav(version=value))
    except ContentInvalid:
        return
    assert found.name == "g:a" and found.version


# --- plugins ---------------------------------------------------------------------------------------------------------


def plugin(data: bytes) -> Facts:
    return package.inspect("1/b-1.jar", io.BytesIO(data), len(data))


def descriptor(inner: str) -> bytes:
    return samples.jar(files={package.PLUGIN_DESCRIPTOR: f"<plugin>{inner}</plugin>".encode()})


def test_maven_u10_a_plugins_prefix() -> None:
    found = plugin(samples.plugin_jar(PLUGIN, "demo", name="Of the demo"))
    assert (found.name, found.version) == (PLUGIN.package, "1.0")
    assert found.metadata == {"prefix": "demo", "name": "Of the demo"}
    unnamed = plugin(descriptor(gav("g", "a-plugin") + "<goalPrefix>a</goalPrefix>"))
    assert unnamed.metadata == {"prefix": "a", "name": "a-plugin"}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (samples.jar(), "has no META-INF/maven/plugin.xml"),
        (descriptor(gav()), "lacks"),
        (descriptor("<goalPrefix>x</goalPrefix>"), "lacks"),
        (samples.jar(files={package.PLUGIN_DESCRIPTOR: b"<plugin"}), "no XML"),
        (samples.jar(files={package.PLUGIN_DESCRIPTOR: b"<!DOCTYPE a><plugin/>"}), "document type"),
        (samples.jar(files={"x/META-INF/maven/plugin.xml": b"<plugin/>"}), "has no META-INF"),
        (b"no jar", "zip"),
        (b"", "zip"),
        (samples.plugin_jar(PLUGIN, "demo")[:-30], "zip|cut"),
    ],
)
def test_maven_u10_e16_what_says_no_prefix(data: bytes, words: str) -> None:
    with pytest.raises(ContentInvalid, match=words):
        plugin(data)


# As `jar cf` of Java 17 wrote it: sizes after the data of all but the folders.
REAL_JAR = base64.b64decode(
    """
UEsDBBQACAgIAPoge10AAAAAAAAAAAAAAAAJAAQATUVUQS1JTkYv/soAAAMAUEsHCAAAAAACAAAAAAAAAFBLAwQUAAgICAD6IHtdAAAAAAAAAAAAAAAA
FAAAAE1FVEEtSU5GL01BTklGRVNULk1G803My0xLLS7RDUstKs7Mz7NSMNQz4OVyLkpNLElN0XWqBAqY6xnoGZoqaLikJmUm5mnycvFyAQBQSwcIHbOz
mTgAAAA3AAAAUEsDBAoAAAgAAOUge10AAAAAAAAAAAAAAAAPAAAATUVUQS1JTkYvbWF2ZW4vUEsDBAoAAAgAAOUge10AAAAAAAAAAAAAAAAbAAAATUVU
QS1JTkYvbWF2ZW4vb3JnLmV4YW1wbGUvUEsDBAoAAAgAAOUge10AAAAAAAAAAAAAAAAtAAAATUVUQS1JTkYvbWF2ZW4vb3JnLmV4YW1wbGUvZGVtby1t
YXZlbi1wbHVnaW4vUEsDBBQACAgIAOUge10AAAAAAAAAAAAAAAAZAAAATUVUQS1JTkYvbWF2ZW4vcGx1Z2luLnhtbE2OSw7CMBBD95yCC7QDe2skluy4
wohOo6AkE00/6vGpChHs/GzZMmpaQiyMIln5dv4g6EAEt6XeBzYPvW6Sa1JQMyE+x1Ge864HzdZlWbV0beEvxao+RSt87S+gBggm6eE6xu3o78s/A9le
NhGDvgdPb1BLBwj4ewCncgAAAKoAAABQSwECFAAUAAgICAD6IHtdAAAAAAIAAAAAAAAACQAEAAAAAAAAAAAAAAAAAAAATUVUQS1JTkYv/soAAFBLAQIU
ABQACAgIAPoge10ds7OZOAAAADcAAAAUAAAAAAAAAAAAAAAAAD0AAABNRVRBLUlORi9NQU5JRkVTVC5NRlBLAQIKAAoAAAgAAOUge10AAAAAAAAAAAAA
AAAPAAAAAAAAAAAAAAAAALcAAABNRVRBLUlORi9tYXZlbi9QSwECCgAKAAAIAADlIHtdAAAAAAAAAAAAAAAAGwAAAAAAAAAAAAAAAADkAAAATUVUQS1J
TkYvbWF2ZW4vb3JnLmV4YW1wbGUvUEsBAgoACgAACAAA5SB7XQAAAAAAAAAAAAAAAC0AAAAAAAAAAAAAAAAAHQEAAE1FVEEtSU5GL21hdmVuL29yZy5l
eGFtcGxlL2RlbW8tbWF2ZW4tcGx1Z2luL1BLAQIUABQACAgIAOUge134ewCncgAAAKoAAAAZAAAAAAAAAAAAAAAAAGgBAABNRVRBLUlORi9tYXZlbi9w
bHVnaW4ueG1sUEsFBgAAAAAGAAYApQEAACECAAAAAA==
"""
)


class Pipe(io.BytesIO):
    def tell(self) -> int:
        raise OSError("a pipe")


def streamed(*members: tuple[str, bytes], comment: bytes = b"") -> bytes:
    """As a writer that cannot go back: sizes come after the data."""
    target = Pipe()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.comment = comment
        for name, data in members:
            archive.writestr(name, data)
    return target.getvalue()


def test_maven_u10_jars_as_javas_own_tools_write_them() -> None:
    assert plugin(REAL_JAR).metadata == {"prefix": "demo", "name": "A plugin"}
    for data in (
        streamed((package.PLUGIN_DESCRIPTOR, GOOD), ("a.txt", b"a")),
        streamed(("a.txt", b"a"), (package.PLUGIN_DESCRIPTOR, GOOD), comment=b"shaded"),
    ):
        assert plugin(data).metadata["prefix"] == "good"
    with pytest.raises(ContentInvalid, match="times its size"):
        plugin(streamed((package.PLUGIN_DESCRIPTOR, GOOD), ("bomb", b"\0" * (80 << 20))))


def zipped(*members: tuple[str, bytes], **more: Any) -> bytes:
    target = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        warnings.simplefilter("ignore")  # about the name that is there twice, on purpose
        for name, data in members:
            info = zipfile.ZipInfo(name)
            info.external_attr = more.get("attributes", 0)
            archive.writestr(info, data, zipfile.ZIP_DEFLATED)
    return target.getvalue()


GOOD = f"<plugin>{gav('g', 'a-plugin')}<goalPrefix>good</goalPrefix></plugin>".encode()
EVIL = GOOD.replace(b"good", b"evil")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (zipped((package.PLUGIN_DESCRIPTOR, GOOD), ("../../etc/cron.d/x", b"x")), "cannot be a path"),
        (zipped((package.PLUGIN_DESCRIPTOR, GOOD), ("/etc/passwd", b"x")), "cannot be a path"),
        (zipped((package.PLUGIN_DESCRIPTOR, b"/etc/passwd"), attributes=0o120777 << 16), "link"),
        (zipped((package.PLUGIN_DESCRIPTOR, GOOD), (package.PLUGIN_DESCRIPTOR, EVIL)), "twice"),
        (zipped((package.PLUGIN_DESCRIPTOR, b"\0" * (17 << 20))), "larger than is read"),
        (zipped((package.PLUGIN_DESCRIPTOR, GOOD), ("bomb", b"\0" * (80 << 20))), "times its size"),
    ],
    ids=["slip", "absolute", "link", "duplicate", "large descriptor", "bomb"],
)
def test_maven_x8_b1_b2_b3_jars_that_are_not_believed(data: bytes, words: str) -> None:
    with pytest.raises(ContentInvalid, match=words):
        plugin(data)


def test_maven_x8_b4_sizes_that_lie() -> None:
    data = bytearray(zipped((package.PLUGIN_DESCRIPTOR, GOOD)))
    for sign, at in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        start = data.index(sign) + at
        data[start : start + 4] = (10).to_bytes(4, "little")
    with pytest.raises(ContentInvalid, match="larger than the archive declares|damaged"):
        plugin(bytes(data))


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_maven_x8_a_jar_with_bits_flipped_never_says_another_prefix(data: st.DataObject) -> None:
    whole = bytearray(data.draw(st.sampled_from([samples.plugin_jar(PLUGIN, "demo"), REAL_JAR])))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        found = plugin(bytes(whole))
    except ContentInvalid:
        return
    assert found.metadata["prefix"] == "demo"
