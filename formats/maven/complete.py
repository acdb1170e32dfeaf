"""When a version that is uploaded file by file can be shown, and which builds of a snapshot are outdated by newer ones.

A listed version whose files are still on their way makes clients remember that they are missing. So a version is shown when
its publisher says that it is whole (by uploading metadata that names it), or when its POM and what that POM is about are
there: publishers that never send metadata are seen all the same, at once (G3, U8, U9). Files can be read from the first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from repoman.core.records import Gather, Gathered, NewVersion

from .names import Part, build_order, part_of
from .versions import is_snapshot

Files = Mapping[str, Mapping[str, object]]


def complete(package: str, gather: Gather, files: Files, keep_builds: int, named: frozenset[str]) -> Gathered:
    """`named`: files of the version as it is shown already. What comes after them is shown with them."""
    artifact = package.partition(":")[2]
    parts: dict[str, Part] = {}
    for path in files:
        part = part_of(artifact, gather.version, path.partition("/")[2])
        if part is not None:
            parts[path] = part

    def is_shown(paths: list[str]) -> bool:
        return gather.is_whole or not named.isdisjoint(paths) or _is_whole(paths, parts, files)

    builds: dict[str, list[str]] = {}
    for path, part in parts.items():
        builds.setdefault(part.build, []).append(path)
    shown = {build: paths for build, paths in builds.items() if is_shown(paths)}
    if not shown:
        return Gathered()
    others = [path for path in files if path not in parts]
    beside = others if not is_snapshot(gather.version) else []
    newest = max(shown, key=build_order)
    older = _older(builds, shown, keep_builds) if keep_builds else []
    outdated = _outdated(older, shown, builds, parts)
    listed = dict.fromkeys(path for build in (*shown, *older) for path in builds[build])
    kept = [path for path in (*listed, *beside) if path not in outdated]
    version = NewVersion(gather.version, files=tuple(sorted(kept)), metadata=_about(shown[newest], parts, files))
    return Gathered(version, tuple(sorted(outdated)))


def _is_whole(paths: list[str], parts: Mapping[str, Part], files: Files) -> bool:
    poms = [path for path in paths if parts[path].is_pom]
    if not poms:
        return False
    mains = [path for path in paths if parts[path].is_main]
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


def _older(builds: Iterable[str], shown: Iterable[str], keep: int) -> list[str]:
    """The builds before the newest `keep` that are whole, newest first; also what is left of one, or never was whole."""
    kept = sorted(filter(None, shown), key=build_order, reverse=True)[:keep]
    if len(kept) < keep:
        return []
    oldest = build_order(kept[-1])
    return sorted((build for build in builds if build and build_order(build) < oldest), key=build_order, reverse=True)


def _outdated(
    older: Sequence[str], shown: Iterable[str], builds: Mapping[str, list[str]], parts: Mapping[str, Part]
) -> set[str]:
    """Files of the older builds, unless nothing newer of their kind is there (S6). What speaks of a file goes along (A2)."""

    def kinds_of(build: str) -> set[tuple[str, str]]:
        return {parts[path].subject for path in builds[build] if not parts[path].is_beside}

    kinds = {kind for build in shown if build and build not in older for kind in kinds_of(build)}
    found: set[str] = set()
    for build in older:
        found |= {path for path in builds[build] if parts[path].subject in kinds}
        kinds |= kinds_of(build)
    return found
