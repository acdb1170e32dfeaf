"""Objects as files below one folder, durable when commit() returns.

A sink is a file in `uploads/` of the same store (so the rename can be atomic), locked while it is open. commit()
syncs the file, renames it without ever replacing another, and syncs the folder; folders that this process has not yet
seen durable are synced with their parents. An error of fsync means that the kernel may already have dropped the
pages: the file is discarded, fsync is never tried again.

Why there is no group commit here. Measured on ext4 over a virtio disk, two cores shared with other work; commits per
second with everything durable, median of 7 interleaved rounds (individual: each thread syncs its own file and folder;
syncfs: a leader calls syncfs before and after the renames of its batch; folders: each thread syncs its file, a leader
calls syncfs once for the folders of several):

    size    threads   individual   syncfs   folders
    4 KiB      1          748        686       837
    4 KiB      4          933       1053      1212
    4 KiB     16         1598       2257      1628
    1 MiB      1          311        312       310
    1 MiB      4          553        473       529
    1 MiB     16          727        607       627

The rounds spread far more than the columns differ (4 KiB, 16 threads: individual 649 to 3282, syncfs 606 to 3173), so
this shows no clear winner, only that grouping may gain something for many small files and lose it on larger ones. A
leader that fsyncs each file and folder of its batch in turn is clearly worse: in another run of 5 rounds, not interleaved
and so a rougher comparison, 252 against 1607 (4 KiB, 16 threads) and 184 against 358 (1 MiB).

What decides is the rest. The kernel already merges the journal commits of fsyncs that wait together, those of other
processes included, which a leader in one process cannot. syncfs waits for every dirty page of everybody on that
filesystem, and reports a failed write without saying whose. So each thread syncs for itself.

System calls per object of one append, as strace counts them: 12, namely stat (root), getrandom, openat, flock, write,
fsync, fstat, renameat2, openat (folder), fsync, close, close. Only the two fsyncs take noticeable time.

Large objects: writeback is started every 8 MiB while bytes arrive (`sync_file_range`, which does not wait), so the
final fsync finds little to do. Measured for 256 MiB in pieces of 1 MiB, medians of 5: commit() takes 13 ms, the whole
1.52 GB/s; `dd bs=1M conv=fsync`, which also reads its source from the page cache, 1.05 GB/s. A bare loop of writes in a
separate run spent 109 ms in the last fsync without the early writeback and 6 ms with it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import re
import stat as stat_module
from collections.abc import Iterator
from typing import Any

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
    SinkBusy,
    SinkLost,
    Stat,
    StoreCorrupt,
    StoreError,
    StoreForeign,
    StoreFull,
    StoreUnavailable,
    marker_content,
    require_key,
    require_marker,
    translated,
)

WRITEBACK_BYTES = 8 * 1024 * 1024
CHECK_BYTES = 4096
_TOKEN_ID = re.compile(r"[0-9a-f]{32}\Z")
_NOTHING_THERE = frozenset({errno.ENOENT, errno.ENOTDIR})
_SYNC_FILE_RANGE_WRITE = 2  # linux/fs.h: start writing, wait for nothing
_RENAME_NOREPLACE = 1  # linux/fs.h
_AT_FDCWD = -100  # linux/fcntl.h


def _libc_function(name: str, *argument_types: Any) -> Any:
    """A function of the C library that Python does not offer, or None where this system has none."""
    try:
        function = getattr(ctypes.CDLL(None, use_errno=True), name)
    except (OSError, AttributeError):
        return None
    function.argtypes = argument_types
    return function


_sync_file_range = _libc_function("sync_file_range", ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
_renameat2 = _libc_function("renameat2", ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)


def _rename_without_replacing(source: str, target: str) -> None:
    """Raises OSError; EEXIST where `target` exists."""
    if _renameat2 is not None:
        if _renameat2(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), _RENAME_NOREPLACE) == 0:
            return
        code = ctypes.get_errno()
        if code not in (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP):
            raise OSError(code, os.strerror(code), target)
    os.link(source, target)  # filesystems without the flag (NFS): the name appears whole here as well
    with contextlib.suppress(OSError):  # the second name in uploads/ is swept later
        os.unlink(source)


def _sync_directory(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class FilesystemSink(Sink):
    """A file in `uploads/`, locked while it is open."""

    def __init__(self, driver: FilesystemDriver, identifier: str, descriptor: int, size: int) -> None:
        self.size = size
        self._driver = driver
        self._identifier = identifier
        self._path = driver.upload_path(identifier)
        self._descriptor: int | None = descriptor
        self._failed = False
        self._written_back = size

    def append(self, data: Buffer) -> None:
        descriptor = self._require_open()
        with memoryview(data) as view, view.cast("B") as rest:
            offset = 0
            self._failed = True  # until all of it is written
            try:
                while offset < len(rest):
                    self._driver.failpoint("write")
                    offset += os.write(descriptor, rest[offset:] if offset else rest)
            except OSError as error:
                raise translated(error, "writing") from error
            self._failed = False
            self.size += offset
        if self.size - self._written_back >= WRITEBACK_BYTES:
            if _sync_file_range is not None:  # only a hint: an error in writing is reported by fsync
                _sync_file_range(descriptor, self._written_back, self.size - self._written_back, _SYNC_FILE_RANGE_WRITE)
            self._written_back = self.size

    def suspend(self, *, durable: bool = True) -> str:
        descriptor = self._require_open()
        if durable:
            self._sync(descriptor)
            try:
                self._driver.failpoint("fsync-directory")
                _sync_directory(os.path.dirname(self._path))
            except OSError as error:
                self._failed = True
                raise translated(error, "syncing the uploads folder") from error
        self._close()
        return json.dumps({"id": self._identifier, "size": self.size})

    def commit(self, key: str) -> Committed:
        descriptor = self._require_open()
        require_key(key)
        self._sync(descriptor)
        self._failed = True  # until it is done
        try:
            written = os.fstat(descriptor)
        except OSError as error:
            raise translated(error, "asking for the size") from error
        if written.st_size != self.size:
            raise StoreCorrupt("The blob store holds another number of bytes than were written.")
        self._driver.place(self._path, key)
        self._failed = False
        self._close()
        return Committed(key, self.size, str(written.st_mtime_ns))

    def grown(self) -> int | None:
        self._require_open()
        try:  # opened anew instead of duplicated: the lock belongs to the open file and has to end with the sink
            return os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError as error:
            raise translated(error, "opening a growing file") from error

    def abandon(self) -> None:
        if self._descriptor is None:
            return
        with contextlib.suppress(OSError):  # what stays is removed by sweep()
            os.unlink(self._path)
        self._close()

    def _sync(self, descriptor: int) -> None:
        self._failed = True  # until it succeeded; afterwards the pages may be gone, so there is no second try
        try:
            self._driver.failpoint("fsync")
            os.fsync(descriptor)
        except OSError as error:
            raise translated(error, "syncing") from error
        self._failed = False

    def _require_open(self) -> int:
        if self._descriptor is None or self._failed:
            raise RuntimeError("the sink has ended or failed")
        return self._descriptor

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with contextlib.suppress(OSError):  # everything that matters was synced before, or is being dropped
                os.close(descriptor)

    def __del__(self) -> None:
        self._close()


class FilesystemReader(Reader):
    def __init__(self, driver: FilesystemDriver, descriptor: int, size: int, stamp: str) -> None:
        self.size = size
        self.stamp = stamp
        self._driver = driver
        self._descriptor: int | None = descriptor

    def pread(self, offset: int, length: int) -> bytes:
        if self._descriptor is None:
            raise RuntimeError("the reader is closed")
        if offset < 0 or length < 0:
            raise ValueError("offset and length are not negative")
        wanted = min(length, max(self.size - offset, 0))
        pieces: list[bytes] = []
        while wanted:
            try:
                self._driver.failpoint("read")
                piece = os.pread(self._descriptor, wanted, offset)
            except OSError as error:
                raise StoreCorrupt(f"The stored bytes cannot be read ({os.strerror(error.errno or 0)}).") from error
            if not piece:
                raise StoreCorrupt("The stored object is shorter than it was when it was opened.")
            if len(piece) == wanted and not pieces:
                return piece
            pieces.append(piece)
            offset += len(piece)
            wanted -= len(piece)
        return b"".join(pieces)

    def fileno(self) -> int | None:
        return self._descriptor

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def __del__(self) -> None:
        self.close()


class FilesystemDriver(Driver):
    """`location`: the store's root. Files are readable by the group, so that a front proxy can send them."""

    capabilities = Capabilities(local_files=True, presigned=False)

    def __init__(
        self, location: str | os.PathLike[str], *, file_mode: int = 0o640, directory_mode: int = 0o750
    ) -> None:
        self.root = os.path.abspath(location)
        self._file_mode = file_mode
        self._directory_mode = directory_mode
        self._instance_id: str | None = None
        self._identity: tuple[int, int] | None = None  # device and inode of the root whose marker was read
        self._durable_directories: set[str] = set()

    def upload_path(self, identifier: str) -> str:
        return f"{self.root}/{UPLOADS}{identifier}"

    def sink(self, resume: str | None = None) -> Sink:
        self._require_own_store()
        if resume is not None:
            return self._resumed(resume)
        identifier = clock.new_id()
        path = self.upload_path(identifier)
        try:
            self.failpoint("create")
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, self._file_mode)
        except OSError as error:
            raise translated(error, "creating a file") from error
        sink = FilesystemSink(self, identifier, descriptor, 0)
        try:
            self._lock(descriptor)
        except StoreError:
            sink.abandon()
            raise
        return sink

    def open(self, key: str) -> Reader:
        path = f"{self.root}/{require_key(key)}"
        try:
            self.failpoint("open")
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError as error:
            if error.errno in _NOTHING_THERE:
                self._require_own_store()
                raise BlobMissing() from error
            raise StoreUnavailable(f"The blob store failed (opening: {os.strerror(error.errno or 0)}).") from error
        found = os.fstat(descriptor)
        return FilesystemReader(self, descriptor, found.st_size, str(found.st_mtime_ns))

    def stat(self, key: str) -> Stat | None:
        try:
            self.failpoint("stat")
            found = os.lstat(f"{self.root}/{require_key(key)}")
        except OSError as error:
            if error.errno in _NOTHING_THERE:
                self._require_own_store()
                return None
            raise StoreUnavailable(f"The blob store failed (stat: {os.strerror(error.errno or 0)}).") from error
        return Stat(found.st_size, str(found.st_mtime_ns)) if stat_module.S_ISREG(found.st_mode) else None

    def delete(self, key: str) -> None:
        self._require_own_store()
        try:
            self.failpoint("delete")
            os.unlink(f"{self.root}/{require_key(key)}")
        except OSError as error:
            if error.errno not in _NOTHING_THERE:
                raise translated(error, "deleting") from error

    def list(self, prefix: str = "", after: str = "") -> Iterator[Listed]:
        self._require_own_store()
        return self._walk("", prefix, after)

    def path(self, key: str) -> str | None:
        return require_key(key)

    def sweep(self, older_than: float) -> int:
        self._require_own_store()
        removed = 0
        try:
            with os.scandir(f"{self.root}/{UPLOADS}") as entries:
                for entry in entries:
                    removed += self._swept(entry, older_than)
        except OSError as error:
            raise translated(error, "sweeping") from error
        return removed

    def check(self, instance_id: str | None = None) -> None:
        expected = instance_id if instance_id is not None else self._instance_id
        self._read_marker(expected)
        probe = self.upload_path("check-" + clock.new_id())
        try:
            self.failpoint("check")
            if len({os.stat(f"{self.root}/{name}").st_dev for name in ("", UPLOADS, "sha256")}) != 1:
                raise StoreUnavailable("The blob store spans several filesystems; renames in it would fail.")
            descriptor = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, self._file_mode)
            try:
                if os.write(descriptor, bytes(CHECK_BYTES)) != CHECK_BYTES:
                    raise StoreFull()
            finally:
                os.close(descriptor)
                os.unlink(probe)
        except OSError as error:
            raise translated(error, "checking") from error
        self._instance_id = expected

    def initialise(self, instance_id: str) -> None:
        try:
            self.failpoint("initialise")
            if not os.path.exists(f"{self.root}/{MARKER}"):
                self._make_empty_store(instance_id)
        except OSError as error:
            raise translated(error, "initialising") from error
        self.check(instance_id)

    def place(self, source: str, key: str) -> None:
        """Give the synced file `source` the name `key`, durably; on any error the name is gone again."""
        target = f"{self.root}/{key}"
        directory = os.path.dirname(target)
        try:
            if directory not in self._durable_directories:
                self._make_directory(directory)
            self.failpoint("rename")
            _rename_without_replacing(source, target)
        except FileExistsError as error:
            raise KeyTaken() from error
        except FileNotFoundError as error:
            self._durable_directories.discard(directory)
            self._require_own_store()
            if os.path.isdir(directory):
                raise SinkLost() from error  # swept while it was written to, or removed by hand
            raise translated(error, "renaming") from error
        except OSError as error:
            raise translated(error, "renaming") from error
        try:
            self.failpoint("fsync-directory")
            _sync_directory(directory)
        except OSError as error:
            with contextlib.suppress(OSError):  # then it stays as an object that no row names
                os.unlink(target)
            raise translated(error, "syncing a folder") from error

    def _resumed(self, token: str) -> Sink:
        try:
            fields = json.loads(token)
            identifier, size = str(fields["id"]), int(fields["size"])
        except (ValueError, KeyError, TypeError) as error:
            raise SinkLost("The upload's token is damaged.") from error
        if not _TOKEN_ID.match(identifier) or size < 0:
            raise SinkLost("The upload's token is damaged.")
        try:
            self.failpoint("resume")
            descriptor = os.open(self.upload_path(identifier), os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError as error:
            raise SinkLost() from error
        except OSError as error:
            raise translated(error, "opening") from error
        try:
            self._lock(descriptor)
            found = os.fstat(descriptor)
            if found.st_nlink == 0 or found.st_size < size:
                raise SinkLost()
            if found.st_size > size:  # bytes of a request that never got to its own suspend()
                os.ftruncate(descriptor, size)
            os.lseek(descriptor, size, os.SEEK_SET)
            os.utime(descriptor)
        except OSError as error:
            os.close(descriptor)
            raise translated(error, "opening") from error
        except StoreError:
            os.close(descriptor)
            raise
        return FilesystemSink(self, identifier, descriptor, size)

    def _lock(self, descriptor: int) -> None:
        """Held until the file is closed, so also until its process is killed. Raises SinkBusy."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise SinkBusy() from error
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):  # no locks here: the caller's must do
                raise translated(error, "locking") from error

    def _swept(self, entry: os.DirEntry[str], older_than: float) -> bool:
        try:
            if not entry.is_file(follow_symlinks=False) or entry.stat(follow_symlinks=False).st_mtime >= older_than:
                return False
            descriptor = os.open(entry.path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return False
        try:
            self._lock(descriptor)
            if os.fstat(descriptor).st_mtime >= older_than:
                return False
            self.failpoint("sweep")
            os.unlink(entry.path)
        except (SinkBusy, FileNotFoundError):
            return False
        finally:
            os.close(descriptor)
        return True

    def _walk(self, directory: str, prefix: str, after: str) -> Iterator[Listed]:
        """`directory`: relative to the root, empty or with a slash at its end."""
        try:
            self.failpoint("list")
            with os.scandir(f"{self.root}/{directory}") as entries:
                named = [
                    (entry.name + "/" if entry.is_dir(follow_symlinks=False) else entry.name, entry)
                    for entry in entries
                ]
        except FileNotFoundError:
            return
        except OSError as error:
            raise StoreUnavailable(f"The blob store failed (listing: {os.strerror(error.errno or 0)}).") from error
        for name, entry in sorted(named, key=lambda pair: pair[0]):
            key = directory + name
            if not directory and (not name.endswith("/") or key in (UPLOADS, "lost+found/")):
                continue
            if not (key.startswith(prefix) or (name.endswith("/") and prefix.startswith(key))):
                continue
            if name.endswith("/"):
                if key > after or after.startswith(key):  # else everything below it sorts before `after`
                    yield from self._walk(key, prefix, after)
            elif key > after:
                try:
                    found = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                except OSError as error:
                    raise StoreUnavailable("The blob store failed (listing).") from error
                if stat_module.S_ISREG(found.st_mode):
                    yield Listed(key, found.st_size, found.st_mtime)

    def _require_own_store(self) -> None:
        """The root is still the one whose marker was read; one system call when all is well."""
        try:
            found = os.stat(self.root)
        except OSError as error:
            if error.errno in _NOTHING_THERE:
                raise StoreForeign("The blob store's folder does not exist.") from error
            raise StoreUnavailable(f"The blob store failed ({os.strerror(error.errno or 0)}).") from error
        if (found.st_dev, found.st_ino) != self._identity:
            self._read_marker(self._instance_id)

    def _read_marker(self, instance_id: str | None) -> None:
        content: bytes | None = None
        try:
            self.failpoint("marker")
            with open(f"{self.root}/{MARKER}", "rb") as file:
                found = os.stat(self.root)
                content = file.read(CHECK_BYTES)
        except OSError as error:
            if error.errno not in _NOTHING_THERE:
                raise StoreUnavailable(f"The blob store failed ({os.strerror(error.errno or 0)}).") from error
        require_marker(content, instance_id)
        if self._identity != (found.st_dev, found.st_ino):
            self._identity = (found.st_dev, found.st_ino)
            self._durable_directories.clear()

    def _make_empty_store(self, instance_id: str) -> None:
        """Folders first, the marker last: killed before that, the store still counts as empty. Raises OSError."""
        os.makedirs(self.root, self._directory_mode, exist_ok=True)
        _sync_directory(os.path.dirname(self.root))
        for name in sorted(os.listdir(self.root)):
            if name == MARKER:
                return  # another process was faster; its marker is compared by the caller
            if name not in ("uploads", "sha256", "lost+found"):
                raise StoreForeign(f"The folder for the blob store has content ({name[:80]!r}) but no marker.")
        if next(self._walk("", "", ""), None) is not None:
            raise StoreForeign("The folder for the blob store has objects but no marker.")
        self._make_directory(f"{self.root}/{UPLOADS[:-1]}")
        self._make_directory(f"{self.root}/sha256")
        temporary = self.upload_path("marker-" + clock.new_id())
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, self._file_mode)
        try:
            os.write(descriptor, marker_content(instance_id))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        with contextlib.suppress(FileExistsError):  # another process was faster
            _rename_without_replacing(temporary, f"{self.root}/{MARKER}")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        _sync_directory(self.root)

    def _make_directory(self, directory: str) -> None:
        """Make it and its parents below the root, durably; remembered, so this costs once per folder and process."""
        if directory == self.root or directory in self._durable_directories:
            return
        parent = os.path.dirname(directory)
        self._make_directory(parent)
        with contextlib.suppress(FileExistsError):  # made by another process, which may not have synced its name yet
            os.mkdir(directory, self._directory_mode)
        _sync_directory(parent)
        self._durable_directories.add(directory)
