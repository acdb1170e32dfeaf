"""`maven-metadata.xml`, made and read (M1 to M7, G4, S2 to S8, E32)."""

from __future__ import annotations

import datetime
import xml.etree.ElementTree as ElementTree
from xml.etree.ElementTree import Element

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from formats.maven import samples
from formats.maven.handler import Maven
from formats.maven.listing import METADATA_BYTES, NULL, folder, moment
from formats.maven.plugins import TOLD_MOST, Plugin, read_plugins, told
from formats.maven.samples import Coordinates
from repoman.core.errors import ELSEWHERE, ContentInvalid, PackageNotFound
from repoman.core.records import Entry, ListedFile, Listing
from repoman.core.refs import ListingRef

AT = datetime.datetime(2024, 1, 2, 3, 4, 5, 999_000, tzinfo=datetime.UTC)
RELEASES = ListingRef("releases", "org.example:demo")
GROUP = ListingRef("packages", arguments=(("under", "org.example:"),))
BUILDS = ("20240101.010101-1", "20240102.020202-2")


def releases(*versions: str, **more: object) -> Listing:
    return Listing(tuple(Entry(version, kind="version") for version in versions), changed_at=AT, **more)  # type: ignore[arg-type]


def plugins(*given: tuple[str, str]) -> Listing:
    return Listing(
        tuple(
            Entry(
                f"org.example:{artifact}",
                kind="package",
                metadata={"plugins": [(prefix, f"Of {prefix}")]},
            )
            for artifact, prefix in given
        )
    )


def builds(*names: str, version: str = "1.0-SNAPSHOT", at: datetime.datetime | None = AT) -> Listing:
    files = tuple(ListedFile(f"{version}/demo-{name}", published_at=at) for name in names)
    return Listing((Entry(version, kind="version", files=files),), changed_at=AT)


def version_ref(version: str = "1.0-SNAPSHOT") -> ListingRef:
    return ListingRef("version", "org.example:demo", arguments=(("version", version),))


def rendered(ref: ListingRef, listing: Listing) -> bytes:
    document = Maven().render_listing(ref, listing, "", "")
    assert document.media_type == "application/xml"
    return document.data


def read(ref: ListingRef, listing: Listing) -> Element:
    root = ElementTree.fromstring(rendered(ref, listing))
    assert root.tag == "metadata" and root.attrib == {"modelVersion": "1.1.0"}
    assert all(each.text or len(each) for each in root.iter()), "no empty elements (E32)"
    return root


def parsed(ref: ListingRef, body: bytes | str) -> Listing:
    data = body.encode() if isinstance(body, str) else body
    return Maven().parse_listing(ref, data, url="https://upstream.example/m2", media_type="text/html")


# --- of an artifact --------------------------------------------------------------------------------------------------


def test_maven_m1_m2_m5_of_an_artifact() -> None:
    root = read(RELEASES, releases("1.10", "1.9", "2.0-SNAPSHOT"))
    assert [each.tag for each in root] == ["groupId", "artifactId", "versioning"]
    assert (root.findtext("groupId"), root.findtext("artifactId")) == ("org.example", "demo")
    versioning = root.find("versioning")
    assert versioning is not None
    assert [each.tag for each in versioning] == ["latest", "release", "versions", "lastUpdated"]
    assert versioning.findtext("latest") == "2.0-SNAPSHOT" and versioning.findtext("release") == "1.10"
    assert [each.text for each in versioning.iterfind("versions/version")] == ["1.9", "1.10", "2.0-SNAPSHOT"]
    assert versioning.findtext("lastUpdated") == "20240102030405"  # M4: UTC, fourteen digits


def test_maven_m5_e32_no_release_where_there_are_snapshots_only() -> None:
    root = read(RELEASES, releases("1.0-SNAPSHOT"))
    assert root.find("versioning/release") is None and root.findtext("versioning/latest") == "1.0-SNAPSHOT"


def test_maven_v3_e6_equal_versions_are_all_listed_once() -> None:
    root = read(RELEASES, releases("1.0", "1.0.0", "1", "1.0"))
    assert [each.text for each in root.iterfind("versioning/versions/version")] == ["1", "1.0", "1.0.0"]


def test_maven_m4_moments_are_utc() -> None:
    assert moment(AT.astimezone(datetime.timezone(datetime.timedelta(hours=14)))) == "20240102030405"


