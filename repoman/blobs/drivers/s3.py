"""Objects in a bucket of S3 or a server that speaks it (tested against versitygw 1.7).

A sink keeps at most one part in memory. What fits one part (8 MiB) is stored by a single conditional PUT under the key
asked for. Larger objects are multipart uploads, and those need their key before the first byte, when the digest that
names the object is not known: they live under `multipart/<2 hex>/<sink id>.data`, and commit() answers with that key.
(The alternative, a server-side copy to the right name, doubles the writing and is limited to 5 GiB a call.)

Nothing is acknowledged on the strength of one answer: every part carries its CRC-32 for the server to check, creation
is conditional (`If-None-Match: *`, where the server knows it), and after it a HEAD compares size, checksum and the
sink's own id in the metadata. That id also settles the retry of a write whose first answer was lost: "exists already,
and it is mine" is success.

Retries are botocore's standard mode: at most `ATTEMPTS` tries of a call, exponential with jitter, on 5xx, slow-down,
time-outs and resets. What still fails is StoreUnavailable.

A presigned address is for GET: a version 4 signature covers the method, so HEAD has to be answered by the server
itself.
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import functools
import json
import random
import re
import threading
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import quote

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from urllib3.exceptions import HTTPError

from repoman.core import clock
from repoman.core.hashing import Buffer

from .base import (
    MARKER,
    UPLOADS,
    BlobMissing,
    Capabilities,
    Committed,
    Driver,
    KeyTaken,
    Listed,
    Reader,
    Sink,
    SinkLost,
    Stat,
    StoreCorrupt,
    StoreError,
    StoreForeign,
    StoreFull,
    StoreReadOnly,
    StoreUnavailable,
    marker_content,
    require_key,
    require_marker,
    translated,
)

PART_BYTES = 8 * 1024 * 1024
PARTS_PER_SIZE = 2000  # then the parts double; all parts of one size suit servers that insist on it, up to 16 GiB
ATTEMPTS = 4
CONNECT_SECONDS = 5
READ_SECONDS = 30
MULTIPART = "multipart/"
_session_lock = threading.Lock()  # sessions are not for several threads at once; their clients are
_OBJECT_NAME = re.compile(r"multipart/[0-9a-f]{2}/([0-9a-f]{32})\.data\Z")
_TAIL_NAME = re.compile(r"uploads/([0-9a-f]{32})/[0-9a-f]{32}\Z")
_FULL = frozenset({"InsufficientStorage", "QuotaExceeded", "StorageFull", "XMinioStorageFull", "InsufficientCapacity"})
_MISSING = frozenset({"404", "NoSuchKey", "NotFound"})
_TAKEN = frozenset({"PreconditionFailed", "412"})
_UNCONDITIONAL = frozenset({"NotImplemented", "501"})


def part_size(number: int, first: int = PART_BYTES) -> int:
    """Bytes of part `number` (from 1) unless it is the last: 10,000 parts, S3's limit, hold 484 GiB at 8 MiB."""
    return first << ((number - 1) // PARTS_PER_SIZE)


class _Refused(StoreUnavailable):
    """An answer of S3 that a caller inside this module may know what to do with; outside it is StoreUnavailable."""

    def __init__(self, code: str, doing: str) -> None:
        super().__init__(f"The blob store failed ({doing}: {code}).")
        self.s3_code = code


def _failure(error: Exception, doing: str) -> StoreError:
    """Names the call and S3's code, never an address, a bucket or a key."""
    if isinstance(error, OSError):
        return translated(error, doing)
    if not isinstance(error, ClientError):
        return StoreUnavailable(f"The blob store failed ({doing}: {type(error).__name__}).")
    code = str(error.response.get("Error", {}).get("Code", "unknown"))
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    if code in _FULL or status == 507:
        return StoreFull(f"The blob store has no room left ({doing}: {code}).")
    if code == "NoSuchBucket":
        return StoreForeign("The blob store's bucket does not exist.")
    if code == "AccessDenied" and doing.startswith(("put", "create", "upload", "complete", "delete")):
        return StoreReadOnly(f"The blob store cannot be written to ({doing}: {code}).")
    return _Refused(code, doing)


def _base64(number: int) -> str:
    return base64.b64encode(number.to_bytes(4, "big")).decode()


@dataclass(frozen=True, slots=True)
class _Part:
    etag: str
    checksum: str  # CRC-32, big-endian, base64, as S3 writes it


@dataclass(frozen=True, slots=True)
class _Token:
    """Where a suspended sink stands. `tail`: name of the object that holds the bytes after the last whole part."""

    id: str
    upload: str | None
    parts: int
    tail: str | None
    tail_size: int
    tail_checksum: int
    previous_tail: str | None

    @classmethod
    def parse(cls, text: str) -> _Token:
        """Raises SinkLost."""
        try:
            fields = json.loads(text)
            token = cls(**fields)
            sound = (
                re.fullmatch(r"[0-9a-f]{32}", token.id) is not None
                and all(name is None or _TAIL_NAME.match(name) for name in (token.tail, token.previous_tail))
                and 0 <= token.parts <= 10_000
                and token.tail_size >= 0
            )
        except (ValueError, TypeError) as error:
            raise SinkLost("The upload's token is damaged.") from error
        if not sound:
            raise SinkLost("The upload's token is damaged.")
        return token

    def text(self) -> str:
        return json.dumps({name: getattr(self, name) for name in self.__slots__})


class S3Sink(Sink):
    def __init__(self, driver: S3Driver, identifier: str) -> None:
        self.size = 0
        self._driver = driver
        self._identifier = identifier
        self._key = f"{MULTIPART}{identifier[:2]}/{identifier}.data"
        self._upload: str | None = None
        self._parts: list[_Part] = []
        self._buffer = bytearray()
        self._tails: list[str] = []  # oldest first; removed when the sink ends for good
        self._state = "open"

    @classmethod
    def resumed(cls, driver: S3Driver, token: _Token) -> Self:
        sink = cls(driver, token.id)
        sink._upload = token.upload
        sink._tails = [name for name in (token.previous_tail, token.tail) if name is not None]
        if token.upload is not None:
            sink._parts[:] = driver.parts(sink._key, token.upload, token.parts)
            sink.size = sum(part_size(number, driver.part_bytes) for number in range(1, token.parts + 1))
        if token.tail is not None:
            content = driver.content(token.tail)
            if content is None or len(content) != token.tail_size or zlib.crc32(content) != token.tail_checksum:
                raise SinkLost()
            sink._buffer += content
            sink.size += len(content)
        if token.previous_tail is not None:  # this token was kept, so the one before it is not needed any more
            driver.drop(token.previous_tail)
            sink._tails.remove(token.previous_tail)
        return sink

    def append(self, data: Buffer) -> None:
        self._require_open()
        with memoryview(data) as view, view.cast("B") as rest, self._failing():
            offset = 0
            while offset < len(rest):
                room = part_size(len(self._parts) + 1, self._driver.part_bytes) - len(self._buffer)
                if room == 0:  # only now: an object of exactly one part is stored by a single PUT
                    self._upload_part()
                    continue
                self._buffer += rest[offset : offset + room]
                offset = min(offset + room, len(rest))
            self.size += len(rest)

    def suspend(self, *, durable: bool = True) -> str:
        self._require_open()
        with self._failing():
            tail = None
            if self._buffer or self._upload is None:
                tail = f"{UPLOADS}{self._identifier}/{clock.new_id()}"
                self._driver.put(tail, bytes(self._buffer), self._identifier, conditional=False)
            token = _Token(
                id=self._identifier,
                upload=self._upload,
                parts=len(self._parts),
                tail=tail,
                tail_size=len(self._buffer),
                tail_checksum=zlib.crc32(self._buffer),
                previous_tail=self._tails[-1] if self._tails else None,
            )
        self._end()
        return token.text()

    def commit(self, key: str) -> Committed:
        self._require_open()
        require_key(key)
        with self._failing():
            if self._upload is None:
                checksum = self._driver.put(key, bytes(self._buffer), self._identifier, conditional=True)
            else:
                key = self._key
                if self._buffer:
                    self._upload_part()
                self._driver.complete(key, self._upload, self._parts, self._identifier)
                whole = zlib.crc32(b"".join(base64.b64decode(part.checksum) for part in self._parts))
                checksum = f"{_base64(whole)}-{len(self._parts)}"
            stamp = self._driver.verify(key, self.size, checksum, self._identifier)
        self._end()
        for tail in self._tails:
            self._driver.drop(tail)
        return Committed(key, self.size, stamp)

    def abandon(self) -> None:
        if self._state == "ended":
            return
        self._end()
        if self._upload is not None:
            with contextlib.suppress(StoreError):  # what stays is removed by sweep()
                self._driver.call("abort_multipart_upload", Key=self._driver.full(self._key), UploadId=self._upload)
        for tail in self._tails:
            self._driver.drop(tail)

    def _upload_part(self) -> None:
        if self._upload is None:
            self._upload = self._driver.begin(self._key, self._identifier)
        checksum = _base64(zlib.crc32(self._buffer))
        answer = self._driver.call(
            "upload_part",
            Key=self._driver.full(self._key),
            UploadId=self._upload,
            PartNumber=len(self._parts) + 1,
            Body=bytes(self._buffer),
            ChecksumCRC32=checksum,
        )
        self._parts.append(_Part(str(answer.get("ETag", "")), checksum))
        self._buffer.clear()

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        self._state = "failed"  # until the block got to its end
        yield
        self._state = "open"

    def _require_open(self) -> None:
        if self._state != "open":
            raise RuntimeError("the sink has ended or failed")

    def _end(self) -> None:
        self._state = "ended"
        self._buffer = bytearray()


class S3Reader(Reader):
    """Reads that follow each other share one response; any other read asks for exactly its range."""

    def __init__(self, driver: S3Driver, key: str, size: int, stamp: str) -> None:
        self.size = size
        self.stamp = stamp
        self._driver = driver
        self._key = key
        self._lock = threading.Lock()
        self._stream: Any = None
        self._position = -1  # where the last read ended, and the stream stands
        self._end = -1  # where the stream ends

    def pread(self, offset: int, length: int) -> bytes:
        if offset < 0 or length < 0:
            raise ValueError("offset and length are not negative")
        wanted = min(length, max(self.size - offset, 0))
        if wanted == 0:
            return b""
        if not self._lock.acquire(blocking=False):  # another thread reads along the stream
            return self._read(offset, wanted, shared=False)
        try:
            return self._read(offset, wanted, shared=True)
        finally:
            self._lock.release()

    def close(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()

    def _read(self, offset: int, wanted: int, *, shared: bool) -> bytes:
        """`shared`: this thread holds the lock, so the stream is its to use."""
        pieces: list[bytes] = []
        failures = 0
        stream: Any = None
        end = self._end
        if shared and self._position == offset:
            stream, self._stream = self._stream, None
        while wanted:
            try:
                if stream is None:
                    end = self.size if shared and self._position == offset else offset + wanted
                    stream = self._request(offset, end)
                self._driver.failpoint("read")
                piece = bytes(stream.read(wanted))
                failure: StoreError = StoreUnavailable("The blob store keeps ending its answers early.")
            except (BotoCoreError, HTTPError, OSError) as error:
                piece = b""
                failure = _failure(error, "reading")
            if piece:
                pieces.append(piece)
                offset += len(piece)
                wanted -= len(piece)
                continue
            if stream is not None:  # cut: go on from here by a new range
                stream.close()
                stream = None
            failures += 1
            if failures >= ATTEMPTS:
                raise failure
            _pause(failures)
        if shared:
            self.close()
            self._position, self._end = offset, end
        if shared and offset < end:
            self._stream = stream
        else:
            stream.close()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _request(self, start: int, end: int) -> Any:
        try:
            answer = self._driver.call(
                "get_object", Key=self._driver.full(self._key), Range=f"bytes={start}-{end - 1}", IfMatch=self.stamp
            )
        except _Refused as error:
            if error.s3_code in _MISSING:
                raise BlobMissing() from error
            if error.s3_code in _TAKEN or error.s3_code == "InvalidRange":
                raise StoreCorrupt("The stored object is another one than when it was opened.") from error
            raise
        if answer.get("ContentRange") != f"bytes {start}-{end - 1}/{self.size}":
            whole = start == 0 and end == self.size and answer.get("ContentLength") == self.size
            if not whole:  # some servers answer 200 to a range over everything
                answer["Body"].close()
                raise StoreCorrupt("The blob store answered with another range than was asked for.")
        return answer["Body"]


@functools.cache
def _session() -> boto3.session.Session:
    """One for the process: it reads the description of S3 (0.2 s of processor time) for its first client only."""
    return boto3.session.Session()


class S3Driver(Driver):
    """What is left out comes from boto3's own configuration (`AWS_…` variables, `AWS_ENDPOINT_URL` among them,
    profiles, instance roles)."""

    capabilities = Capabilities(local_files=False, presigned=True)

    def __init__(
        self,
        bucket: str,
        prefix: str = "",
        *,
        endpoint_url: str | None = None,
        region_name: str | None = None,
        access_key: str | None = None,
        secret_key: str | None = None,
        security_token: str | None = None,
        addressing_style: str | None = None,
        verify: bool | str | None = None,
        part_bytes: int = PART_BYTES,
    ) -> None:
        """`part_bytes`: at least 5 MiB, by S3's own rule for all parts but the last."""
        self.part_bytes = part_bytes
        self._bucket = bucket
        self._prefix = prefix.strip("/") + "/" if prefix.strip("/") else ""
        self._settings = {
            "endpoint_url": endpoint_url,
            "region_name": region_name,
            "aws_access_key_id": access_key,
            "aws_secret_access_key": secret_key,
            "aws_session_token": security_token,
            "verify": verify,
        }
        self._addressing_style = addressing_style or "auto"
        self._lock = threading.Lock()
        self._made: Any = None
        self._instance_id: str | None = None
        self._recognised = False
        self._conditional = True

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Self:
        """From the OPTIONS of a django-storages S3 backend; options that mean nothing here are ignored."""
        names = ("region_name", "endpoint_url", "access_key", "secret_key", "security_token", "addressing_style")
        chosen = {name: options[name] for name in (*names, "verify") if options.get(name) is not None}
        return cls(str(options["bucket_name"]), str(options.get("location", "")), **chosen)

    def sink(self, resume: str | None = None) -> Sink:
        self._require_own_store()
        return S3Sink(self, clock.new_id()) if resume is None else S3Sink.resumed(self, _Token.parse(resume))

    def open(self, key: str) -> Reader:
        found = self._head(require_key(key))
        if found is None:  # a listing or a bucket may lag or be another's: never reported lost on one answer
            self._read_marker(self._instance_id)
            _pause(1)
            found = self._head(key)
        if found is None:
            raise BlobMissing()
        return S3Reader(self, key, int(found["ContentLength"]), str(found["ETag"]))

    def stat(self, key: str) -> Stat | None:
        found = self._head(require_key(key))
        if found is None:
            self._read_marker(self._instance_id)
            return None
        return Stat(int(found["ContentLength"]), str(found["ETag"]))

    def delete(self, key: str) -> None:
        require_key(key)
        self._require_own_store()
        try:
            self.call("delete_object", Key=self.full(key))
        except _Refused as error:
            if error.s3_code not in _MISSING:
                raise

    def list(self, prefix: str = "", after: str = "") -> Iterator[Listed]:
        self._require_own_store()
        return self._listed(prefix, after)

    def url(self, key: str, *, expires_seconds: int, media_type: str, filename: str = "") -> str | None:
        parameters = {
            "Bucket": self._bucket,
            "Key": self.full(require_key(key)),
            "ResponseContentType": media_type,
        }
        if filename:  # RFC 6266, with RFC 8187 for what is not plain ASCII
            plain = re.sub(r"[^A-Za-z0-9._ -]", "_", filename)
            parameters["ResponseContentDisposition"] = (
                f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(filename, safe='')}"
            )
        try:
            return str(self.client.generate_presigned_url("get_object", parameters, ExpiresIn=expires_seconds))
        except BotoCoreError as error:
            raise _failure(error, "signing") from error

    def sweep(self, older_than: float) -> int:
        """A suspended upload counts as touched when any of its parts or tails was written."""
        self._require_own_store()
        touched: dict[str, float] = {}
        tails: dict[str, list[str]] = {}
        for key, _, modified in self._objects(UPLOADS):
            identifier = key[len(UPLOADS) :].split("/")[0]
            tails.setdefault(identifier, []).append(key)
            touched[identifier] = max(touched.get(identifier, 0.0), modified)
        uploads: dict[str, list[tuple[str, str]]] = {}
        for key, upload, begun in self._multipart_uploads():
            identifier = key.rsplit("/", 1)[-1].removesuffix(".data")
            uploads.setdefault(identifier, []).append((key, upload))
            last = begun
            if begun < older_than:
                with contextlib.suppress(SinkLost):  # ended meanwhile
                    last = max([begun, *(modified for _, _, _, modified in self._list_parts(key, upload))])
            touched[identifier] = max(touched.get(identifier, 0.0), last)
        removed = 0
        for identifier, moment in touched.items():
            if moment >= older_than:
                continue
            for key, upload in uploads.get(identifier, []):
                try:
                    self.call("abort_multipart_upload", Key=self.full(key), UploadId=upload)
                except _Refused as error:
                    if error.s3_code != "NoSuchUpload":
                        raise
            for key in tails.get(identifier, []):
                self.call("delete_object", Key=self.full(key))
            removed += 1
        return removed

    def check(self, instance_id: str | None = None) -> None:
        expected = instance_id if instance_id is not None else self._instance_id
        self._read_marker(expected)
        probe = self.full(f"{UPLOADS}check/{clock.new_id()}")
        self.call("put_object", Key=probe, Body=b"check")
        self.call("delete_object", Key=probe)
        self._instance_id = expected

    def initialise(self, instance_id: str) -> None:
        if self.content(MARKER) is None:
            answer = self.call("list_objects_v2", Prefix=self._prefix, MaxKeys=1)
            if answer.get("Contents") and self.content(MARKER) is None:
                raise StoreForeign("The bucket (or its prefix) for the blob store has content but no marker.")
            with contextlib.suppress(KeyTaken):  # another process was faster; its marker is compared below
                self.put(MARKER, marker_content(instance_id), clock.new_id(), conditional=True)
        self.check(instance_id)

    # What follows is for the sinks and readers of this module.

    @property
    def client(self) -> Any:
        """Made at the first use, so after a server forked its workers. Clients of boto3 may be shared by threads."""
        if self._made is None:
            with self._lock:
                if self._made is None:
                    config = Config(
                        signature_version="s3v4",
                        retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
                        connect_timeout=CONNECT_SECONDS,
                        read_timeout=READ_SECONDS,
                        max_pool_connections=64,
                        s3={"addressing_style": self._addressing_style},
                        # checksums are computed and compared here, so that they are known on both sides
                        request_checksum_calculation="when_required",
                        response_checksum_validation="when_required",
                    )
                    try:
                        with _session_lock:
                            self._made = _session().client("s3", config=config, **self._settings)
                    except (BotoCoreError, ValueError) as error:
                        raise StoreUnavailable(f"The S3 client cannot be set up ({type(error).__name__}).") from error
        return self._made

    def full(self, key: str) -> str:
        return self._prefix + key

    def call(self, operation: str, **parameters: Any) -> dict[str, Any]:
        """The one door to S3. Raises StoreError only."""
        doing = operation.replace("_", "-")
        try:
            self.failpoint(doing)
            answer: dict[str, Any] = getattr(self.client, operation)(Bucket=self._bucket, **parameters)
        except (ClientError, BotoCoreError, HTTPError, OSError) as error:
            raise _failure(error, doing) from error
        return answer

    def put(self, key: str, content: bytes, identifier: str, *, conditional: bool) -> str:
        """Store a small object; gives its checksum. Raises KeyTaken when `conditional` and another's object is
        there."""
        checksum = _base64(zlib.crc32(content))
        parameters: dict[str, Any] = {
            "Key": self.full(key),
            "Body": content,
            "ChecksumCRC32": checksum,
            "Metadata": {"sink": identifier},
        }
        self._create("put_object", key, identifier, parameters, conditional=conditional)
        return checksum

    def begin(self, key: str, identifier: str) -> str:
        answer = self.call(
            "create_multipart_upload",
            Key=self.full(key),
            Metadata={"sink": identifier},
            ChecksumAlgorithm="CRC32",
        )
        return str(answer["UploadId"])

    def complete(self, key: str, upload: str, parts: Sequence[_Part], identifier: str) -> None:
        listed = [
            {"PartNumber": number, "ETag": part.etag, "ChecksumCRC32": part.checksum}
            for number, part in enumerate(parts, 1)
        ]
        parameters = {"Key": self.full(key), "UploadId": upload, "MultipartUpload": {"Parts": listed}}
        self._create("complete_multipart_upload", key, identifier, parameters, conditional=True)

    def verify(self, key: str, size: int, checksum: str, identifier: str) -> str:
        """The stamp of what is stored under `key`; raises StoreUnavailable unless it is what this sink wrote."""
        for attempt in range(1, ATTEMPTS + 1):
            found = self._head(key)
            if found is not None:
                break
            _pause(attempt)
        else:
            raise StoreUnavailable("The blob store accepted an object and does not have it.")
        stored = found.get("ChecksumCRC32")
        if (
            int(found["ContentLength"]) != size
            or (stored is not None and stored != checksum)
            or found.get("Metadata", {}).get("sink") != identifier
        ):
            self.drop(key)
            raise StoreUnavailable("The blob store accepted an object and has other bytes.")
        return str(found["ETag"])

    def parts(self, key: str, upload: str, count: int) -> Sequence[_Part]:
        """The first `count` parts of a multipart upload. Raises SinkLost where one is missing or of another size."""
        found: dict[int, _Part] = {}
        for number, part, size, _ in self._list_parts(key, upload):
            if number <= count and size == part_size(number, self.part_bytes):
                found[number] = part
        if len(found) != count:
            raise SinkLost()
        return [found[number] for number in range(1, count + 1)]

    def content(self, key: str) -> bytes | None:
        """All of a small object of the driver's own; None where it is missing."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                answer = self.call("get_object", Key=self.full(key))
                content = bytes(answer["Body"].read())
                if len(content) == answer["ContentLength"]:
                    return content
                failure: Exception = StoreUnavailable("The blob store keeps ending its answers early.")
            except _Refused as error:
                if error.s3_code in _MISSING:
                    return None
                raise
            except (BotoCoreError, HTTPError, OSError) as error:
                failure = _failure(error, "reading")
            _pause(attempt)
        raise failure

    def drop(self, key: str) -> None:
        """Remove what nobody needs; where that fails it is left to sweep() or the collector."""
        with contextlib.suppress(StoreError):
            self.call("delete_object", Key=self.full(key))

    def _create(
        self, operation: str, key: str, identifier: str, parameters: dict[str, Any], *, conditional: bool
    ) -> None:
        """A write that never replaces an object, on servers without conditions too (as far as looking first can)."""
        try:
            if conditional and self._conditional:
                self.call(operation, **parameters, IfNoneMatch="*")
            elif conditional and self._head(key) is not None:
                raise KeyTaken()
            else:
                self.call(operation, **parameters)
        except _Refused as error:
            if error.s3_code in _UNCONDITIONAL and conditional and self._conditional:
                self._conditional = False
                self._create(operation, key, identifier, parameters, conditional=True)
            elif error.s3_code in _TAKEN or error.s3_code == "NoSuchUpload":
                found = self._head(key)  # is it this very write, whose first answer was lost?
                if found is not None and found.get("Metadata", {}).get("sink") == identifier:
                    return
                raise (KeyTaken() if found is not None else SinkLost()) from error
            else:
                raise

    def _head(self, key: str) -> dict[str, Any] | None:
        try:
            return self.call("head_object", Key=self.full(key), ChecksumMode="ENABLED")
        except _Refused as error:
            if error.s3_code in _MISSING:
                return None
            raise

    def _require_own_store(self) -> None:
        if not self._recognised:
            self._read_marker(self._instance_id)

    def _read_marker(self, instance_id: str | None) -> None:
        self._recognised = False
        require_marker(self.content(MARKER), instance_id)
        self._recognised = True

    def _listed(self, prefix: str, after: str) -> Iterator[Listed]:
        for key, size, modified in self._objects(prefix, after):
            if key == MARKER or key.startswith(UPLOADS) or key.endswith("/") or "/" not in key:
                continue
            yield Listed(key, size, modified)

    def _objects(self, prefix: str, after: str = "") -> Iterator[tuple[str, int, float]]:
        parameters: dict[str, Any] = {"Prefix": self.full(prefix)}
        if after:
            parameters["StartAfter"] = self.full(after)
        while True:
            answer = self.call("list_objects_v2", **parameters)
            for entry in answer.get("Contents", []):
                yield entry["Key"][len(self._prefix) :], int(entry["Size"]), entry["LastModified"].timestamp()
            if not answer.get("IsTruncated"):
                return
            parameters["ContinuationToken"] = answer["NextContinuationToken"]

    def _multipart_uploads(self) -> Iterator[tuple[str, str, float]]:
        """(key, upload id, begun) of those under `multipart/`; whatever else shares the bucket is none of ours."""
        parameters: dict[str, Any] = {"Prefix": self.full(MULTIPART)}
        while True:
            answer = self.call("list_multipart_uploads", **parameters)
            for entry in answer.get("Uploads", []):
                key = entry["Key"][len(self._prefix) :]
                if _OBJECT_NAME.match(key):
                    yield key, entry["UploadId"], entry["Initiated"].timestamp()
            if not answer.get("IsTruncated"):
                return
            parameters["KeyMarker"] = answer["NextKeyMarker"]
            parameters["UploadIdMarker"] = answer["NextUploadIdMarker"]

    def _list_parts(self, key: str, upload: str) -> Iterator[tuple[int, _Part, int, float]]:
        """(number, part, bytes, modified). Raises SinkLost where the upload is gone."""
        parameters: dict[str, Any] = {"Key": self.full(key), "UploadId": upload}
        while True:
            try:
                answer = self.call("list_parts", **parameters)
            except _Refused as error:
                if error.s3_code == "NoSuchUpload":
                    raise SinkLost() from error
                raise
            for entry in answer.get("Parts", []):
                modified: datetime.datetime = entry["LastModified"]
                part = _Part(str(entry["ETag"]), str(entry.get("ChecksumCRC32", "")))
                yield int(entry["PartNumber"]), part, int(entry["Size"]), modified.timestamp()
            if not answer.get("IsTruncated"):
                return
            parameters["PartNumberMarker"] = answer["NextPartNumberMarker"]


def _pause(attempt: int) -> None:
    """Between tries: up to 0.1 s, 0.2 s, 0.4 s…, at random, so that many processes do not come back together."""
    time.sleep(random.uniform(0.02, 0.05 * 2**attempt))
