"""Which plugins a group has and how they are called: the prefixes in its `maven-metadata.xml` (G2, U10).

A plugin's jar declares its prefix. That is kept for each version in what is kept of the package, and stays whatever becomes
of the version; the highest live version that declares one decides. So nothing is counted anew when versions go or come back.

What publishers say in a group's metadata is kept of the group, under a name that no artifact has: it may come before the
artifacts, and must not make names of what somebody only speaks of. It is shown of artifacts that are here, unless a jar of
theirs declares that prefix in any version: clients send back what they have read here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from repoman.core.records import Entry, Listing

from .versions import in_order

PACKAGING = "maven-plugin"
TOLD_MOST = 500  # of one group
_DECLARED = "plugin "  # before the version, as a key of what is kept of a package


@dataclass(frozen=True, slots=True)
class Plugin:
    prefix: str
    artifact: str
    name: str


def declared(version: str, facts: Mapping[str, object]) -> dict[str, object]:
    """What to keep of the package of a version's jar."""
    return {f"{_DECLARED}{version}": dict(facts)}


def told(plugins: Iterable[Plugin], known: Mapping[str, object]) -> dict[str, object]:
    """What to keep of a group that is said to have these, besides what is known of it."""
    found: dict[str, object] = {}
    for plugin in plugins:
        key = f"{plugin.artifact}:{plugin.prefix}"
        if known.get(key) != plugin.name and (key in known or len(known) + len(found) < TOLD_MOST):
            found[key] = plugin.name
    return found


def describe(found: Listing) -> Listing:
    """Packages of a group with how they are called as plugins (`plugins`: prefix and name of each)."""
    said: dict[str, list[tuple[str, str]]] = {}
    for key, name in found.metadata.items():
        artifact, _, prefix = key.partition(":")
        said.setdefault(artifact, []).append((prefix, str(name)))
    return replace(found, entries=tuple(_described(entry, said) for entry in found.entries))


def _described(entry: Entry, said: Mapping[str, list[tuple[str, str]]]) -> Entry:
    kept, live = entry.metadata.get("kept"), entry.metadata.get("versions")
    by_version: dict[str, tuple[str, str]] = {}
    for key, about in kept.items() if isinstance(kept, Mapping) else ():
        if key.startswith(_DECLARED) and isinstance(about, Mapping):
            by_version[key.removeprefix(_DECLARED)] = (str(about["prefix"]), str(about["name"]))
    shown = in_order([version for version in (live if isinstance(live, list | tuple) else ()) if version in by_version])
    plugins = [by_version[shown[-1]]] if shown else []
    ours = {prefix for prefix, _ in by_version.values()}
    plugins += [one for one in said.get(entry.name.partition(":")[2], ()) if one[0] not in ours]
    return replace(entry, metadata={"plugins": plugins} if plugins else {})


def plugins_of(releases: Listing | None, group: Listing | None) -> list[Plugin]:
    """Of both documents; what is here before what upstreams say, which neither adds to an artifact that is here nor takes a
    prefix. Clients take the first with the prefix that they look for."""
    ours: dict[tuple[str, str], Plugin] = {}
    for entry in group.entries if group is not None else ():
        artifact = entry.name.partition(":")[2]
        given = entry.metadata.get("plugins")
        for prefix, name in given if isinstance(given, list | tuple) else ():
            ours.setdefault((artifact, prefix), Plugin(prefix, artifact, name))
    artifacts, prefixes = {artifact for artifact, _ in ours}, {prefix for _, prefix in ours}
    theirs: dict[tuple[str, str], Plugin] = {}
    for plugin in read_plugins(releases.metadata) if releases is not None else ():
        if plugin.artifact not in artifacts and plugin.prefix not in prefixes:
            theirs.setdefault((plugin.artifact, plugin.prefix), plugin)
    return [found[key] for found in (ours, theirs) for key in sorted(found)]


def read_plugins(metadata: Mapping[str, object]) -> list[Plugin]:
    """As `parse` left them in a listing's metadata."""
    given = metadata.get("plugins")
    return [Plugin(*map(str, each)) for each in given] if isinstance(given, list | tuple) else []
