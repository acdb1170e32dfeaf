"""Writing: publishing, and the whole documents that clients send back to change something (contract, sections 6 and 7).

A document that comes without attachments is never stored. It is read as what its sender wanted: these versions are
deprecated, those are gone. Whatever else differs in it, from an older read or another writer's, changes nothing.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar
from urllib.parse import quote

import orjson

from repoman.core import strictjson
from repoman.core.actor import Action
from repoman.core.errors import (
    BadRequest,
    Conflict,
    ContentInvalid,
    DigestInvalid,
    FileNotFound,
    Forbidden,
    NotFound,
    PackageNotFound,
    RepomanError,
    SizeInvalid,
)
from repoman.core.format import Repo
from repoman.core.records import Listing, NewFile, NewVersion, PackageState, Publication, Staged
from repoman.core.refs import FileRef, TagRef
from repoman.core.wire import BodyPlan, Document, DocumentBody, Head, Parts, PartsBody, Request, Response

from . import listing, names, package
from .publish import ATTACHMENT, DOCUMENT, DOCUMENT_BYTES, SIGSTORE, PublishParser
from .views import TARBALL_TYPE, answer, attestations_path, demand_versions

VALUE_BYTES = 64 * 1024
DEPRECATION_CHARACTERS = 4096
_PARTS_MOST = 8
_STATEMENT_TYPE = "application/vnd.in-toto+json"


class ProvenanceInvalid(RepomanError):
    """The provenance statement is not about this tarball."""

    status: ClassVar[int] = 422
    code: ClassVar[str] = "provenance_invalid"


# --- publishing ------------------------------------------------------------------------------------------------------


def admit_put(repo: Repo, head: Head, name: str) -> BodyPlan:
    names.check_name(name)
    _check_plain(head)
    return PartsBody(
        PublishParser(),
        max_fields_bytes=DOCUMENT_BYTES,
        max_parts=_PARTS_MOST,
        algorithms=("sha1", "sha512"),
    )


def admit_document(repo: Repo, head: Head, **captured: str) -> BodyPlan:
    _check_plain(head)
    return DocumentBody(DOCUMENT_BYTES)


def admit_value(repo: Repo, head: Head, **captured: str) -> BodyPlan:
    _check_plain(head)
    return DocumentBody(VALUE_BYTES)


def _check_plain(head: Head) -> None:
    if (head.headers.get("content-encoding") or "identity").strip().lower() not in ("identity", ""):
        raise BadRequest("send the document itself, without Content-Encoding")


def put(repo: Repo, request: Request, name: str) -> Response:
    """6: a version with its tarball; or 7.1: a document with changed notes."""
    if not isinstance(request.body, Parts):
        raise ContentInvalid("the request has no document")
    tarballs = [part.staged for part in request.body.all(ATTACHMENT) if part.staged is not None]
    try:
        fields = request.body.all(DOCUMENT)
        document = strictjson.load(fields[0].data if fields else b"")
        if not isinstance(document, dict):
            raise ContentInvalid("the document is not a JSON object")
        if not tarballs:
            return _change_notes(repo, name, document)
        if len(tarballs) > 1:
            raise ContentInvalid("the document has more than one tarball")
        publication, deprecated = _publication(repo, name, document, tarballs[0])
    except RepomanError:
        for staged in tarballs:
            repo.discard(staged)
        raise
    return _publish(repo, publication, deprecated)


def _publication(repo: Repo, name: str, document: Mapping[str, Any], staged: Staged) -> tuple[Publication, str]:
    """What the document publishes, and the note that it is deprecated from the start (or "").

    Raises ContentInvalid, DigestInvalid, SizeInvalid, NameInvalid, ProvenanceInvalid.
    """
    names.check_new_name(name)
    version, given = _only_version(name, document)
    path = names.tarball_name(name, version)
    _check_bytes(document, given, staged)
    facts = repo.inspect(path, staged)
    package.check_identity(name, version, facts)
    package.check_agreement(given, facts)
    tags = _tags(document, version)
    state = _state(repo, name)
    _refuse_other_build(repo, name, version, state)
    manifest = package.stored_manifest(given, facts, name=name, version=version, publisher=repo.actor.name)
    integrity = listing.integrity(staged.others["sha512"])
    keyid, signature = repo.sign(f"{name}@{version}:{integrity}".encode())
    metadata: dict[str, object] = {
        "shasum": staged.others["sha1"],
        "integrity": integrity,
        "fileCount": facts.metadata["fileCount"],
        "unpackedSize": facts.metadata["unpackedSize"],
        "signatures": [{"keyid": keyid, "sig": signature}],
    }
    files = []
    provenance = _provenance(document, name, version, staged)
    if provenance is not None:
        metadata["attestations"] = {"provenance": {"predicateType": provenance.predicate_type}}
        beside = repo.stage_bytes(provenance.document)
        files.append(NewFile(attestations_path(name, version), beside, media_type="application/json"))
    files.insert(0, NewFile(path, staged, media_type=TARBALL_TYPE, metadata=metadata))
    access = document.get("access")
    if access not in (None, "public", "restricted"):
        raise ContentInvalid("'access' is 'public' or 'restricted'")
    package_metadata: dict[str, object] = {} if access is None else {"access": access}
    if "+" in version:
        package_metadata["has_builds"] = True
    publication = Publication(
        package=name,
        files=tuple(files),
        version=NewVersion(version, files=tuple(file.path for file in files), metadata=manifest),
        tags=tags,
        # Only the first version becomes `latest` whatever its tag: nothing moves that tag by itself later (6.13, 6.14).
        default_tags=() if state is not None else (names.LATEST,),
        package_metadata=package_metadata or None,
        display_name=name,
    )
    return publication, _deprecation(given.get("deprecated"))


def _publish(repo: Repo, publication: Publication, deprecated: str) -> Response:
    """6.8, 6.9: a version that is there, or was, is refused in the words that release tools look for."""
    assert publication.version is not None
    name, version = publication.package, publication.version.version
    try:
        published = repo.publish(publication)
    except Conflict:
        raise Forbidden(f"You cannot publish over the previously published versions: {version}.") from None
    if published.created and deprecated:
        repo.annotate(name, {version: {"deprecated": deprecated}})
    body = {"ok": True, "success": True, "id": name, "rev": listing.revision_text(name, published.revision)}
    return answer(body, 201 if published.created else 200)


def _only_version(name: str, document: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """6.1, 6.5: the one version in the document, and its manifest."""
    for field in ("name", "_id"):
        if document.get(field, name) != name:
            raise ContentInvalid(f"'{field}' in the document is not the name in the address, '{name}'")
    versions = document.get("versions")
    if not isinstance(versions, dict) or len(versions) != 1:
        raise ContentInvalid("the document with a tarball has exactly one version")
    ((version, given),) = versions.items()
    names.check_version(version)
    if not isinstance(given, dict):
        raise ContentInvalid("the version's manifest is not a JSON object")
    if given.get("name", name) != name or given.get("version", version) != version:
        raise ContentInvalid("name and version in the manifest are not those of the document")
    if given.get("_id", f"{name}@{version}") != f"{name}@{version}":
        raise ContentInvalid("'_id' in the manifest is not that of this version")
    if given.get("private") is True:
        raise ContentInvalid("the manifest says that the package is private")
    return version, given


def _refuse_other_build(repo: Repo, name: str, version: str, state: PackageState | None) -> None:
    """2.8: versions that differ only in build metadata are the same. Raises Forbidden."""
    if state is None or not ("+" in version or state.metadata.get("has_builds")):
        return
    for entry in demand_versions(repo, name).entries:
        if entry.name != version and names.without_build(entry.name) == names.without_build(version):
            raise Forbidden(f"You cannot publish over the previously published versions: {entry.name}.")


def _tags(document: Mapping[str, Any], version: str) -> tuple[str, ...]:
    given = document.get("dist-tags", {names.LATEST: version})
    if not isinstance(given, dict) or len(given) > 1:
        raise ContentInvalid("the document with a tarball has one tag at most")
    for tag, target in given.items():
        names.check_tag(tag)
        if target != version:
            raise ContentInvalid(f"the tag '{tag}' is not on the version that is published")
    return tuple(given)


def _check_bytes(document: Mapping[str, Any], given: Mapping[str, Any], staged: Staged) -> None:
    """6.4: what the publisher says of the tarball is true. Raises SizeInvalid, DigestInvalid."""
    attachments = document.get("_attachments")
    for filename, attachment in attachments.items() if isinstance(attachments, dict) else ():
        if isinstance(attachment, dict) and not filename.endswith(SIGSTORE):
            length = attachment.get("length", staged.size)
            if length != staged.size or isinstance(length, bool):
                raise SizeInvalid(f"the attachment has {staged.size} bytes, not the {str(length)[:20]} of its 'length'")
    dist = given.get("dist", {})
    if not isinstance(dist, dict):
        raise ContentInvalid("'dist' in the manifest is not a JSON object")
    actual = {**staged.others, "sha256": staged.digest.hex}
    said = listing.digests_of(dist)
    if (dist.get("integrity") and not said.keys() - {"sha1"}) or (dist.get("shasum") and "sha1" not in said):
        raise DigestInvalid("'integrity' or 'shasum' in the manifest is malformed")
    for algorithm, digest in said.items():
        if actual.get(algorithm, digest) != digest:
            raise DigestInvalid(f"the tarball does not have the {algorithm} that the manifest gives for it")


def _state(repo: Repo, name: str) -> PackageState | None:
    try:
        return repo.package(name)
    except PackageNotFound:
        return None


# --- provenance ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Provenance:
    """`document` is what the attestations address serves."""

    predicate_type: str
    document: bytes


def _provenance(document: Mapping[str, Any], name: str, version: str, staged: Staged) -> Provenance | None:
    """6.3, 11.11, 11.12: the bundle beside the tarball, if there is one. It must be about these bytes; who signed it is

    for whoever installs to judge. Raises ProvenanceInvalid.
    """
    attachments = document.get("_attachments")
    found = [
        attachment
        for filename, attachment in (attachments.items() if isinstance(attachments, dict) else ())
        if filename.endswith(SIGSTORE)
    ]
    if not found:
        return None
    if len(found) > 1 or not isinstance(found[0], dict) or not isinstance(found[0].get("data"), str):
        raise ProvenanceInvalid("the document has no single provenance bundle")
    try:
        bundle = strictjson.load(found[0]["data"].encode())
        envelope = bundle["dsseEnvelope"]
        statement = strictjson.load(base64.b64decode(envelope["payload"], validate=True))
        subjects = statement["subject"]
        predicate_type = statement["predicateType"]
        if envelope.get("payloadType") != _STATEMENT_TYPE or not isinstance(predicate_type, str):
            raise ProvenanceInvalid("the provenance bundle is not an in-toto statement")
        ((subject, digest),) = [(item["name"], item["digest"]["sha512"]) for item in subjects]
    except (ContentInvalid, binascii.Error, LookupError, TypeError, ValueError, AttributeError):
        raise ProvenanceInvalid("the provenance bundle cannot be read") from None
    if subject != f"pkg:npm/{quote(name, safe='/')}@{version}":
        raise ProvenanceInvalid("the provenance statement is about another package or version")
    if digest != staged.others["sha512"]:
        raise ProvenanceInvalid("the provenance statement is about other bytes: its SHA-512 is not the tarball's")
    served = {"attestations": [{"predicateType": predicate_type, "bundle": bundle}]}
    return Provenance(predicate_type, orjson.dumps(served))


# --- documents that come back ----------------------------------------------------------------------------------------


def _change_notes(repo: Repo, name: str, document: Mapping[str, Any]) -> Response:
    """7.1: deprecations only. A version that says nothing of it counts as taken back only if its sender saw what holds."""
    _refuse_people(document)
    versions = document.get("versions")
    if not isinstance(versions, dict) or document.get("name", name) != name:
        raise ContentInvalid("the document has no versions")
    current = Listing(())
    if _state(repo, name) is not None or "_attachments" not in document:
        current = demand_versions(repo, name)
    if not any(entry.name in versions for entry in current.entries):
        raise ContentInvalid("the document has no tarball, and none of its versions is published")
    is_fresh = document.get("_rev") == listing.document_revision(name, current)
    changes: dict[str, dict[str, object]] = {}
    for entry in current.entries:
        manifest = versions.get(entry.name)
        if not isinstance(manifest, dict) or ("deprecated" not in manifest and not is_fresh):
            continue
        text = _deprecation(manifest.get("deprecated"))
        if text != entry.deprecated:
            changes[entry.name] = {"deprecated": text}
    if changes:
        repo.annotate(name, changes)
    return _done(repo, name)


def _deprecation(value: Any) -> str:
    if value is None or value is False:
        return ""
    text = "this version is deprecated" if value is True else value
    if not isinstance(text, str) or len(text) > DEPRECATION_CHARACTERS:
        raise ContentInvalid(f"'deprecated' is a text of up to {DEPRECATION_CHARACTERS} characters")
    return text


def put_revision(repo: Repo, request: Request, name: str, revision: str) -> Response:
    """7.2.1: the versions that are not in the document any more are removed, if it was made from what holds now."""
    names.check_name(name)
    assert isinstance(request.body, Document)
    document = strictjson.load(request.body.data)
    if not isinstance(document, dict):
        raise ContentInvalid("the document is not a JSON object")
    _refuse_people(document)
    versions = document.get("versions")
    if not isinstance(versions, dict):
        raise ContentInvalid("the document has no versions")
    state, current = _demand_revision(repo, name, revision)
    gone = [entry.name for entry in current.entries if entry.name not in versions]
    kept = [entry.name for entry in current.entries if entry.name in versions]
    if not gone:
        return _change_notes(repo, name, document)
    repo.remove_versions(name, gone, if_revision=state.revision)
    if kept and current.tags.get(names.LATEST) in gone and repo.may(Action.PUBLISH):
        # The tag is set again, so that a later publish under another tag does not take it (6.14).
        repo.set_tag(TagRef(name, names.LATEST), listing.effective_tags({}, kept)[names.LATEST])
    return _done(repo, name)


def delete_package(repo: Repo, request: Request, name: str, revision: str) -> Response:
    """7.2.4: every version at once."""
    names.check_name(name)
    state, current = _demand_revision(repo, name, revision)
    repo.remove_versions(name, [entry.name for entry in current.entries], if_revision=state.revision)
    return answer({"ok": True})


def delete_tarball(repo: Repo, request: Request, name: str, again: str | None, file: str, revision: str) -> Response:
    """7.2.3: the second half of an unpublish. The version took its file along already; that is success."""
    names.check_name(name)
    if again is not None and again != f"@{names.split(name)[0]}":
        raise FileNotFound(f"'{name}' has no such file")
    try:
        _demand_revision(repo, name, revision)
        repo.remove_file(FileRef(name, file))
    except NotFound:
        pass
    return answer({"ok": True})


def _refuse_people(document: Mapping[str, Any]) -> None:
    """7.2.5, 7.4: a document with people and without versions is about owners or stars, and never about versions."""
    if "versions" in document:
        return
    if "maintainers" in document:
        raise Forbidden("who may publish is managed as roles on the repository or its namespace, not as owners here")
    if "users" in document:
        raise NotFound("stars are not kept here")


def _demand_revision(repo: Repo, name: str, revision: str) -> tuple[PackageState, Listing]:
    """7.2.6: what holds now. The state is read first, so that a change in between is found when removing.

    Raises Conflict where the package has changed since the client read it.
    """
    state = repo.package(name)
    current = demand_versions(repo, name)
    if revision != listing.document_revision(name, current):
        raise Conflict(f"'{name}' has changed since you read it; read it again")
    return state, current


def _done(repo: Repo, name: str) -> Response:
    state = _state(repo, name)
    body: dict[str, object] = {"ok": True, "success": True, "id": name}
    if state is not None:
        body["rev"] = listing.revision_text(name, state.revision)
    return answer(body)


# --- tags and access -------------------------------------------------------------------------------------------------


def put_tag(repo: Repo, request: Request, name: str, tag: str) -> Response:
    """7.3.2: the body is a JSON string."""
    names.check_name(name)
    names.check_tag(tag)
    version = _value(request)
    if not isinstance(version, str):
        raise ContentInvalid("the body is the version as a JSON string")
    names.check_version(version)
    repo.set_tag(TagRef(name, tag), version)
    return answer({"ok": True, "id": name, "dist-tags": {tag: version}}, 201)


def delete_tag(repo: Repo, request: Request, name: str, tag: str) -> Response:
    """7.3.3: every package has a `latest`."""
    names.check_name(name)
    if tag == names.LATEST:
        raise Forbidden("the tag 'latest' can be moved but not removed")
    repo.remove_tag(TagRef(name, tag))
    return answer({"ok": True, "id": name})


def set_access(repo: Repo, request: Request, name: str) -> Response:
    """7.4.2: who may read is decided by the repository; a package cannot be made more public than that."""
    names.check_name(name)
    wanted = _value(request)
    repo.package(name)
    if not isinstance(wanted, dict):
        raise ContentInvalid("the body is a JSON object")
    if wanted.get("publish_requires_tfa") or wanted.get("automation_token_overrides_tfa"):
        raise Forbidden("two-factor authentication is not asked for when publishing here")
    access = wanted.get("access")
    if access is None:
        return answer({"ok": True})
    if access == "restricted" or (access == "public" and repo.is_anonymously_readable):
        repo.publish(Publication(name, package_metadata={"access": access}))
        return answer({"ok": True})
    raise Forbidden("whether packages are public is decided by the repository's anonymous access")


def _value(request: Request) -> Any:
    assert isinstance(request.body, Document)
    return strictjson.load(request.body.data)
