"""Tarballs and manifests: what a package says about itself, whether the publisher's manifest says the same, and what is

kept of both. What concerns an installation is always served as the tarball's own package.json has it: a packument that
disagrees with its tarball is a known attack and a known accident (npm/cli#5234; THREATS B10).
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from typing import Any, BinaryIO

import orjson

from repoman.core import strictjson, tarballs
from repoman.core.errors import ContentInvalid
from repoman.core.names import shown
from repoman.core.records import Facts

from .names import check_version, without_build

MANIFEST_BYTES = 1024 * 1024
README_CHARACTERS = 64 * 1024  # where the public registry cuts them
INSTALL_SCRIPTS = ("preinstall", "install", "postinstall")
_DEPENDENCIES = ("dependencies", "optionalDependencies", "peerDependencies", "devDependencies", "acceptDependencies")
# Always served as package.json in the tarball has them.
_ARCHIVED = (
    *_DEPENDENCIES,
    "peerDependenciesMeta",
    "bundleDependencies",
    "bin",
    "directories",
    "engines",
    "os",
    "cpu",
    "libc",
    "funding",
    "scripts",
)
# Set by the server, meant for the publisher's own machine, or not to be shown (contract 6.7).
_NOT_KEPT = frozenset(
    {
        *("dist", "deprecated", "private", "_attachments", "_rev", "_id", "_npmUser", "_resolved", "_from", "_where"),
        *("_integrity", "_args", "_shasum", "_shrinkwrap", "patchedDependencies", "packageExtensions"),
        *("bundledDependencies", "hasInstallScript", "_hasShrinkwrap", "maintainers"),
    }
)


def inspect(file: BinaryIO) -> Facts:
    """What a package's tarball says: exactly one top folder with a package.json in it. Raises ContentInvalid.

    `metadata`: `manifest` (package.json, normalized), `fileCount`, `unpackedSize`, `hasInstallScript`, `isBuiltByGyp`,
    `hasShrinkwrap`.
    """
    archive = tarballs.read(file, wanted=_is_manifest, wanted_bytes=MANIFEST_BYTES)
    if len(archive.roots) != 1 or any(name.startswith("./") for name in archive.names):
        raise ContentInvalid("a package has exactly one folder at the top of its tarball")
    if not archive.files:
        raise ContentInvalid("there is no package.json in the top folder of the tarball")
    if len(archive.files) > 1:
        raise ContentInvalid("the tarball has package.json twice, in different letter case")
    (path, data), *_ = archive.files.items()
    root = path.partition("/")[0]
    if path != f"{root}/package.json":
        raise ContentInvalid("there is no package.json in the top folder of the tarball")
    found = strictjson.load(data.removeprefix(b"\xef\xbb\xbf"))
    if not isinstance(found, dict):
        raise ContentInvalid("package.json is not a JSON object")
    name, version = found.get("name"), found.get("version")
    if not isinstance(name, str) or not isinstance(version, str) or len(version) > 512:
        raise ContentInvalid("package.json has no name or no version")
    if found.get("private") is True:
        raise ContentInvalid('package.json says that the package is private; remove "private": true to publish it')
    manifest = normalized(found)
    scripts = manifest.get("scripts", {})
    is_built_by_gyp = (
        f"{root}/binding.gyp" in archive.names
        and found.get("gypfile") is not False
        and not any(scripts.get(script) for script in ("install", "preinstall"))
    )
    return Facts(
        name=name,
        version=version,
        metadata={
            "manifest": manifest,
            "fileCount": archive.file_count,
            "unpackedSize": archive.file_bytes,
            "hasInstallScript": is_built_by_gyp or any(scripts.get(script) for script in INSTALL_SCRIPTS),
            "isBuiltByGyp": is_built_by_gyp,
            "hasShrinkwrap": f"{root}/npm-shrinkwrap.json" in archive.names,
        },
    )


def _is_manifest(path: str) -> bool:
    """In any letter case: on some file systems one would overwrite the other."""
    return path.count("/") == 1 and path.lower().endswith("/package.json")


# --- the forms in which clients write the same thing -----------------------------------------------------------------


def normalized(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest with the fields of an installation in one form each; what has no meaning there is left out."""
    found = {key: value for key, value in manifest.items() if key not in _ARCHIVED and key != "bundledDependencies"}
    for field in _DEPENDENCIES:
        if field in manifest and (dependencies := _dependencies(manifest[field])):
            found[field] = dependencies
    for field in ("peerDependenciesMeta", "directories", "engines"):
        if isinstance(manifest.get(field), dict):
            found[field] = manifest[field]
    for field in ("os", "cpu", "libc"):
        value = manifest.get(field)
        if isinstance(value, str):
            value = [value]
        if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
            found[field] = value
    if isinstance(manifest.get("funding"), dict | list | str):
        found["funding"] = manifest["funding"]
    scripts = manifest.get("scripts")
    if isinstance(scripts, dict):
        found["scripts"] = {key: value for key, value in scripts.items() if isinstance(value, str)}
    binaries = _binaries(manifest.get("bin"), str(manifest.get("name", "")))
    if binaries:
        found["bin"] = binaries
    bundled = manifest.get("bundleDependencies", manifest.get("bundledDependencies"))
    if bundled is True:
        bundled = list(found.get("dependencies", {}))
    elif isinstance(bundled, dict):
        bundled = list(bundled)
    if isinstance(bundled, list) and bundled and all(isinstance(item, str) for item in bundled):
        found["bundleDependencies"] = bundled
    return found