def test_maven_g4_the_order_of_rows_changes_nothing() -> None:
    one = rendered(RELEASES, releases("1", "2", "3", "1.0"))
    assert one == rendered(RELEASES, releases("3", "1.0", "2", "1"))
    kinds = ["1.0-SNAPSHOT.jar", f"1.0-{BUILDS[0]}.jar", f"1.0-{BUILDS[1]}.jar", f"1.0-{BUILDS[0]}.pom"]
    assert rendered(version_ref(), builds(*kinds)) == rendered(version_ref(), builds(*reversed(kinds)))


@pytest.mark.parametrize("ref", [RELEASES, GROUP, version_ref()])
def test_maven_g9_nothing_known_is_not_an_empty_document(ref: ListingRef) -> None:
    with pytest.raises(PackageNotFound):
        rendered(ref, Listing(()))


# --- of a group, and of both -----------------------------------------------------------------------------------------


def test_maven_m2_g2_of_a_group() -> None:
    root = read(GROUP, plugins(("b-maven-plugin", "b"), ("a-maven-plugin", "a")))
    assert [each.tag for each in root] == ["plugins"]
    assert [[field.text for field in each] for each in root.iterfind("plugins/plugin")] == [
        ["Of a", "a", "a-maven-plugin"],
        ["Of b", "b", "b-maven-plugin"],
    ]


def called(root: Element) -> list[tuple[str | None, str | None]]:
    return [(each.findtext("prefix"), each.findtext("artifactId")) for each in root.iterfind("plugins/plugin")]


def test_maven_g2_each_artifact_with_each_prefix_once() -> None:
    root = read(GROUP, plugins(("b", "x"), ("a", "x"), ("a", "x"), ("a", "y")))
    assert called(root) == [("x", "a"), ("y", "a"), ("x", "b")]


def described(kept: dict[str, str], live: list[str], told: dict[str, str] | None = None) -> list[str]:
    """Prefixes of one package: `kept` version → prefix."""
    keeps = {f"plugin {version}": {"prefix": prefix, "name": "n"} for version, prefix in kept.items()}
    entry = Entry("org.example:p", metadata={"kept": keeps, "versions": live})
    found = Maven().describe(Listing((entry,), metadata=told or {})).entries
    return [prefix for prefix, artifact in called(read(GROUP, Listing(found))) if artifact and prefix]


def test_maven_g2_g6_the_highest_live_version_says_the_prefix() -> None:
    kept = {"2": "new", "1.10": "mid", "1.9": "old"}
    assert described(kept, ["1.9", "1.10", "2"]) == ["new"]
    assert described(kept, ["1.9", "1.10", "3"]) == ["mid"]
    with pytest.raises(PackageNotFound):
        described(kept, ["3"])


def test_maven_g2_what_clients_say_is_added_unless_a_jar_says_it() -> None:
    told = {"p:new": "n", "p:old": "n", "p:more": "n", "q:other": "n"}
    assert described({"1": "old", "2": "new"}, ["1", "2"], told) == ["more", "new"]
    assert described({}, [], told) == ["more", "new", "old"]


def test_maven_m3_p4_e19_a_folder_that_is_both_says_both() -> None:
    root = ElementTree.fromstring(folder("org:example", releases("1.0"), plugins(("a", "x"))))
    assert [each.tag for each in root] == ["groupId", "artifactId", "plugins", "versioning"]
    found = parsed(ListingRef("releases", "org:example"), ElementTree.tostring(root))
    assert found.metadata == {"plugins": [["x", "a", "Of x"]]}


def test_maven_m3_what_upstreams_say_of_plugins_comes_after_ours() -> None:
    theirs = releases("1.0", metadata={"plugins": [["x", "other", "n"], ["y", "b", "n"], ["z", "a", "n"]]})
    root = ElementTree.fromstring(folder("org:example", theirs, plugins(("a", "x"))))
    assert called(root) == [("x", "a"), ("y", "b")]
    twice = releases("1.0", metadata={"plugins": [["y", "c", "n"], ["y", "b", "n"]]})
    root = ElementTree.fromstring(folder("org:example", twice, plugins(("z", "x"))))
    assert called(root) == [("x", "z"), ("y", "b"), ("y", "c")], "clients take the first"


def test_maven_g2_what_is_kept_of_what_clients_say_has_a_bound() -> None:
    many = [Plugin(f"p{number}", "a", "n") for number in range(TOLD_MOST + 5)]
    kept = told(many, {})
    assert len(kept) == TOLD_MOST and told(many, kept) == {}
    assert told([Plugin("p1", "a", "other")], kept) == {"a:p1": "other"}


# --- of a snapshot ---------------------------------------------------------------------------------------------------


