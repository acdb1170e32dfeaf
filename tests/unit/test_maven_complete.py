"""When a version is shown, which files it has then, and which builds are outdated (G3, S6, C8, U8, U9)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from formats.maven.complete import complete
from formats.maven.handler import Maven, MavenOptions
from formats.maven.listing import newest_files
from formats.maven.names import build_prefix, is_beside, part_of
from repoman.core.records import Gather, Gathered, ListedFile

PACKAGE = "org.example:demo"
BUILDS = ("20240101.010101-1", "20240102.020202-2", "20240103.030303-10")


def files_of(*names: str, version: str = "1.0", packaging: str = "jar") -> dict[str, dict[str, object]]:
    """Paths with their metadata; names are after `demo-`."""
    return {
        f"{version}/demo-{name}": {"pom": {"packaging": packaging}} if name.endswith(".pom") else {} for name in names
    }


def shown(
    files: Mapping[str, Mapping[str, object]], version: str = "1.0", *, is_whole: bool = False, keep: int = 0
) -> Gathered:
    return Maven().complete(PACKAGE, Gather(version, f"{version}/", is_whole), files, MavenOptions(keep_snapshots=keep))


def names(found: Gathered) -> list[str]:
    return [path.partition("/demo-")[2] or path for path in found.version.files] if found.version else []


@pytest.mark.parametrize(
    ("given", "packaging", "is_shown"),
    [
        (["1.0.jar"], "jar", False),
        (["1.0.pom"], "jar", False),
        (["1.0.pom"], "", False),  # a POM that could not be read
        (["1.0.pom"], "pom", True),
        (["1.0.pom", "1.0.jar"], "jar", True),
        (["1.0.pom", "1.0.jar"], "", True),
        (["1.0.pom", "1.0.aar"], "aar", True),
        (["1.0.pom", "1.0.tar.gz"], "pom", True),
        (["1.0.pom", "1.0-sources.jar"], "jar", False),
        (["1.0.pom", "1.0.jar.asc"], "jar", False),
        (["1.0.pom", "1.0.pom.asc", "1.0.module"], "jar", False),
        (["1.0.pom", "1.0"], "jar", False),
        (["1.0-build.pom", "1.0.jar"], "jar", False),  # Maven 4's original POM is not the POM
        (["1.0.pom.asc", "1.0.jar"], "jar", False),
        ([], "jar", False),
    ],
)
def test_maven_g3_e15_u8_u9_shown_with_the_pom_and_what_it_is_about(
    given: list[str], packaging: str, is_shown: bool
) -> None:
    found = shown(files_of(*given, packaging=packaging))
    assert (found.version is not None) == is_shown
    assert names(found) == (sorted(given) if is_shown else [])


def test_maven_g3_the_publisher_says_that_it_is_whole() -> None:
    assert names(shown(files_of("1.0-natives.jar"), is_whole=True)) == ["1.0-natives.jar"]
    assert shown({}, is_whole=True).version is None
    assert shown({"1.0/other.txt": {}}, is_whole=True).version is None


def test_maven_p7_other_files_belong_to_a_release_that_is_shown() -> None:
    files = {**files_of("1.0.pom", "1.0.jar"), "1.0/ivy.xml": {}, "1.0/sbt-short-1.0.jar": {}}
    found = shown(files)
    assert found.version is not None and set(found.version.files) == set(files)


def test_maven_the_version_says_what_its_pom_says() -> None:
    files = files_of("1.0.jar", "1.0.pom")
    files["1.0/demo-1.0.pom"] = {"pom": {"packaging": "jar", "name": "Demo"}}
    found = shown(files)
    assert found.version is not None and found.version.metadata == {"packaging": "jar", "name": "Demo"}


def test_maven_g3_what_comes_later_belongs_to_a_version_that_is_shown() -> None:
    store = Store()
    store.put("1.0/demo-1.0-linux.jar", {})
    store.put("1.0/demo-1.0.module", {})
    assert store.listed == {}
    store.say_whole("1.0")
    store.put("1.0/demo-1.0-windows.jar", {})
    store.put("1.0/ivy.xml", {})
    assert store.listed == {"1.0": set(store.files)} and len(store.files) == 4


# --- snapshots -------------------------------------------------------------------------------------------------------

SNAPSHOT = "1.0-SNAPSHOT"


def build_files(*given: tuple[str, str]) -> dict[str, dict[str, object]]:
    return files_of(*(f"1.0-{build}{tail}" for build, tail in given), version=SNAPSHOT)


def whole(*builds: str, more: Iterable[tuple[str, str]] = ()) -> dict[str, dict[str, object]]:
    return build_files(*((build, tail) for build in builds for tail in (".jar", ".pom")), *more)


def test_maven_s6_each_build_is_shown_for_itself() -> None:
    found = shown({**whole(BUILDS[0]), **build_files((BUILDS[1], ".jar"))}, SNAPSHOT)
    assert names(found) == [f"1.0-{BUILDS[0]}.jar", f"1.0-{BUILDS[0]}.pom"] and found.outdated == ()


def test_maven_s5_a_snapshot_under_its_plain_name() -> None:
    files = files_of("1.0-SNAPSHOT.jar", "1.0-SNAPSHOT.pom", version=SNAPSHOT)
    assert names(shown(files, SNAPSHOT, keep=1)) == ["1.0-SNAPSHOT.jar", "1.0-SNAPSHOT.pom"]


def test_maven_v6_s6_e26_old_builds_go_but_for_what_only_they_have() -> None:
    files = whole(*BUILDS, more=[(BUILDS[0], "-sources.jar"), (BUILDS[1], "-sources.jar"), (BUILDS[0], "-javadoc.jar")])
    found = shown(files, SNAPSHOT, keep=1)
    assert names(found) == sorted(
        [
            f"1.0-{BUILDS[0]}-javadoc.jar",
            f"1.0-{BUILDS[1]}-sources.jar",
            f"1.0-{BUILDS[2]}.jar",
            f"1.0-{BUILDS[2]}.pom",
        ]
    )
    assert set(found.outdated) | {f"{SNAPSHOT}/demo-{name}" for name in names(found)} == set(files)
    assert shown(files, SNAPSHOT, keep=3).outdated == () == shown(files, SNAPSHOT).outdated
    assert len(shown(files, SNAPSHOT, keep=2).outdated) == 3  # of the oldest the jar, the POM and the sources


def test_maven_a2_signatures_of_old_builds_go_with_their_files() -> None:
    beside = (".jar.asc", ".jar.sha512.asc", "-sources.jar.asc", "-sources.jar")
    files = whole(*BUILDS, more=[(BUILDS[0], tail) for tail in beside])
    found = shown(files, SNAPSHOT, keep=1)
    kept = {name.removeprefix(f"1.0-{BUILDS[0]}") for name in names(found) if BUILDS[0] in name}
    assert kept == {"-sources.jar", "-sources.jar.asc"}, "nothing newer has sources"
    only_signed = whole(BUILDS[0], more=[(BUILDS[0], ".jar.asc")]) | build_files(
        (BUILDS[1], ".zip"), (BUILDS[1], ".pom")
    )
    assert f"1.0-{BUILDS[0]}.jar.asc" in names(shown(only_signed, SNAPSHOT, keep=1))


def test_maven_s6_nothing_goes_before_the_newer_build_is_whole() -> None:
    files = {**whole(BUILDS[0]), **build_files((BUILDS[1], ".jar"))}
    assert shown(files, SNAPSHOT, keep=1).outdated == ()
    assert len(shown({**files, **whole(BUILDS[1])}, SNAPSHOT, keep=1).outdated) == 2


def test_maven_v6_s6_what_was_left_of_an_old_build_goes_when_a_newer_one_has_it() -> None:
    store = Store(keep=1)
    for files in (
        whole(BUILDS[0], more=[(BUILDS[0], "-sources.jar")]),
        whole(BUILDS[1]),
        whole(BUILDS[2], more=[(BUILDS[2], "-sources.jar")]),
    ):
        for path, metadata in files.items():
            store.put(path, metadata)
    assert set(store.files) == store.listed[SNAPSHOT] == set(whole(BUILDS[2], more=[(BUILDS[2], "-sources.jar")]))


def test_maven_s7_ten_is_newer_than_two_and_a_moment_counts_before_a_number() -> None:
    same = ("20240101.010101-2", "20240101.010101-10")
    assert set(shown(whole(*same), SNAPSHOT, keep=1).outdated) == set(whole(same[0]))
    early = ("20240101.010101-9", "20240102.010101-3")
    assert set(shown(whole(*early), SNAPSHOT, keep=1).outdated) == set(whole(early[0]))


# --- the order of uploads --------------------------------------------------------------------------------------------


@dataclass
class Store:
    """What the publish door keeps of a repository with one package, as it calls `complete`."""

    keep: int = 0
    files: dict[str, dict[str, object]] = field(default_factory=dict)
    listed: dict[str, set[str]] = field(default_factory=dict)

    def put(self, path: str, metadata: dict[str, object]) -> None:
        self.files[path] = metadata
        version = path.partition("/")[0]
        part = part_of("demo", version, path.partition("/")[2])
        is_one_build = part is not None and part.build and not self.keep
        self._gather(version, build_prefix("demo", version, part.build) if part and is_one_build else f"{version}/")

    def say_whole(self, version: str) -> None:
        self._gather(version, f"{version}/", is_whole=True)

    def _gather(self, version: str, under: str, is_whole: bool = False) -> None:
        found = complete(
            PACKAGE,
            Gather(version, under, is_whole),
            {path: metadata for path, metadata in self.files.items() if path.startswith(under)},
            self.keep,
            frozenset(self.listed.get(version, ())),
        )
        if found.version is not None:
            assert set(found.version.files) <= set(self.files)
            self.listed.setdefault(version, set()).update(found.version.files)
        for path in found.outdated:
            del self.files[path]
            self.listed.get(version, set()).discard(path)


TAILS = [".jar", ".pom", "-sources.jar", ".jar.asc", ".pom.asc", ".module"]


@settings(max_examples=200, deadline=None)
@given(st.permutations([f"1.0{tail}" for tail in TAILS] + ["WHOLE", "1.0/ivy.xml"]))
def test_maven_e20_g3_the_order_of_uploads_never_changes_what_is_shown_of_a_release(order: list[str]) -> None:
    store = Store()
    for name in order:
        if name == "WHOLE":
            store.say_whole("1.0")
        elif "/" in name:
            store.put(name, {})
        else:
            store.put(*next(iter(files_of(name).items())))
    assert store.listed == {"1.0": set(store.files)} and len(store.files) == len(TAILS) + 1


@settings(max_examples=300, deadline=None)
@given(
    st.permutations(
        [(build, tail) for build in BUILDS for tail in (".jar", ".pom", ".jar.asc")] + [(BUILDS[0], "-sources.jar")]
    ),
    st.sampled_from([0, 1, 2]),
)
def test_maven_s6_s9_the_order_of_uploads_never_changes_what_is_newest_of_a_snapshot(
    order: list[tuple[str, str]], keep: int
) -> None:
    store = Store(keep)
    for build, tail in order:
        store.put(*next(iter(build_files((build, tail)).items())))
        assert store.listed.get(SNAPSHOT, set()) <= set(store.files)
    newest = newest_files("demo", SNAPSHOT, [ListedFile(path) for path in sorted(store.listed[SNAPSHOT])])
    assert [file.path.partition("/demo-1.0-")[2] for _, file in newest] == [
        f"{BUILDS[2]}.jar",
        f"{BUILDS[2]}.jar.asc",
        f"{BUILDS[2]}.pom",
        f"{BUILDS[0]}-sources.jar",
    ]
    if keep == 0:
        assert len(store.listed[SNAPSHOT]) == len(order)


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ("1.0/demo-1.0.jar.asc", True),
        ("1.0/demo-1.0.jar.sigstore.json", True),
        ("1.0/demo-1.0.jar.sha1", True),
        ("1.0/demo-1.0.jar.asc.sha1", True),
        ("1.0/demo-1.0.jar.sha512.asc", True),
        ("1.0/demo-1.0.jar", False),
        ("1.0/demo-1.0.jar.gz", False),
        ("1.0/demo-1.0.jar.asc.md5.asc", False),
        ("1.0/demo-1.0.jarx.asc", False),
        ("1.0/demo-1.0.pom.asc", False),
    ],
)
def test_maven_a2_what_goes_with_a_file(other: str, expected: bool) -> None:
    assert is_beside("1.0/demo-1.0.jar", other) is expected
    assert Maven().is_beside("1.0/demo-1.0.jar", other) is expected


def test_maven_a2_a_name_that_begins_like_another_is_no_part_of_it() -> None:
    assert not is_beside("1.0/demo-1.0", "1.0/demo-1.0.jar") and not is_beside(
        "1.0/demo-1.0.tar", "1.0/demo-1.0.tar.gz"
    )