def _dependencies(value: Any) -> dict[str, str]:
    if isinstance(value, str):  # "a@1, b": npm has always split these (normalize-package-data, objectifyDep)
        value = [item for item in value.replace(",", " ").split() if item]
    if isinstance(value, list):
        pairs = [(item[0] + item[1:].partition("@")[0], item[1:].partition("@")[2]) for item in value if _is_text(item)]
        return dict(pairs)
    if not isinstance(value, dict):
        return {}
    return {name: spec for name, spec in value.items() if isinstance(spec, str)}


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _binaries(value: Any, package: str) -> dict[str, str]:
    """npm-normalize-package-bin: one path is named after the package; commands and paths stay inside it."""
    if isinstance(value, str):
        value = {package: value}
    elif isinstance(value, list):
        value = {item: item for item in value if isinstance(item, str)}
    if not isinstance(value, dict):
        return {}
    found = {}
    for command, path in value.items():
        if isinstance(path, str):
            name = posixpath.basename(command.replace("\\", "/"))
            inside = posixpath.normpath("/" + path.replace("\\", "/")).lstrip("/")
            if name and inside:
                found[name] = inside
    return found


# --- manifest against tarball ----------------------------------------------------------------------------------------


def check_agreement(given: Mapping[str, Any], facts: Facts) -> None:
    """Whether the publisher's manifest describes the tarball. Raises ContentInvalid naming the field (contract 6.5, 6.6).

    Clients change some things on the way (specs of git dependencies, the order of fields, `"bin": "x"`), so the two are
    compared in normal form, and specs only where both are plain ranges or tags.
    """
    archived: Mapping[str, Any] = facts.metadata["manifest"]  # type: ignore[assignment]
    manifest = normalized(given)
    _compare_dependencies(
        "dependencies",
        {**manifest.get("dependencies", {}), **manifest.get("optionalDependencies", {})},
        {**archived.get("dependencies", {}), **archived.get("optionalDependencies", {})},
    )
    for field in ("optionalDependencies", "peerDependencies"):
        _compare_dependencies(field, manifest.get(field, {}), archived.get(field, {}))
    scripts, own = dict(manifest.get("scripts", {})), archived.get("scripts", {})
    if facts.metadata["isBuiltByGyp"] and scripts.get("install") == "node-gyp rebuild":
        del scripts["install"]  # npm writes down what it will do
    for script in INSTALL_SCRIPTS:
        if scripts.get(script, "") != own.get(script, ""):
            _disagree(f"scripts.{script}")
    has_folder = _is_text(archived.get("directories", {}).get("bin"))  # whose files npm lists in `bin`
    if manifest.get("bin", {}) != archived.get("bin", {}) and not has_folder:
        _disagree("bin")


def _compare_dependencies(field: str, given: Mapping[str, str], archived: Mapping[str, str]) -> None:
    for name in given.keys() | archived.keys():
        if name not in given or name not in archived:
            _disagree(f"{field}.{name}")
        one, other = given[name].strip() or "*", archived[name].strip() or "*"
        if one != other and not any(character in one + other for character in ":/"):
            _disagree(f"{field}.{name}")


def _disagree(field: str) -> None:
    raise ContentInvalid(f"the manifest and the package.json in the tarball disagree about '{shown(field, 200)}'")


def check_identity(name: str, version: str, facts: Facts) -> None:
    """The tarball is of this package and version; npm leaves out build metadata and a leading `v`. Raises ContentInvalid."""
    if facts.name != name:
        raise ContentInvalid(f"the package.json in the tarball is of '{shown(facts.name, 214)}', not of '{name}'")
    own = facts.version.strip().lstrip("=v ")
    if own != version and without_build(own) != without_build(version):
        raise ContentInvalid(f"the package.json in the tarball is of version '{shown(own, 256)}', not of '{version}'")
    check_version(version)


def stored_manifest(
    given: Mapping[str, Any], facts: Facts, *, name: str, version: str, publisher: str
) -> dict[str, Any]:
    """What is kept of a version: every field of the publisher's manifest, with those of an installation as the tarball

    has them. Raises ContentInvalid where it is too large.
    """
    archived: Mapping[str, Any] = facts.metadata["manifest"]  # type: ignore[assignment]
    person = {"name": publisher, "email": ""}
    found = {key: value for key, value in given.items() if key not in _NOT_KEPT and key not in _ARCHIVED}
    found.update((key, archived[key]) for key in _ARCHIVED if key in archived)
    if "bin" not in archived and "directories" in archived and (binaries := _binaries(given.get("bin"), name)):
        found["bin"] = binaries
    if facts.metadata["isBuiltByGyp"]:
        found["scripts"] = {**found.get("scripts", {}), "install": "node-gyp rebuild"}
        found["gypfile"] = True
    if facts.metadata["hasInstallScript"]:
        found["hasInstallScript"] = True
    if facts.metadata["hasShrinkwrap"]:
        found["_hasShrinkwrap"] = True
    found.update({"name": name, "version": version, "_id": f"{name}@{version}", "_npmUser": person})
    found["maintainers"] = [person]
    readme = found.get("readme")
    if isinstance(readme, str):
        found["readme"] = readme[:README_CHARACTERS]
    if len(orjson.dumps(found)) > MANIFEST_BYTES:
        raise ContentInvalid(f"the manifest is larger than {MANIFEST_BYTES} bytes")
    return found