def values(root: Element) -> dict[tuple[str, str], str]:
    return {
        (each.findtext("classifier") or "", each.findtext("extension") or ""): each.findtext("value") or ""
        for each in root.iterfind("versioning/snapshotVersions/snapshotVersion")
    }


def test_maven_m2_s2_s6_of_a_snapshot_with_builds() -> None:
    root = read(
        version_ref(),
        builds(
            f"1.0-{BUILDS[0]}.jar",
            f"1.0-{BUILDS[0]}.pom",
            f"1.0-{BUILDS[0]}-sources.jar",
            f"1.0-{BUILDS[1]}.jar",
            f"1.0-{BUILDS[1]}.pom",
            f"1.0-{BUILDS[1]}.jar.asc",
            "1.0-SNAPSHOT.jar",
            "other.txt",
        ),
    )
    assert [each.tag for each in root] == ["groupId", "artifactId", "version", "versioning"]
    assert root.findtext("version") == "1.0-SNAPSHOT"
    assert root.findtext("versioning/snapshot/timestamp") == "20240102.020202"
    assert root.findtext("versioning/snapshot/buildNumber") == "2"
    assert root.findtext("versioning/lastUpdated") == "20240102030405"
    new, old = f"1.0-{BUILDS[1]}", f"1.0-{BUILDS[0]}"
    assert values(root) == {("", "jar"): new, ("", "pom"): new, ("", "jar.asc"): new, ("sources", "jar"): old}
    assert {each.text for each in root.iter("updated")} == {"20240102030405"}


def test_maven_p6_e32_what_clients_do_not_look_for_is_not_told() -> None:
    names = (".jar", ".jar.asc", ".jar.sha512.asc", ".jar.asc.sha1.asc", "", "-x")
    root = read(version_ref(), builds(*(f"1.0-{BUILDS[0]}{name}" for name in names)))
    assert set(values(root)) == {("", "jar"), ("", "jar.asc")}
    assert root.findtext("versioning/snapshot/buildNumber") == "1"
    alone = read(version_ref(), builds(f"1.0-{BUILDS[0]}"))
    assert alone.find("versioning/snapshotVersions") is None


def test_maven_a2_s6_a_signature_is_told_with_the_file_that_it_is_of() -> None:
    new, old = f"1.0-{BUILDS[1]}", f"1.0-{BUILDS[0]}"
    root = read(version_ref(), builds(f"{new}.jar", f"{old}.jar", f"{old}.jar.asc", f"{old}.zip", f"{old}.zip.asc"))
    assert values(root) == {("", "jar"): new, ("", "zip"): old, ("", "zip.asc"): old}


def test_maven_s5_of_a_snapshot_under_its_plain_name() -> None:
    root = read(version_ref(), builds("1.0-SNAPSHOT.jar", "1.0-SNAPSHOT.pom"))
    assert root.findtext("versioning/snapshot/localCopy") == "true"
    assert root.find("versioning/snapshot/timestamp") is None and root.find("versioning/snapshotVersions") is None


def test_maven_s6_a_kind_that_only_the_plain_name_has_is_said() -> None:
    root = read(version_ref(), builds("1.0-SNAPSHOT.zip", f"1.0-{BUILDS[0]}.jar"))
    assert values(root) == {("", "zip"): "1.0-SNAPSHOT", ("", "jar"): f"1.0-{BUILDS[0]}"}


def test_maven_s7_s8_s9_moment_and_number_are_one_builds_and_the_number_never_falls() -> None:
    """A long build that began first and deployed last: its number is the highest, its moment is not."""
    slow, quick = "20240101.000000-5", "20240102.000000-4"
    root = read(version_ref(), builds(f"1.0-{slow}.jar", f"1.0-{quick}.jar"))
    assert root.findtext("versioning/snapshot/buildNumber") == "5"
    assert root.findtext("versioning/snapshot/timestamp") == "20240101.000000"
    assert values(root) == {("", "jar"): f"1.0-{quick}"}


def test_maven_s9_the_same_number_twice() -> None:
    root = read(version_ref(), builds("1.0-20240101.000000-1.jar", "1.0-20240101.000001-1.jar"))
    assert values(root) == {("", "jar"): "1.0-20240101.000001-1"}
    assert root.findtext("versioning/snapshot/timestamp") == "20240101.000001"


def test_maven_v1_the_bare_snapshot() -> None:
    root = read(version_ref("SNAPSHOT"), builds(f"{BUILDS[0]}.jar", version="SNAPSHOT"))
    assert values(root) == {("", "jar"): BUILDS[0]}


