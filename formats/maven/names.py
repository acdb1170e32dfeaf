"""Addresses in a Maven repository, and what they say (Maven's "remote repository layout"; P1 to P11 of the contract).

A file lies at `<group, with slashes>/<artifact>/<version>/<artifact>-<version>[-classifier].<extension>`. The package is
`group:artifact`, the file's path in it `<version>/<file name>`. Whether a folder is a group, an artifact or both cannot be
seen from its name, so nothing here guesses: a file's name is read against the two folders above it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from repoman.core.errors import NameInvalid
from repoman.core.names import check_path
from repoman.core.refs import FileRef

from .versions import BUILD, SNAPSHOT, base_of, is_snapshot, takes_builds

METADATA = "maven-metadata.xml"
CHECKSUMS = ("md5", "sha1", "sha256", "sha512")
ALGORITHMS = ("md5", "sha1")  # those that clients ask for with every file; the others are computed when asked for
SIGNATURES = (".asc", ".sigstore", ".sigstore.json")
VERSION_LENGTH = 200
_SUMS = tuple(f".{algorithm}" for algorithm in CHECKSUMS)
_NAME = re.compile(r"[A-Za-z0-9_.-]+\Z")
_SEGMENT = re.compile(r"[A-Za-z0-9_-]+\Z")
_NOT_IN_VERSION = re.compile(r'[\\/:"<>|?*\s]')
_LONG_EXTENSION = re.compile(r"\.((?:tar|cpio)\.[^.]+|nk\.os)\Z")
_NO_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_ESCAPE = re.compile(rb"%[0-9A-Fa-f]{2}")
_BUILD_OF = re.compile(r"(?P<build>[0-9]{8}\.[0-9]{6}-[0-9]{1,9})(?P<rest>(?:[-.].*)?)\Z", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Part:
    """What a file's name says beyond artifact and version. `extension` includes what speaks of the file (`jar.asc`,
    `jar.sha512.asc`). `build`: of a snapshot under its own name, `yyyyMMdd.HHmmss-number`; "" otherwise."""

    classifier: str
    extension: str
    build: str = ""

    @property
    def is_pom(self) -> bool:
        return not self.classifier and self.extension == "pom"

    @property
    def is_main(self) -> bool:
        """Whether it is the artifact itself, instead of something about it or beside it."""
        return not self.classifier and not self.is_beside and self.extension not in ("", "pom", "module")

    @property
    def is_beside(self) -> bool:
        """Whether it only speaks of another file."""
        return self.extension.endswith((*SIGNATURES, *_SUMS))

    @property
    def subject(self) -> tuple[str, str]:
        """Classifier and extension of the file that it speaks of; of any other, its own."""
        return self.classifier, _peeled(self.extension)[0]

    @property
    def is_told(self) -> bool:
        """Whether clients look for it in a snapshot's metadata: not without an extension, and not as a checksum's
        signature."""
        return bool(self.extension) and not _peeled(self.extension)[1].startswith(_SUMS)

    @property
    def build_order(self) -> tuple[str, int]:
        return build_order(self.build)


@dataclass(frozen=True, slots=True)
class Place:
    """A file's place. `part` is None where its name does not begin with artifact and version: it is kept all the same."""

    group: str
    artifact: str
    version: str
    name: str
    part: Part | None

    @property
    def package(self) -> str:
        return f"{self.group}:{self.artifact}"

    @property
    def path(self) -> str:
        return f"{self.version}/{self.name}"

    @property
    def ref(self) -> FileRef:
        return FileRef(self.package, self.path)

    @property
    def is_moving(self) -> bool:
        """Whether other content may come under this name: a snapshot's that is not a build."""
        return takes_builds(self.version) and not (self.part is not None and self.part.build)


@dataclass(frozen=True, slots=True)
class MetadataPlace:
    """`maven-metadata.xml` in a folder. With `version`, of the builds of that snapshot; otherwise of whatever the folder is:
    an artifact's versions, a group's plugins, or both. With `beside`, its signature (`.asc`)."""

    folder: tuple[str, ...]
    version: str = ""
    beside: str = ""

    @property
    def package(self) -> str:
        """The artifact that the folder may be; of one name without a group `:name`."""
        return f"{'.'.join(self.folder[:-1])}:{self.folder[-1]}"

    @property
    def group(self) -> str:
        return ".".join(self.folder)


@dataclass(frozen=True, slots=True)
class ChecksumPlace:
    algorithm: str
    of: Place | MetadataPlace


@dataclass(frozen=True, slots=True)
class FolderPlace:
    """`segments` of a folder; none: the repository's root."""

    segments: tuple[str, ...]


Address = Place | MetadataPlace | ChecksumPlace | FolderPlace


def parse(path: str) -> Address:
    """What an address (decoded, without a leading slash) names. Raises NameInvalid for what cannot be in a repository."""
    if path == "" or path.endswith("/"):
        return FolderPlace(_checked(path[:-1]) if path else ())
    segments = _checked(path)
    plain, algorithm = split_checksum(segments[-1])
    if plain.startswith(METADATA) and _peeled(plain)[0] == METADATA:
        found: Place | MetadataPlace = _metadata(segments[:-1], plain.removeprefix(METADATA))
    elif len(segments) < 4:
        raise NameInvalid(f"'{path[:200]}' is no file of a Maven repository: they lie at group/artifact/version/file")
    else:
        found = _place(segments, plain)
    return ChecksumPlace(algorithm, found) if algorithm else found


def split_checksum(name: str) -> tuple[str, str]:
    """(the name of what a checksum is of, the algorithm); ("…", "") for what is no checksum."""
    plain, _, suffix = name.rpartition(".")
    return (plain, suffix) if suffix in CHECKSUMS and plain else (name, "")


