"""Bodies on their way into a sink, a buffer at a time, so that memory does not grow with what is sent.

A request holds at most two buffers: one that fills while the other is hashed and written in the storage pool. Buffers
are 256 KiB; a fast upload gets 2 MiB ones while the process has such to give. A client that sends a byte a second
holds what it sent and no thread.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from repoman.core.errors import BadRequest, RepomanError, SizeInvalid, TooLarge
from repoman.core.records import Staged, UploadState
from repoman.core.wire import Document, DocumentBody, Part, PartBegin, PartData, PartEvent, Parts, PartsBody

from .exchange import ClientGone, Exchange
from .pools import pools

SMALL_BUFFER = 256 * 1024
FULL_BUFFER = 2 * 1024 * 1024
FULL_BUFFERS = 16  # per process, all uploads together: 32 MiB


class Sink(Protocol):
    """Where a body goes (`blobs/store.py`, `services/upload.py`). One thread at a time; ends in finish or abandon."""

    def append(self, buffer: bytes | bytearray | memoryview) -> None: ...
    def finish(self) -> Staged | UploadState: ...
    def abandon(self, keep: bool = False) -> None: ...


_full_buffers = FULL_BUFFERS


async def read_document(exchange: Exchange, plan: DocumentBody) -> Document:
    """The whole body in memory. Raises TooLarge, as early as the length is known; SizeInvalid, ClientGone."""
    check_declared(exchange.length, plan.max_bytes)
    data = bytearray()
    if exchange.has_body:
        try:
            async for piece in exchange.pieces():
                if len(data) + len(piece) > plan.max_bytes:
                    raise _too_large(plan.max_bytes)
                data += piece
        except ClientGone:
            raise _short(exchange) from None
    return Document(bytes(data))


def check_declared(length: int | None, limit: int | None) -> None:
    if length is not None and limit is not None and length > limit:
        raise _too_large(limit)


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"the body is larger than {limit} bytes, the most that is taken here", limit=limit)


def _short(exchange: Exchange) -> SizeInvalid:
    declared = f" of {exchange.length}" if exchange.length is not None else ""
    return SizeInvalid(f"the body ended after {exchange.received}{declared} bytes", received=exchange.received)


class Opened:
    """A maker of sinks that has its one sink already: an upload session, whose lease was taken with the decision."""

    def __init__(self, sink: Sink) -> None:
        self.sink = sink

    def __call__(self) -> Sink:
        return self.sink


class Filling:
    """One sink as the edge drives it from the loop; its calls run in the storage pool, one after the other.

    `open_sink` is called in the pool with the first buffer. Whatever happens, cancellation included, the sink is ended:
    `close()` abandons it unless it was finished.
    """

    def __init__(self, open_sink: Callable[[], Sink]) -> None:
        self._open_sink: Callable[[], Sink] = open_sink
        self._sink: Sink | None = open_sink.sink if isinstance(open_sink, Opened) else None
        self._order = threading.Lock()  # an abandon waits for the append that a cancelled request left running
        self._ended = False

    def append(self, buffer: bytearray) -> asyncio.Future[None]:
        return pools().storage.run(self._append, buffer)

    def finish(self, buffer: bytearray) -> asyncio.Future[Staged | UploadState]:
        """Append the last buffer, if there is anything in it, and finish: one visit to the pool for a small body."""
        return pools().storage.run(self._finish, buffer)

    def close(self, *, keep: bool) -> None:
        """To be called once at the end, however it came. Does not wait."""
        if not self._ended:
            pools().storage.post(self._abandon, keep)

    async def closed(self, *, keep: bool) -> None:
        """As close(), but waits: what was kept can be asked for as soon as the answer arrives."""
        if not self._ended:
            await asyncio.shield(pools().storage.run(self._abandon, keep))

    def _append(self, buffer: bytearray) -> None:
        with self._order:
            if self._ended:
                return
            if self._sink is None:
                self._sink = self._open_sink()
            self._sink.append(buffer)

    def _finish(self, buffer: bytearray) -> Staged | UploadState:
        with self._order:
            if self._sink is None:
                self._sink = self._open_sink()
            if buffer:
                self._sink.append(buffer)
            found = self._sink.finish()
            self._ended = True
            return found

    def _abandon(self, keep: bool) -> None:
        with self._order:
            if self._ended:
                return
            self._ended = True
            if self._sink is not None:
                self._sink.abandon(keep)


async def fill(exchange: Exchange, open_sink: Callable[[], Sink], *, keep: bool) -> Staged | UploadState:
    """Stream the body into a sink. With `keep` (upload sessions) what came before the client left is kept.

    Raises what the sink raises, SizeInvalid where the body ended before its declared length.
    """
    filling = Filling(open_sink)
    try:
        try:
            buffer = bytearray()
            if exchange.has_body:
                buffer = await _pour(exchange, filling)
            return await filling.finish(buffer)
        except _Cut as cut:
            if keep and cut.rest:
                await filling.append(cut.rest)
            await filling.closed(keep=keep)
            raise _short(exchange) from None
        except RepomanError:
            await filling.closed(keep=False)
            raise
        except asyncio.CancelledError:
            filling.close(keep=keep)
            raise
    finally:
        filling.close(keep=False)


class _Cut(Exception):
    """The client left; `rest` had not been handed to the sink."""

    def __init__(self, rest: bytearray) -> None:
        super().__init__()
        self.rest = rest


async def _pour(exchange: Exchange, filling: Filling) -> bytearray:
    """Hand full buffers to the sink while the next one fills; returns the last, unfinished one."""
    global _full_buffers
    buffer = bytearray()
    limit = SMALL_BUFFER
    writing: asyncio.Future[None] | None = None
    borrowed = False
    try:
        try:
            async for piece in exchange.pieces():
                buffer += piece
                if len(buffer) < limit:
                    continue
                if writing is not None:
                    await writing
                    if not borrowed and _full_buffers >= 2:
                        _full_buffers -= 2
                        borrowed, limit = True, FULL_BUFFER
                writing = filling.append(buffer)
                buffer = bytearray()
        except ClientGone:
            if writing is not None:
                await writing
            raise _Cut(buffer) from None
        if writing is not None:
            await writing
        return buffer
    finally:
        if borrowed:
            _full_buffers += 2


class Form:
    """The parts of one body on their way: files into sinks, the rest into memory. Always ends in `close`."""

    def __init__(self, plan: PartsBody, open_sink: Callable[[], Sink]) -> None:
        self._plan = plan
        self._open_sink = open_sink
        self._parts: list[Part] = []
        self._held = 0  # bytes of fields
        self._begun: PartBegin | None = None
        self._buffer = bytearray()
        self._filling: Filling | None = None
        self._writing: asyncio.Future[None] | None = None

    async def take(self, events: Iterable[PartEvent]) -> None:
        for event in events:
            if isinstance(event, PartBegin):
                if len(self._parts) >= self._plan.max_parts:
                    raise TooLarge(f"the form has more than {self._plan.max_parts} parts")
                self._begun = event
                self._buffer = bytearray()
                self._filling = Filling(self._open_sink) if event.is_file else None
            elif isinstance(event, PartData):
                await self._data(event.data)
            else:
                await self._end()

    async def _data(self, data: bytes) -> None:
        if self._begun is None:
            raise BadRequest("the form is malformed")
        self._buffer += data
        if self._filling is None:
            self._held += len(data)
            if self._held > self._plan.max_fields_bytes:
                raise TooLarge(
                    f"the form's parts without a file's name are larger than {self._plan.max_fields_bytes} bytes; send what "
                    "is large as a file",
                    limit=self._plan.max_fields_bytes,
                )
        elif len(self._buffer) >= SMALL_BUFFER:
            if self._writing is not None:
                await self._writing
            self._writing = self._filling.append(self._buffer)
            self._buffer = bytearray()

    async def _end(self) -> None:
        begun, self._begun = self._begun, None
        if begun is None:
            raise BadRequest("the form is malformed")
        if self._filling is None:
            self._parts.append(Part(begun.name, begun.filename, begun.media_type, bytes(self._buffer)))
            return
        if self._writing is not None:
            await self._writing
            self._writing = None
        staged = await self._filling.finish(self._buffer)
        self._filling = None
        assert isinstance(staged, Staged)
        self._parts.append(Part(begun.name, begun.filename, begun.media_type, staged=staged))

    def finished(self) -> Parts:
        if self._begun is not None:
            raise BadRequest("the form ends in the middle of a part")
        parts, self._parts = tuple(self._parts), []
        return Parts(parts)

    def close(self) -> None:
        """Nothing that was not handed out by `finished` stays. Does not wait."""
        if self._filling is not None:
            self._filling.close(keep=False)
        for part in self._parts:
            if part.staged is not None:
                pools().storage.post(_discard, part.staged)


def _discard(staged: Staged) -> None:
    from repoman.blobs import store

    store.discard([staged.storage_key])


async def read_parts(exchange: Exchange, plan: PartsBody, open_sink: Callable[[], Sink]) -> Parts:
    """Cut the body into parts while it arrives. Raises what the parser and the sinks raise, TooLarge, SizeInvalid."""
    form = Form(plan, open_sink)
    try:
        try:
            if exchange.has_body:
                async for piece in exchange.pieces():
                    await form.take(plan.parser.feed(piece))
        except ClientGone:
            raise _short(exchange) from None
        await form.take(plan.parser.finish())
        return form.finished()
    finally:
        form.close()


def open_staged(plan: Any, remaining: int | None, refuse: Callable[[int], RepomanError]) -> Callable[[], Sink]:
    """A maker of sinks for a StagedBody or the files of a PartsBody: bounded by the plan's limit and, where that is less,
    by the quota."""
    from repoman.blobs import store

    limit, too_large = plan.limit, None
    if remaining is not None and (limit is None or remaining < limit):
        limit, too_large = remaining, refuse

    def open_sink() -> Sink:
        expect = getattr(plan, "expect", None)
        return store.open_sink(expect=expect, algorithms=plan.algorithms, limit=limit, too_large=too_large)

    return open_sink