def test_maven_e32_files_without_a_moment() -> None:
    root = read(version_ref(), Listing(builds(f"1.0-{BUILDS[0]}.jar", at=None).entries))
    assert root.find("versioning/lastUpdated") is None and root.find(".//updated") is None


# --- escaping --------------------------------------------------------------------------------------------------------

TEXT = (
    st.text(
        st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff\x85\u2028"),
        min_size=1,
        max_size=30,
    )
    .map(str.strip)
    .filter(bool)
)


@settings(max_examples=200, deadline=None)
@example("0", "null")
@example("null", "0")
@given(TEXT, TEXT)
def test_maven_m1_m7_any_text_is_escaped(prefix: str, name: str) -> None:
    listing = Listing((Entry("org.example:p", metadata={"plugins": [(prefix, name)]}),))
    data = rendered(GROUP, listing)
    # Whoever reads it takes `null` for no value: then a plugin's name is its artifact's, and without a prefix it is none.
    expected = [[prefix, "p" if name == NULL else name]] if prefix != NULL else []
    assert [[each.prefix, each.name] for each in read_plugins(parsed(RELEASES, data).metadata)] == expected
    root = ElementTree.fromstring(data)
    assert [root.findtext(f"plugins/plugin/{tag}") for tag in ("prefix", "name")] == [prefix, name]
    assert [each.tag for each in root.iter()] == ["metadata", "plugins", "plugin", "name", "prefix", "artifactId"]


def test_maven_m1_markup_in_names_stays_text() -> None:
    data = rendered(RELEASES, releases("1&0", "]]>"))
    assert b"1&amp;0" in data and b"]]&gt;" in data
    assert len(parsed(RELEASES, rendered(RELEASES, releases("1&0"))).entries) == 1


# --- reading ---------------------------------------------------------------------------------------------------------

VERSIONS = st.lists(
    st.from_regex(r"[A-Za-z0-9][A-Za-z0-9.+_-]{0,12}", fullmatch=True), unique=True, min_size=1, max_size=8
)


@settings(max_examples=200, deadline=None)
@given(VERSIONS)
def test_maven_m1_what_is_rendered_is_read_again(versions: list[str]) -> None:
    data = rendered(RELEASES, releases(*versions))
    found = parsed(RELEASES, data)
    assert sorted(entry.name for entry in found.entries) == sorted(versions)
    assert found.changed_at == AT.replace(microsecond=0)
    assert rendered(RELEASES, found) == data


KINDS = st.sampled_from([".jar", ".pom", "-sources.jar", ".jar.asc", "-bin.tar.gz", ".module"])


@settings(max_examples=200, deadline=None)
@given(st.sets(st.tuples(st.sampled_from(["1.0-SNAPSHOT", *(f"1.0-{build}" for build in BUILDS)]), KINDS), min_size=1))
def test_maven_s2_a_snapshots_metadata_are_read_again(files: set[tuple[str, str]]) -> None:
    listing = builds(*(f"{value}{tail}" for value, tail in files))
    data = rendered(version_ref(), listing)
    if b"localCopy" in data:
        return
    # The number may be that of a build whose files are all outdated, and is not in what is read.
    assert values(read(version_ref(), parsed(version_ref(), data))) == values(ElementTree.fromstring(data))


def test_maven_m7_what_others_write_is_read() -> None:
    body = (
        "\ufeff\n<metadata xmlns='http://maven.apache.org/METADATA/1.2.0' xmlns:xsi='x' xsi:schemaLocation='a b'>"
        "<versioning><versions><version> 2.0 </version><version>1.0</version><version>2.0</version><version/>"
        "<version>null</version><version>../x</version><version>1:0</version><version>1 0</version>"
        "<version>9/8</version></versions>"
        "<lastUpdated>20240102.030405</lastUpdated></versioning>"
        "<plugins><plugin><prefix>p</prefix></plugin><plugin><artifactId>a</artifactId></plugin>"
        "<plugin><prefix>null</prefix><artifactId>b</artifactId></plugin>"
        "<plugin><name>null</name><prefix>p</prefix><artifactId>a</artifactId></plugin></plugins>"
        "<groupId>null</groupId></metadata>"
    )
    found = parsed(RELEASES, body)
    assert [entry.name for entry in found.entries] == ["2.0", "1.0"]
    assert found.changed_at == AT.replace(microsecond=0) and found.metadata == {"plugins": [["p", "a", "a"]]}


