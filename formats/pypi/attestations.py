"""Attestations that come with an upload, and the provenance object that is served. PEP 740.

They are checked to be about this file, and kept. Whether their signatures hold is not found out here, and the provenance
object does not claim it: who relies on them verifies them, against the Sigstore trust root of their choice.
"""

from __future__ import annotations

import json

from repoman.core import strictjson
from repoman.core.errors import ContentInvalid

MEDIA_TYPE = "application/vnd.pypi.integrity.v1+json"
ATTESTATIONS_MOST = 2  # one per predicate type
_STATEMENT_TYPES = frozenset({"https://in-toto.io/Statement/v1"})


def provenance_of(text: str, *, filename: str, sha256: str) -> bytes:
    """The provenance object for the attestations in `text`, a JSON list. Raises ContentInvalid."""
    given = strictjson.load(text.encode())
    if not isinstance(given, list) or not 0 < len(given) <= ATTESTATIONS_MOST:
        raise ContentInvalid(f"'attestations' must be a list of one to {ATTESTATIONS_MOST} attestations")
    # The library brings all of Sigstore with it: only those pay for it who send attestations.
    from pydantic import ValidationError
    from pypi_attestations import Attestation, AttestationType

    kinds = {kind.value for kind in AttestationType}
    seen: set[str] = set()
    for item in given:
        try:
            attestation = Attestation.model_validate(item)
        except ValidationError as error:
            raise ContentInvalid(f"an attestation cannot be read: {error.errors()[0]['msg']}") from None
        kind = _check_statement(attestation.envelope.statement, filename, sha256)
        if kind not in kinds:
            raise ContentInvalid(f"attestations of the type '{kind[:100]}' are not known here")
        if kind in seen:
            raise ContentInvalid("there are two attestations of one type")
        seen.add(kind)
    bundle = {"publisher": {"kind": "unverified", "claims": None}, "attestations": given}
    found = {"version": 1, "attestation_bundles": [bundle]}
    return json.dumps(found, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode()


def _check_statement(document: bytes, filename: str, sha256: str) -> str:
    """The predicate type of an in-toto statement about exactly this file."""
    statement = strictjson.load(document)
    if not isinstance(statement, dict) or statement.get("_type") not in _STATEMENT_TYPES:
        raise ContentInvalid("an attestation is not about an in-toto statement")
    subjects = statement.get("subject")
    if not isinstance(subjects, list) or len(subjects) != 1 or not isinstance(subjects[0], dict):
        raise ContentInvalid("an attestation must have exactly one subject")
    digest = subjects[0].get("digest")
    if subjects[0].get("name") != filename:
        raise ContentInvalid(f"an attestation is not about {filename}")
    if not isinstance(digest, dict) or digest.get("sha256") != sha256:
        raise ContentInvalid("an attestation is about other content than this file's")
    kind = statement.get("predicateType")
    return kind if isinstance(kind, str) else ""