def check_target(raw_path: bytes) -> None:
    """A percent sign stands for an escape, once (P11): raises NameInvalid for what is none, and for what would be one after
    another round of decoding."""
    if _NO_ESCAPE.search(raw_path):
        raise NameInvalid("the path contains a '%' that is no escape")
    if _ESCAPE.search(unquote_to_bytes(raw_path)):
        raise NameInvalid("the path is percent-encoded twice")


def is_beside(path: str, other: str) -> bool:
    """Whether `other` is a signature or a checksum of the file at `path`, or one of the other (P6)."""
    if not other.startswith(path):
        return False
    rest = other[len(path) :]
    return rest != "" and _peeled(rest) == ("", rest)


def _peeled(name: str) -> tuple[str, str]:
    """The name without what marks it as a signature or a checksum, at most two of them, in either order; and those."""
    rest = name
    for _ in range(2):
        suffix = next((suffix for suffix in (*_SUMS, *SIGNATURES) if rest.endswith(suffix)), "")
        rest = rest.removesuffix(suffix)
    return rest, name[len(rest) :]


def split_package(name: str) -> tuple[str, str]:
    """(group, artifact). Raises NameInvalid."""
    group, colon, artifact = name.partition(":")
    if not colon or not group:
        raise NameInvalid(f"'{name[:200]}' is no Maven package; they are named group:artifact")
    for segment in group.split("."):
        _check_segment(segment)
    _check_artifact(artifact)
    return group, artifact


def folder_of(package: str) -> str:
    """The folder that a package's files lie in, with a slash at its end."""
    group, _, artifact = package.partition(":")
    return f"{group.replace('.', '/')}/{artifact}/" if group else f"{artifact}/"


def part_of(artifact: str, version: str, name: str) -> Part | None:
    """What the name of a file in that version's folder says, or None where it does not begin as it should."""
    head = f"{artifact}-"
    if not name.startswith(head):
        return None
    rest = name[len(head) :]
    build = ""
    if takes_builds(version) and rest.startswith(version[: -len(SNAPSHOT)]):
        found = _BUILD_OF.match(rest[len(version) - len(SNAPSHOT) :])
        if found is not None:
            build, rest = found["build"], found["rest"]
    if not build:
        if not rest.startswith(version):
            return None
        rest = rest[len(version) :]
        if rest and rest[0] not in "-.":
            return None
    rest, beside = _peeled(rest)
    long = _LONG_EXTENSION.search(rest)
    if long is not None:
        stem, extension = rest[: long.start()], long[1]
    else:
        stem, _, extension = rest.rpartition(".") if "." in rest else (rest, "", "")
    return Part(stem.removeprefix("-"), f"{extension}{beside}".removeprefix("."), build)


def place_of(ref: FileRef) -> Place:
    """The place of a file of a package."""
    group, _, artifact = ref.package.partition(":")
    version, _, name = ref.path.partition("/")
    return Place(group, artifact, version, name, part_of(artifact, version, name))


def check_version(version: str) -> str:
    if not version or version in (".", "..") or len(version) > VERSION_LENGTH or not version.isascii():
        raise NameInvalid(f"'{version[:80]}' cannot be a version: 1 to {VERSION_LENGTH} ASCII characters")
    if _NOT_IN_VERSION.search(version) or not version.isprintable():
        raise NameInvalid(f"'{version[:80]}' cannot be a version: it has white space or one of \\ / : \" < > | ? *")
    return version


def is_version(version: str) -> bool:
    try:
        check_version(version)
    except NameInvalid:
        return False
    return True


def _checked(path: str) -> tuple[str, ...]:
    if "${" in path:
        raise NameInvalid(
            f"'{path[:200]}' contains a property that was not resolved; define it, or flatten the POM before deploying"
        )
    return tuple(check_path(path).split("/"))


def _place(segments: tuple[str, ...], plain: str) -> Place:
    group = segments[:-3]
    for segment in group:
        _check_segment(segment)
    artifact = _check_artifact(segments[-3])
    version = base_of(check_version(segments[-2]))
    return Place(".".join(group), artifact, version, plain, part_of(artifact, version, plain))


def _metadata(folder: tuple[str, ...], beside: str) -> MetadataPlace:
    if len(folder) >= 3 and is_snapshot(folder[-1]):
        for segment in folder[:-2]:
            _check_segment(segment)
        _check_artifact(folder[-2])
        return MetadataPlace(folder[:-1], base_of(check_version(folder[-1])), beside)
    if not folder:
        raise NameInvalid(f"there is no {METADATA} at the root of a repository")
    for segment in folder[:-1]:
        _check_segment(segment)
    _check_artifact(folder[-1])
    return MetadataPlace(folder, beside=beside)


def _check_segment(segment: str) -> str:
    if _SEGMENT.match(segment) is None:
        raise NameInvalid(f"'{segment[:80]}' cannot be a part of a groupId: ASCII letters, digits, '-' and '_'")
    return segment


def _check_artifact(artifact: str) -> str:
    if _NAME.match(artifact) is None or artifact in (".", ".."):
        raise NameInvalid(f"'{artifact[:80]}' cannot be an artifactId: ASCII letters, digits, '-', '_' and '.'")
    return artifact


def build_prefix(artifact: str, version: str, build: str) -> str:
    """How the paths of one build of a snapshot begin."""
    return f"{version}/{artifact}-{version[: -len(SNAPSHOT)]}{build}"


def build_order(build: str) -> tuple[str, int]:
    """The builds of a snapshot by it: oldest first, after what is under the plain name."""
    timestamp, _, number = build.partition("-")
    return timestamp, int(number or 0)


def is_build(value: str) -> bool:
    return BUILD.match(value) is not None