@pytest.mark.parametrize(
    "told", ["", "0", "20240102", "20241302030405", "2024010203040\u0665", "x" * 14, "202401020304056"]
)
def test_maven_m4_moments_that_are_none(told: str) -> None:
    inner = f"<versions><version>1</version></versions><lastUpdated>{told}</lastUpdated>"
    found = parsed(RELEASES, f"<metadata><versioning>{inner}</versioning></metadata>")
    assert len(found.entries) == 1 and found.changed_at is None


def test_maven_s2_m2_snapshots_of_others() -> None:
    build = "20240101.010101-1"
    demo = Coordinates(version="1.0-SNAPSHOT")
    kinds = [("", "jar"), ("", "pom"), ("tests", "jar"), ("", "jar")]
    found = parsed(version_ref(), samples.snapshot_metadata(demo, build, kinds))
    assert [file.path for file in found.entries[0].files] == [
        f"1.0-SNAPSHOT/demo-1.0-{build}{tail}" for tail in (".jar", ".pom", "-tests.jar")
    ]
    foreign = samples.snapshot_metadata(Coordinates(version="2.0-SNAPSHOT"), build)
    assert parsed(version_ref(), foreign).entries[0].files == ()


def test_maven_x3_m7_kinds_of_files_that_make_no_sense_are_left_out() -> None:
    kinds = [("null", "jar"), ("a/b", "jar"), ("", "null"), ("x", "../y"), ("tests", "jar")]
    demo = Coordinates(version="1.0-SNAPSHOT")
    found = parsed(version_ref(), samples.snapshot_metadata(demo, BUILDS[0], kinds))
    assert [file.path.partition(BUILDS[0])[2] for file in found.entries[0].files] == [".jar", "-tests.jar"]


@pytest.mark.parametrize(
    ("told", "is_ours"),
    [
        ("", True),
        ("<groupId>org.example</groupId>", True),
        ("<artifactId>demo</artifactId>", True),
        ("<groupId>null</groupId><artifactId>null</artifactId>", True),
        ("<groupId>org.example.demo</groupId>", True),  # of the group that the folder is, too
        ("<groupId>org.example.demo</groupId><artifactId>demo</artifactId>", False),
        ("<groupId>org.example</groupId><artifactId>other</artifactId>", False),
        ("<groupId>org</groupId>", False),
    ],
)
def test_maven_x3_metadata_of_another_artifact_are_not_those_of_this(told: str, is_ours: bool) -> None:
    body = f"<metadata>{told}<versioning><versions><version>1</version></versions></versioning></metadata>"
    if is_ours:
        assert len(parsed(RELEASES, body).entries) == 1
        return
    for ref in (RELEASES, version_ref()):
        with pytest.raises(ContentInvalid) as refused:
            parsed(ref, body)
        assert refused.value.detail["reason"] == ELSEWHERE


@pytest.mark.parametrize(
    ("inner", "build"),
    [
        (
            "<snapshot><timestamp>20240101.010101</timestamp><buildNumber>3</buildNumber></snapshot>",
            "20240101.010101-3",
        ),
        ("<snapshot><localCopy>true</localCopy></snapshot>", ""),
        ("<snapshot><timestamp>x</timestamp><buildNumber>../3</buildNumber></snapshot>", ""),
        ("<snapshotVersions/>", ""),
    ],
)
def test_maven_s2_the_older_form(inner: str, build: str) -> None:
    found = parsed(version_ref(), f"<metadata><versioning>{inner}</versioning></metadata>")
    assert found.metadata == {"build": build} and found.entries[0].files == ()
    root = read(version_ref(), found)
    number = root.findtext("versioning/snapshot/buildNumber")
    assert number == (build.rpartition("-")[2] or None)
    assert (root.findtext("versioning/snapshot/localCopy") == "true") is (not build)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not found",
        b"<html><body>Sign in</body></html>",
        b"<metadata>",
        b"<!DOCTYPE metadata [<!ENTITY a 'b'>]><metadata>&a;</metadata>",
        b"<project/>",
        b"\x1f\x8b\x08",
        b"<metadata>" + b" " * METADATA_BYTES + b"</metadata>",
    ],
    ids=["nothing", "text", "page", "cut", "entities", "pom", "packed", "large"],
)
@pytest.mark.parametrize("ref", [RELEASES, version_ref()])
def test_maven_x1_e23_b8_what_is_no_metadata(ref: ListingRef, body: bytes) -> None:
    with pytest.raises(ContentInvalid):
        parsed(ref, body)
