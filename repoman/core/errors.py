"""Every error the product raises on purpose, as one tree.

A service raises; one place per interface turns the error into an answer (`protocol/dispatch.py` through the format's
own `error()`, the REST API's exception handler, a command's exit). Nothing else compares statuses.

    RepomanError
    ├── BadRequest 400                what was sent cannot be understood
    │   ├── NameInvalid               a name, version, tag or path outside its grammar
    │   ├── DigestInvalid             a malformed digest, or bytes that do not have the digest they claim
    │   ├── SizeInvalid               declared and received lengths differ
    │   └── ContentInvalid            a document or package the format refuses
    ├── AuthenticationRequired 401    no credentials where some are needed
    │   └── CredentialsInvalid 401    credentials that are wrong, expired or revoked
    │       └── ScopeInsufficient 401 a registry token that was not issued for this
    ├── Forbidden 403                 known, may read, may not do this
    │   └── QuotaExceeded 403         the namespace would hold more than its limit
    ├── NotFound 404                  not there, or not to be told apart from it
    │   ├── RepositoryNotFound / PackageNotFound / VersionNotFound / FileNotFound / UploadNotFound
    ├── MethodNotAllowed 405          the format or repository type has no such act
    ├── Conflict 409                  other bytes are published there; a name is taken; a state forbids it
    ├── LengthRequired 411            an upload that does not say whether anything follows
    ├── PreconditionFailed 412        If-Match / If-None-Match said otherwise
    ├── TooLarge 413                  over a limit that is not the quota
    ├── ContentCodingUnsupported 415  an upload that is packed once more on its way
    ├── RangeInvalid 416              a chunk or range that does not fit
    ├── TooManyRequests 429           slowed down; carries retry_after_seconds
    ├── UpstreamFailed 502 / UpstreamTimeout 504
    ├── Unavailable 503               a dependency is down; carries retry_after_seconds
    └── StorageFull 507               the blob store has no room
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

# `reason` in the detail of a ContentInvalid: the document is about something else than its address.
ELSEWHERE = "elsewhere"


class RepomanError(Exception):
    """`message` is for people (what happened, to which object, what to do next); `detail` is plain JSON data."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"

    def __init__(self, message: str = "", **detail: object) -> None:
        super().__init__(message)
        self.message = message or (type(self).__doc__ or self.code).split("\n", 1)[0]
        self.detail: Mapping[str, object] = detail


class BadRequest(RepomanError):
    """The request cannot be understood."""

    status = 400
    code = "bad_request"


class NameInvalid(BadRequest):
    """The name is not well formed."""

    code = "name_invalid"


class DigestInvalid(BadRequest):
    """The digest is malformed, or the content does not have it."""

    code = "digest_invalid"


class SizeInvalid(BadRequest):
    """The length received is not the length declared."""

    code = "size_invalid"


class ContentInvalid(BadRequest):
    """The document or package is not valid. `errors` in detail may list several problems."""

    code = "content_invalid"


class ContentMissing(BadRequest):
    """The document names files this repository does not hold (`missing` in detail: a list of digests)."""

    code = "content_missing"


class AuthenticationRequired(RepomanError):
    """Sign in to do this."""

    status = 401
    code = "authentication_required"


class CredentialsInvalid(AuthenticationRequired):
    """The credentials are wrong, expired or revoked."""

    code = "credentials_invalid"


class ScopeInsufficient(CredentialsInvalid):
    """The registry token was not issued for this; ask for a new one."""

    code = "insufficient_scope"


class Forbidden(RepomanError):
    """You may not do this here."""

    status = 403
    code = "forbidden"


class QuotaExceeded(Forbidden):
    """The namespace's quota does not allow this. detail: namespace, used_bytes, quota_bytes, needed_bytes."""

    code = "quota_exceeded"


class NotFound(RepomanError):
    """There is nothing here."""

    status = 404
    code = "not_found"


class RepositoryNotFound(NotFound):
    """No such repository."""

    code = "repository_not_found"


class PackageNotFound(NotFound):
    """No such package in this repository."""

    code = "package_not_found"


class VersionNotFound(NotFound):
    """No such version or tag in this package."""

    code = "version_not_found"


class FileNotFound(NotFound):
    """No such file in this repository."""

    code = "file_not_found"


class UploadNotFound(NotFound):
    """No such upload session; it may have expired or been finished."""

    code = "upload_not_found"


class MethodNotAllowed(RepomanError):
    """This repository does not support that. detail may carry `allow`, a list of methods."""

    status = 405
    code = "method_not_allowed"


class Conflict(RepomanError):
    """It is in conflict with what is there."""

    status = 409
    code = "conflict"


class LengthRequired(RepomanError):
    """The upload has neither Content-Length nor chunks, and so no body: an empty file says Content-Length: 0."""

    status = 411
    code = "length_required"


class PreconditionFailed(RepomanError):
    """The condition of the request does not hold."""

    status = 412
    code = "precondition_failed"


class TooLarge(RepomanError):
    """It is larger than the limit."""

    status = 413
    code = "too_large"


class ContentCodingUnsupported(RepomanError):
    """Uploads are stored as they come: send the file itself, without Content-Encoding."""

    status = 415
    code = "content_coding_unsupported"


class RangeInvalid(RepomanError):
    """The range does not fit. detail: `size` for a file, or `offset` for an upload session."""

    status = 416
    code = "range_invalid"


class TooManyRequests(RepomanError):
    """Too many requests; wait before the next."""

    status = 429
    code = "too_many_requests"

    def __init__(self, message: str = "", *, retry_after_seconds: int = 5, **detail: object) -> None:
        super().__init__(message, **detail)
        self.retry_after_seconds = retry_after_seconds


class UpstreamFailed(RepomanError):
    """The upstream answered wrongly."""

    status = 502
    code = "upstream_failed"


class UpstreamTimeout(RepomanError):
    """The upstream did not answer in time."""

    status = 504
    code = "upstream_timeout"


class Unavailable(RepomanError):
    """A service this server depends on is not available; try again."""

    status = 503
    code = "unavailable"

    def __init__(self, message: str = "", *, retry_after_seconds: int = 5, **detail: object) -> None:
        super().__init__(message, **detail)
        self.retry_after_seconds = retry_after_seconds


class StorageFull(RepomanError):
    """The blob store has no room left; nothing was stored."""

    status = 507
    code = "storage_full"


def message_of(error: RepomanError) -> str:
    """The sentence for clients that show nothing else: a refused quota says in it how full the namespace is."""
    if isinstance(error, QuotaExceeded):
        used, limit = error.detail.get("used_bytes"), error.detail.get("quota_bytes")
        if used is not None and limit is not None and not (str(used) in error.message and str(limit) in error.message):
            return f"{error.message.rstrip('.')}: {used} of {limit} bytes are used"
    return error.message
