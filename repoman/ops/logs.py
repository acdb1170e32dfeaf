"""Logs: one JSON object per line on standard error. One line per request, written by hand because it is hot.

Event names are constant, data is in fields. Secrets are taken out in one place (`redact`), whatever logged them.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import time
import traceback
from json.encoder import encode_basestring_ascii as quoted
from typing import Any

logger = logging.getLogger("repoman")

LONGEST_PATH = 512
_FIELDS_OF_A_RECORD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "fields", "taskName"}

# What a secret looks like, wherever it turns up. The first group is kept.
_SECRETS = re.compile(
    r"""(?ix)
      (\b(?:proxy-)?authorization\\?["']?\s*[:=,]\s*\\?(?:b?["'])?(?:basic|bearer|digest)\s+)[A-Za-z0-9+/=._~-]+
    | (\b(?:basic|bearer)\s+)[A-Za-z0-9+/=._~-]{12,}
    | (\b[a-z_]*(?:password|passwd|secret|api[_-]?key|private[_-]?key|access[_-]?token|refresh[_-]?token)[a-z_]*
        \\?["']?\s*[:=]\s*\\?["']?)[^\s"'&,;}\\]+
    | ([?&](?:x-amz-(?:signature|credential|security-token)|signature|token|sig)=)[^&\s"'\\]+
    | (://[^/\s:@"']*:)[^/\s@"']+(?=@)
    | ()\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*
    | (\brp[mr]_)[A-Za-z0-9_-]{20,}
    """
)


def redact(text: str) -> str:
    """The text without passwords, tokens, signatures and credentials in addresses."""
    return _SECRETS.sub(lambda match: next((group for group in match.groups() if group is not None), "") + "***", text)


class JsonFormatter(logging.Formatter):
    """A log record as one line of JSON: `at` (UTC), `level`, `event`, the fields, and a traceback where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "at": _moment(record.created),
            "level": record.levelname.lower(),
            "event": record.getMessage()[:4000],
            "logger": record.name,
            "process": record.process,
        }
        fields = getattr(record, "fields", None)
        if isinstance(fields, dict):
            line.update(fields)
        for name, value in record.__dict__.items():
            if name not in _FIELDS_OF_A_RECORD and name not in line and isinstance(value, str | int | float | bool):
                line[name] = value
        if record.exc_info and record.exc_info[0] is not None:
            line["error"] = f"{record.exc_info[0].__name__}: {record.exc_info[1]}"[:2000]
            line["traceback"] = "".join(traceback.format_exception(*record.exc_info))[-8000:]
        return redact(json.dumps(line, default=str))


_second = -1
_second_text = ""


def _moment(seconds: float) -> str:
    global _second, _second_text
    whole = int(seconds)
    if whole != _second:
        _second_text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole))
        _second = whole
    return f"{_second_text}.{int((seconds - whole) * 1000):03d}Z"


def shown_path(raw_path: bytes) -> str:
    """A request's path as a JSON string: bounded, escaped, and without what looks like a secret."""
    path = raw_path.decode("latin-1")
    if len(path) > LONGEST_PATH:
        path = path[:LONGEST_PATH] + "…"
    if "eyJ" in path or "rpm_" in path or "rpr_" in path or "@" in path:
        path = redact(path)
    return quoted(path)


class AccessLog:
    """One line per finished request, gathered by `add` and written in one call by `flush`."""

    def __init__(self, *, enabled: bool = True, descriptor: int = 2) -> None:
        self.enabled = enabled
        self._descriptor = descriptor
        self._lines: list[str] = []

    def add(
        self,
        at: float,
        method: str,
        route: str,
        path: str,
        status: int,
        received: int,
        sent: int,
        seconds: float,
        request_id: str,
        actor: str,
        address: str,
    ) -> None:
        """Note one request that ended at `at` (seconds since the epoch). `path` is what `shown_path` made of it."""
        self._lines.append(
            f'{{"at":"{_moment(at)}","level":"info","event":"request","method":{quoted(method[:20])},"route":"{route}",'
            f'"path":{path},"status":{status},"bytes_in":{received},"bytes_out":{sent},'
            f'"duration_ms":{seconds * 1000:.3f},"request_id":"{request_id}","actor":{quoted(actor)},'
            f'"address":{quoted(address)}}}\n'
        )

    def flush(self) -> None:
        """Write what was gathered. A log that nobody can take (closed pipe) loses lines, never a request."""
        lines, self._lines = self._lines, []
        data = "".join(lines).encode()
        while data:
            try:
                data = data[os.write(self._descriptor, data) :]
            except BlockingIOError:
                time.sleep(0.001)
            except OSError:
                return


def configure(level: str = "INFO") -> None:
    """Send every logger's records to standard error as JSON lines. Called once by each process."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    logging.captureWarnings(True)
    # These speak of every request or connection at INFO, which the access log does already.
    for noisy in ("django.request", "django.security", "botocore", "boto3", "s3transfer", "urllib3", "asyncio"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, logging.getLevelName(level)))
