"""Addresses in a Maven repository: what they name, and what cannot be in one (P1 to P11)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from formats.maven.handler import Maven
from formats.maven.names import (
    ChecksumPlace,
    FolderPlace,
    MetadataPlace,
    Part,
    Place,
    folder_of,
    parse,
    part_of,
    place_of,
    split_package,
)
from formats.maven.views import hot, ref
from repoman.core.errors import NameInvalid
from repoman.core.refs import FileRef, ListingRef

BUILD = "20240102.030405-7"


def place(path: str) -> Place:
    found = parse(path)
    assert isinstance(found, Place)
    return found


@pytest.mark.parametrize(
    ("path", "package", "version", "part"),
    [
        ("org/example/demo/1.0/demo-1.0.jar", "org.example:demo", "1.0", Part("", "jar")),
        ("org/example/demo/1.0/demo-1.0.pom", "org.example:demo", "1.0", Part("", "pom")),
        ("junit/junit/4.13/junit-4.13-sources.jar", "junit:junit", "4.13", Part("sources", "jar")),
        ("log4j/log4j/1.2.17/log4j-1.2.17.jar", "log4j:log4j", "1.2.17", Part("", "jar")),
        (
            "org/apache/commons/commons-lang3/3.14.0/commons-lang3-3.14.0.jar",
            "org.apache.commons:commons-lang3",
            "3.14.0",
            Part("", "jar"),
        ),
        (
            "org/scala-lang/scala-library_2.13/2.13/scala-library_2.13-2.13.jar",
            "org.scala-lang:scala-library_2.13",
            "2.13",
            Part("", "jar"),
        ),
        ("a/b-1.0/1.0/b-1.0-1.0.jar", "a:b-1.0", "1.0", Part("", "jar")),
        ("a/1.0/1.0/1.0-1.0.jar", "a:1.0", "1.0", Part("", "jar")),
        ("a/b/1.0/b-1.0", "a:b", "1.0", Part("", "")),
        ("a/b/1.0/b-1.0.tar.gz", "a:b", "1.0", Part("", "tar.gz")),
        ("a/b/1.0/b-1.0-bin.tar.bz2", "a:b", "1.0", Part("bin", "tar.bz2")),
        ("a/b/1.0/b-1.0-x.cpio.gz", "a:b", "1.0", Part("x", "cpio.gz")),
        ("a/b/1.0/b-1.0.nk.os", "a:b", "1.0", Part("", "nk.os")),
        ("a/b/1.0/b-1.0-jdk1.8.jar", "a:b", "1.0", Part("jdk1.8", "jar")),  # a dot in the classifier
        ("a/b/1.0/b-1.0-linux-x86_64.so.2", "a:b", "1.0", Part("linux-x86_64.so", "2")),
        ("a/b/1.0/b-1.0-1.0.jar", "a:b", "1.0", Part("1.0", "jar")),
        ("a/b/1/b-1-2.jar", "a:b", "1", Part("2", "jar")),
        ("a/b/1/b-1.2.jar", "a:b", "1", Part(".2", "jar")),
        ("a/b/1.0+x/b-1.0+x.jar", "a:b", "1.0+x", Part("", "jar")),
        ("a/b/1.0/b-1.0.module", "a:b", "1.0", Part("", "module")),
        ("a/b/1.0/b-1.0-build.pom", "a:b", "1.0", Part("build", "pom")),
        ("a/b/1.0/b-1.0-features.xml", "a:b", "1.0", Part("features", "xml")),
        ("a/b/1.0/b-1.0-maven-metadata.xml", "a:b", "1.0", Part("maven-metadata", "xml")),
        ("a/b/1.0/b-1.0.jar.asc", "a:b", "1.0", Part("", "jar.asc")),
        ("a/b/1.0/b-1.0-x.tar.gz.asc", "a:b", "1.0", Part("x", "tar.gz.asc")),
        ("a/b/1.0/b-1.0.jar.sigstore", "a:b", "1.0", Part("", "jar.sigstore")),
        (f"a/b/1-snapshot/b-1-{BUILD}.jar", "a:b", "1-snapshot", Part("", "jar", BUILD)),
        ("a/b/1.0/b-1.0.jar.sha512.asc", "a:b", "1.0", Part("", "jar.sha512.asc")),
        ("a/b/1.0/b-1.0-x.tar.gz.asc.asc", "a:b", "1.0", Part("x", "tar.gz.asc.asc")),
        ("a/b/1.0/b-1.0.pom.sigstore.json", "a:b", "1.0", Part("", "pom.sigstore.json")),
        ("a/b/1.0-SNAPSHOT/b-1.0-SNAPSHOT.jar", "a:b", "1.0-SNAPSHOT", Part("", "jar")),
        ("a/b/1.0-SNAPSHOT/b-1.0-SNAPSHOT-tests.jar", "a:b", "1.0-SNAPSHOT", Part("tests", "jar")),
        (f"a/b/1.0-SNAPSHOT/b-1.0-{BUILD}.jar", "a:b", "1.0-SNAPSHOT", Part("", "jar", BUILD)),
        (f"a/b/1.0-SNAPSHOT/b-1.0-{BUILD}-tests.jar", "a:b", "1.0-SNAPSHOT", Part("tests", "jar", BUILD)),
        (f"a/b/1.0-SNAPSHOT/b-1.0-{BUILD}.jar.asc", "a:b", "1.0-SNAPSHOT", Part("", "jar.asc", BUILD)),
        (f"a/b/1.0-{BUILD}/b-1.0-{BUILD}.jar", "a:b", "1.0-SNAPSHOT", Part("", "jar", BUILD)),  # P2
        (f"a/b/SNAPSHOT/b-{BUILD}.jar", "a:b", "SNAPSHOT", Part("", "jar", BUILD)),
    ],
)
def test_maven_p1_p2_p5_p6_p8_p10_e4_e18_files(path: str, package: str, version: str, part: Part) -> None:
    found = place(path)
    assert (found.package, found.version, found.part) == (package, version, part)
    assert found.path == f"{version}/{path.rpartition('/')[2]}"
    assert place_of(found.ref) == found


@pytest.mark.parametrize(
    "path",
    [
        "com/example/sbt-demo_2.12_1.0/1.0/sbt-demo-1.0.jar",  # sbt's short name beside the long one
        "a/b/1.0/other.txt",
        "a/b/1.0/b-1.0x.jar",
        "a/b/1.0/b-1.01.jar",
        "a/b/1.0/b-2.0.jar",
        "a/b/1.0/B-1.0.jar",
        "a/b/1.0/b.jar",
        "a/b/1.0/b-.jar",
        "a/b/1.0-SNAPSHOT/b-1.0.jar",
        f"a/b/1.0-SNAPSHOT/b-1.1-{BUILD}.jar",
        "a/b/1.0-SNAPSHOT/b-1.0-20240102.030405-.jar",
        f"a/b/1.0-SNAPSHOT/b-1.0-{BUILD}x.jar",
        "a/b/1.0/ivy.xml",
        "a/b/1.0/ivys/ivy.xml",
    ],
)
def test_maven_p7_e17_other_names_are_kept_as_they_are(path: str) -> None:
    assert place(path).part is None


@pytest.mark.parametrize(
    ("name", "algorithm", "plain"),
    [
        ("b-1.0.jar.sha1", "sha1", "b-1.0.jar"),
        ("b-1.0.jar.md5", "md5", "b-1.0.jar"),
        ("b-1.0.jar.sha256", "sha256", "b-1.0.jar"),
        ("b-1.0.jar.sha512", "sha512", "b-1.0.jar"),
        ("b-1.0.jar.asc.sha1", "sha1", "b-1.0.jar.asc"),
        ("b-1.0.jar.sigstore.json.md5", "md5", "b-1.0.jar.sigstore.json"),
    ],
)
def test_maven_p6_checksums_are_of_what_is_before_them(name: str, algorithm: str, plain: str) -> None:
    of = Place("a", "b", "1.0", plain, part_of("b", "1.0", plain))
    assert parse(f"a/b/1.0/{name}") == ChecksumPlace(algorithm, of)


@pytest.mark.parametrize("name", ["b-1.0.jar.sha512.asc", "b-1.0.jar.sha384", "b-1.0.jar.SHA1", "b-1.0.sha1x", ".sha1"])
def test_maven_p6_signatures_of_checksums_and_unknown_sums_are_files(name: str) -> None:
    assert place(f"a/b/1.0/{name}").name == name


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("org/example/demo/maven-metadata.xml", MetadataPlace(("org", "example", "demo"))),
        ("org/maven-metadata.xml", MetadataPlace(("org",))),
        ("org/maven-metadata.xml.asc", MetadataPlace(("org",), beside=".asc")),
        ("a/b/1-SNAPSHOT/maven-metadata.xml.asc", MetadataPlace(("a", "b"), "1-SNAPSHOT", ".asc")),
        ("org/example/maven-metadata.xml", MetadataPlace(("org", "example"))),
        ("log4j/log4j/maven-metadata.xml", MetadataPlace(("log4j", "log4j"))),
        ("a/commons-lang3/maven-metadata.xml", MetadataPlace(("a", "commons-lang3"))),
        ("a/lib_2.13/maven-metadata.xml", MetadataPlace(("a", "lib_2.13"))),
        ("a/b/1.0-SNAPSHOT/maven-metadata.xml", MetadataPlace(("a", "b"), "1.0-SNAPSHOT")),
        (f"a/b/1.0-{BUILD}/maven-metadata.xml", MetadataPlace(("a", "b"), "1.0-SNAPSHOT")),
        ("a/b/1.0/maven-metadata.xml", MetadataPlace(("a", "b", "1.0"))),
    ],
)
def test_maven_p3_p4_p8_e4_metadata(path: str, found: MetadataPlace) -> None:
    assert parse(path) == found
    assert parse(f"{path}.sha1") == ChecksumPlace("sha1", found)


def test_maven_p4_a_folder_is_an_artifact_and_a_group() -> None:
    found = parse("org/foo/maven-metadata.xml")
    assert isinstance(found, MetadataPlace) and (found.package, found.group) == ("org:foo", "org.foo")


@pytest.mark.parametrize(
    ("path", "segments"),
    [("", ()), ("org/", ("org",)), ("a/b/1.0/", ("a", "b", "1.0"))],
)
def test_maven_p12_folders(path: str, segments: tuple[str, ...]) -> None:
    assert parse(path) == FolderPlace(segments)


@pytest.mark.parametrize(
    "path",
    [
        "file.jar",
        "a/file.jar",
        "a/b/file.jar",
        ".meta/prefixes.txt",
        ".index/nexus-maven-repository-index.gz",
        "archetype-catalog.xml",
        "maven-metadata.xml",
        "maven-metadata.xml.sha1",
        "a/b/../c/d.jar",
        "a/./b/1/b-1.jar",
        "a//b/1/b-1.jar",
        "/a/b/1/b-1.jar",
        "a/b/1/ b-1.jar",
        "a\\b/b/1/b-1.jar",
        "a/b/1/b-1.jar\0",
        "a/b/1/b\n-1.jar",
        "a/b/1/\u202e.jar",
        "a b/b/1/b-1.jar",
        "a.c/b/1/b-1.jar",  # a dot in a group's folder
        "a\u00e9/b/1/b-1.jar",
        "a/b c/1/b c-1.jar",
        "a/b+c/1/b+c-1.jar",
        "a/\u0431/1/\u0431-1.jar",
        "a/b/1:0/b-1:0.jar",
        'a/b/1"/b.jar',
        "a/b/1<2/b.jar",
        "a/b/1|2/b.jar",
        "a/b/1?/b.jar",
        "a/b/1*/b.jar",
        "a/b/1 0/b.jar",
        "a/b/1\u00e9/b.jar",
        f"a/b/{'1' * 201}/b.jar",
        f"a/b/1/{'b' * 256}",
        "/".join(["a"] * 600),
        "a/" * 61 + "b/1/b-1.jar" + "/x" * 3,
        "a/b/${project.version}/b-${project.version}.jar",
        "a/${artifactId}/1/x.jar",
    ],
)
def test_maven_p9_p11_f3_a1_a3_a6_a7_a9_what_cannot_be_in_a_repository(path: str) -> None:
    with pytest.raises(NameInvalid):
        parse(path)
    assert hot(path) is None and ref(path) is None


def test_maven_p9_a_property_that_was_not_resolved_is_said() -> None:
    with pytest.raises(NameInvalid, match="property that was not resolved"):
        parse("a/b/${revision}/b-${revision}.jar")


@pytest.mark.parametrize(
    ("path", "named"),
    [
        ("a/b/1/b-1.jar", FileRef("a:b", "1/b-1.jar")),
        ("a/b/1/b-1.jar.sha1", FileRef("a:b", "1/b-1.jar")),
        ("a/b/maven-metadata.xml", ListingRef("releases", "a:b")),
        ("a/b/1-SNAPSHOT/maven-metadata.xml.md5", ListingRef("version", "a:b", arguments=(("version", "1-SNAPSHOT"),))),
        ("a/b/", None),
    ],
)
def test_maven_what_a_path_is_about(path: str, named: FileRef | ListingRef | None) -> None:
    assert ref(path) == named


@pytest.mark.parametrize(
    "path", ["a/b/1/b-1.jar.sha1", "a/b/maven-metadata.xml", "a/b/", "", "a/b/1-SNAPSHOT/maven-metadata.xml"]
)
def test_maven_only_files_have_a_short_cut(path: str) -> None:
    assert hot(path) is None
    found = hot("a/b/1/b-1.jar")
    assert found is not None and (found.kind, found.package, found.name) == ("file", "a:b", "1/b-1.jar")


@pytest.mark.parametrize("name", ["org.example:demo", "a:b", "a-b_c:1.0", "org.a:scala_2.13"])
def test_maven_packages(name: str) -> None:
    group, artifact = split_package(name)
    assert Maven().normalize(name) == name == f"{group}:{artifact}"
    assert folder_of(name) == f"{group.replace('.', '/')}/{artifact}/"


@pytest.mark.parametrize(
    "name",
    ["", "a", ":a", "a:", "a..b:c", ".a:c", "a.:c", "a:b:c", "a/b:c", "a:b/c", "a b:c", "a:.", "a:..", "\u00e9:b"],
)
def test_maven_a9_what_is_no_package(name: str) -> None:
    with pytest.raises(NameInvalid):
        Maven().normalize(name)


@pytest.mark.parametrize(
    ("path", "is_moving"),
    [
        ("a/b/1/b-1.jar", False),
        ("a/b/1/other", False),
        ("a/b/1-SNAPSHOT/b-1-SNAPSHOT.jar", True),
        ("a/b/1-SNAPSHOT/other", True),
        (f"a/b/1-SNAPSHOT/b-1-{BUILD}.jar", False),
        (f"a/b/1-{BUILD}/b-1-{BUILD}.pom", False),
    ],
)
def test_maven_s5_e25_what_may_change_under_its_name(path: str, is_moving: bool) -> None:
    assert place(path).is_moving is is_moving


GROUPS = st.lists(st.from_regex(r"[A-Za-z0-9_-]{1,8}", fullmatch=True), min_size=1, max_size=4)
ARTIFACTS = st.from_regex(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,10}", fullmatch=True).filter(
    lambda name: name != "maven-metadata.xml"
)
VERSIONS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9.+_-]{0,10}", fullmatch=True)
EXTENSIONS = st.sampled_from(["jar", "pom", "tar.gz", "module", "so", "jar.asc", "zip.sigstore.json"])
CLASSIFIERS = st.from_regex(r"|[A-Za-z][A-Za-z0-9_.-]{0,10}", fullmatch=True)


@settings(max_examples=500, deadline=None)
@given(GROUPS, ARTIFACTS, VERSIONS, CLASSIFIERS, EXTENSIONS)
def test_maven_p1_what_is_put_together_is_taken_apart(
    group: list[str], artifact: str, version: str, classifier: str, extension: str
) -> None:
    tail = f"-{classifier}.{extension}" if classifier else f".{extension}"
    path = "/".join([*group, artifact, version, f"{artifact}-{version}{tail}"])
    found = place(path)
    assert (found.group, found.artifact) == (".".join(group), artifact)
    assert found.version == version and found.part == Part(classifier, extension)
    assert folder_of(found.package) + found.path == path


@settings(max_examples=500, deadline=None)
@given(st.text(alphabet="ab1/.-:_${}+ \\\u00e9\n%S", max_size=40))
def test_maven_p11_any_path_names_something_or_is_refused(path: str) -> None:
    try:
        found = parse(path)
    except NameInvalid:
        return
    if isinstance(found, Place):
        assert found.path.count("/") == 1 and ".." not in found.path.split("/")
        assert parse(path) == found


@pytest.mark.parametrize(
    ("target", "is_good"),
    [
        (b"b-1.0+x%2By%20.jar", True),
        (b"100%25.jar", True),
        (b"b.jar%2520", False),
        (b"b%2541.jar", False),
        (b"b%25%34%31.jar", False),
        (b"b.jar%7", False),
        (b"b.jar%", False),
        (b"b.%zz", False),
    ],
)
def test_maven_p11_a_percent_sign_is_an_escape_once(target: bytes, is_good: bool) -> None:
    if is_good:
        assert Maven().plain_target(target) == target
        return
    with pytest.raises(NameInvalid):
        Maven().plain_target(target)
