"""When a version that is uploaded file by file can be shown, and which builds of a snapshot are outdated by newer ones.

A listed version whose files are still on their way makes clients remember that they are missing. So a version is shown when
its publisher says that it is whole (by uploading metadata that names it), or when its POM and what that POM is about are
there: publishers that never send metadata are seen all the same, at once (G3, U8, U9). Files can be read from the first.
"""

from __future__ import annotations

from collections.abc import Mapping

from repoman.core.errors import ContentInvalid
from repoman.core.records import Gather, Gathered, NewVersion

from .names import Part, part_of, split_checksum
from .versions import is_snapshot

EXPECTED = "expected"  # the key of a checksum that came before its file
Files = Mapping[str, Mapping[str, object]]


def complete(package: str, gather: Gather, files: Files, keep_builds: int) -> Gathered:
    check_sums(files)
    artifact = package.partition(":")[2]
    parts: dict[str, Part] = {}
    for path in files:
        plain, _ = split_checksum(path)
        part = part_of(artifact, gather.version, plain.partition("/")[2])
        if part is not None:
            parts[path] = part
    builds: dict[str, list[str]] = {}
    for path, part in parts.items():
        builds.setdefault(part.build, []).append(path)
    shown = {build: paths for build, paths in builds.items() if gather.is_whole or _is_shown(paths, parts, files)}
    if not shown:
        return Gathered()
    beside = [path for path in files if path not in parts] if not is_snapshot(gather.version) else []
    named = [path for paths in shown.values() for path in paths]
    newest = max(shown, key=lambda build: Part("", "", build).build_order)
    outdated = _outdated(shown, parts, keep_builds) if keep_builds else []
    kept = [path for path in (*named, *beside) if path not in set(outdated)]
    version = NewVersion(gather.version, files=tuple(sorted(kept)), metadata=_about(shown[newest], parts, files))
    return Gathered(version, tuple(sorted(outdated)))


def check_sums(files: Files) -> None:
    """What was said of a file before it came must be true of it. Raises ContentInvalid."""
    for path, metadata in files.items():
        expected = metadata.get(EXPECTED)
        plain, algorithm = split_checksum(path)
        actual = files.get(plain, {}).get(algorithm)
        if expected is not None and actual is not None and expected != actual:
            raise ContentInvalid(
                f"'{plain}' has the {algorithm} {actual}, not {expected} as was uploaded with it; nothing was stored",
                expected=expected,
                actual=actual,
            )


def _is_shown(paths: list[str], parts: Mapping[str, Part], files: Files) -> bool:
    poms = [path for path in paths if parts[path].is_pom and not split_checksum(path)[1]]
    if not poms:
        return False
    mains = [path for path in paths if parts[path].is_main and not split_checksum(path)[1]]
    return bool(mains) or _packaging(files[poms[0]]) == "pom"


def _packaging(metadata: Mapping[str, object]) -> str:
    about = metadata.get("pom")
    return str(about.get("packaging", "")) if isinstance(about, Mapping) else ""


def _about(paths: list[str], parts: Mapping[str, Part], files: Files) -> dict[str, object]:
    """What the POM says, for the version."""
    for path in paths:
        about = files[path].get("pom")
        if parts[path].is_pom and isinstance(about, Mapping):
            return dict(about)
    return {}


def _outdated(builds: Mapping[str, list[str]], parts: Mapping[str, Part], keep: int) -> list[str]:
    """Files of all but the newest `keep` builds, unless nothing newer of their kind is there (S6)."""
    ordered = sorted(
        (build for build in builds if build), key=lambda build: Part("", "", build).build_order, reverse=True
    )
    kinds = {(parts[path].classifier, parts[path].extension) for build in ordered[:keep] for path in builds[build]}
    found: list[str] = []
    for build in ordered[keep:]:
        for path in builds[build]:
            kind = (parts[path].classifier, parts[path].extension)
            if kind in kinds:
                found.append(path)
        kinds |= {(parts[path].classifier, parts[path].extension) for path in builds[build]}
    return found
