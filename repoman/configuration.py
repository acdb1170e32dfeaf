"""Every setting an operator can make, in one typed table: from it come parsing, the errors at start, and the docs.

Importing this reads nothing and needs no Django; `load()` parses an environment. A bad value is a `SettingError` whose
text is one line naming the setting.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit


class SettingError(Exception):
    """One line for people: which setting, what is wrong with it, what it may be."""


@dataclass(frozen=True, slots=True)
class Setting:
    """`default` is the text an unset variable stands for ("" where the meaning explains it)."""

    name: str
    kind: str
    default: str
    meaning: str
    parse: Callable[[str], Any]
    secret: bool = False


def _text(value: str) -> str:
    return value


def _integer(minimum: int, maximum: int = 2**63 - 1) -> Callable[[str], int]:
    def parse(value: str) -> int:
        if not re.fullmatch(r"\d{1,19}", value) or not minimum <= int(value) <= maximum:
            raise ValueError(f"must be a whole number of at least {minimum}")
        return int(value)

    return parse


def _bytes_or_none(value: str) -> int | None:
    return None if value in ("", "none", "unlimited") else _integer(0)(value)


def _flag(value: str) -> bool:
    if value.lower() not in ("true", "false", "1", "0", "yes", "no"):
        raise ValueError("must be true or false")
    return value.lower() in ("true", "1", "yes")


def _choice(*allowed: str) -> Callable[[str], str]:
    def parse(value: str) -> str:
        if value not in allowed:
            raise ValueError(f"must be one of {', '.join(allowed)}")
        return value

    return parse


def _list(value: str) -> tuple[str, ...]:
    return tuple(item.strip() for item in value.split(",") if item.strip())


def _networks(value: str) -> tuple[Any, ...]:
    try:
        return tuple(ipaddress.ip_network(item, strict=False) for item in _list(value))
    except ValueError as error:
        raise ValueError(f"must be comma-separated networks ({error})") from None


def _bind(value: str) -> tuple[str, int]:
    host, separator, port = value.rpartition(":")
    if not separator or not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError("must be ADDRESS:PORT, for example 127.0.0.1:8080")
    return host.strip("[]"), int(port)


def _public_url(value: str) -> str:
    if not value:
        return ""
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or parts.username:
        raise ValueError("must be http://host[:port] or https://host[:port]")
    if parts.path.strip("/"):
        raise ValueError("must have no path: clients address the registry at the host's root")
    return f"{parts.scheme}://{parts.netloc}"


def _database(value: str) -> str:
    if value and urlsplit(value).scheme not in ("postgresql", "postgres", "sqlite"):
        raise ValueError("must be postgresql://user:password@host:port/name or sqlite:///path")
    return value


def _redis(value: str) -> str:
    if value and urlsplit(value).scheme not in ("redis", "rediss", "unix"):
        raise ValueError("must be redis://host:port/number")
    return value


def _blobs(value: str) -> str:
    if value.startswith("s3://"):
        if not urlsplit(value).netloc:
            raise ValueError("must name a bucket: s3://bucket/prefix")
    elif "://" in value:
        raise ValueError("must be a folder or s3://bucket/prefix")
    return value


SETTINGS: tuple[Setting, ...] = (
    Setting("REPOMAN_BIND", "address:port", "127.0.0.1:8080", "Where the server listens.", _bind),
    Setting("REPOMAN_DATA", "folder", "./var", "Where the embedded database, blobs, keys and broker live.", _text),
    Setting(
        "REPOMAN_URL",
        "URL",
        "",
        "Public base address (scheme and host, no path). Unset: each request's own Host.",
        _public_url,
    ),
    Setting(
        "REPOMAN_HOSTS", "list", "", "Host names accepted when REPOMAN_URL is unset; empty: any well-formed one.", _list
    ),
    Setting(
        "REPOMAN_DATABASE_URL",
        "URL",
        "",
        "postgresql://… for PostgreSQL 15 or newer; unset: SQLite in REPOMAN_DATA.",
        _database,
        secret=True,
    ),
    Setting(
        "REPOMAN_DATABASE_POOL",
        "count",
        "12",
        "Most PostgreSQL connections one process keeps for decisions.",
        _integer(1),
    ),
    Setting(
        "REPOMAN_REDIS_URL",
        "URL",
        "",
        "Redis for waking workers on other machines; unset: a folder in REPOMAN_DATA.",
        _redis,
        secret=True,
    ),
    Setting(
        "REPOMAN_BLOBS",
        "folder or s3://",
        "",
        "Where bytes are kept: a folder, or s3://bucket/prefix with boto3's AWS_… variables; unset: a folder in "
        "REPOMAN_DATA.",
        _blobs,
    ),
    Setting("REPOMAN_ADMIN_USER", "name", "admin", "The administrator that the first start creates.", _text),
    Setting(
        "REPOMAN_ADMIN_PASSWORD",
        "text",
        "",
        "That administrator's password, at the first start only; unset: a random one, shown once and kept in "
        "REPOMAN_DATA/admin-password.",
        _text,
        secret=True,
    ),
    Setting(
        "REPOMAN_SECRET_KEY",
        "text",
        "",
        "At least 32 characters, shared by all nodes: encrypts stored secrets. Unset: made at the first start and "
        "kept in REPOMAN_DATA/secret-key.",
        _text,
        secret=True,
    ),
    Setting("REPOMAN_SECRET_KEY_FILE", "file", "", "A file that holds REPOMAN_SECRET_KEY.", _text),
    Setting(
        "REPOMAN_UPSTREAM_ALLOW",
        "list",
        "",
        "Networks or host names that remotes may reach although they are private.",
        _list,
    ),
    Setting("REPOMAN_WORKERS", "count", "", "Web processes; unset: one per core.", _text),
    Setting("REPOMAN_UPLOAD_TTL", "seconds", "86400", "How long an idle upload session is kept.", _integer(0)),
    Setting("REPOMAN_TRASH_WINDOW", "seconds", "604800", "How long removed content can be brought back.", _integer(0)),
    Setting(
        "REPOMAN_COLLECT_GRACE",
        "seconds",
        "86400",
        "How long bytes nothing refers to are kept, from the last time a client was told they are there.",
        _integer(0),
    ),
    Setting(
        "REPOMAN_NAMESPACE_CREATION",
        "choice",
        "anyone",
        "Who may create a namespace: anyone (who is signed in) or admin.",
        _choice("anyone", "admin"),
    ),
    Setting(
        "REPOMAN_DEFAULT_QUOTA",
        "bytes",
        str(10 * 2**30),
        "A new namespace's quota; 'none' for no limit.",
        _bytes_or_none,
    ),
    Setting("REPOMAN_REGISTRY_TOKEN_TTL", "seconds", "900", "How long a registry token lives.", _integer(60, 86400)),
    Setting(
        "REPOMAN_TRUSTED_PROXIES",
        "networks",
        "",
        "Peers whose X-Forwarded-For, -Proto and -Host headers are believed.",
        _networks,
    ),
    Setting(
        "REPOMAN_ACCEL",
        "path",
        "",
        "Internal location of a front nginx that serves the blob folder (X-Accel-Redirect), for example /_blobs/.",
        _text,
    ),
    Setting("REPOMAN_REDIRECT", "flag", "false", "Answer large downloads from S3 with a presigned redirect.", _flag),
    Setting(
        "REPOMAN_CONTENT_URL", "URL", "", "Another origin that serves user content; unset: the same one.", _public_url
    ),
    Setting(
        "REPOMAN_SUPERVISED",
        "flag",
        "true",
        "Whether the server process also runs the worker and the scheduler.",
        _flag,
    ),
    Setting("REPOMAN_ACCESS_LOG", "flag", "true", "One JSON line per request.", _flag),
    Setting(
        "REPOMAN_LOG_LEVEL",
        "choice",
        "INFO",
        "Least severity that is logged.",
        _choice("DEBUG", "INFO", "WARNING", "ERROR"),
    ),
    Setting("REPOMAN_METRICS_TOKEN", "text", "", "If set, /metrics wants it as a Bearer token.", _text, secret=True),
    Setting(
        "REPOMAN_LOGIN_FAILURES",
        "count",
        "10",
        "Wrong passwords per account, or 10 times as many per address, before sign-in is slowed.",
        _integer(1),
    ),
)


@dataclass(frozen=True, slots=True)
class Configuration:
    """Parsed settings: `configuration["REPOMAN_BIND"]` has the type its parser gives."""

    values: Mapping[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    @property
    def data(self) -> Path:
        return Path(self.values["REPOMAN_DATA"]).expanduser().resolve()

    @property
    def blobs(self) -> str:
        """A folder's path or an s3:// address."""
        return str(self.values["REPOMAN_BLOBS"] or self.data / "blobs")

    @property
    def workers(self) -> int:
        given = self.values["REPOMAN_WORKERS"]
        return _integer(1, 256)(given) if given else len(os.sched_getaffinity(0))

    def database(self) -> dict[str, Any]:
        """Django's DATABASES["default"] entry."""
        url = self.values["REPOMAN_DATABASE_URL"]
        if not url or url.startswith("sqlite"):
            path = unquote(urlsplit(url).path) if url else str(self.data / "repoman.sqlite3")
            # Tests run on a file too: a database in memory knows neither WAL nor other processes.
            test = {"NAME": f"{path}.test"}
            return {"ENGINE": "repoman.db.sqlite", "NAME": path, "CONN_MAX_AGE": None, "TEST": test}
        parts = urlsplit(url)
        return {
            "ENGINE": "repoman.db.postgresql",
            "NAME": unquote(parts.path.lstrip("/")) or "repoman",
            "USER": unquote(parts.username or ""),
            "PASSWORD": unquote(parts.password or ""),
            "HOST": parts.hostname or "",
            "PORT": str(parts.port or ""),
            "CONN_MAX_AGE": 0,
            "OPTIONS": {"pool": {"min_size": 1, "max_size": self.values["REPOMAN_DATABASE_POOL"], "timeout": 5}},
        }


def load(environment: Mapping[str, str] | None = None) -> Configuration:
    """Parse the environment. Raises SettingError for the first bad value, and for a REPOMAN_ name nobody knows."""
    environment = os.environ if environment is None else environment
    values: dict[str, Any] = {}
    for setting in SETTINGS:
        given = environment.get(setting.name, "")
        try:
            values[setting.name] = setting.parse(given or setting.default)
        except ValueError as error:
            shown = "" if setting.secret else f" (it is '{given[:80]}')"
            raise SettingError(f"{setting.name} {error}{shown}") from None
    known = {setting.name for setting in SETTINGS}
    for name in environment:
        if name.startswith("REPOMAN_") and name not in known and name not in NOT_SETTINGS:
            raise SettingError(f"{name} is not a setting of Repoman; docs/settings.md lists them")
    configuration = Configuration(values)
    try:
        _ = configuration.workers
    except ValueError as error:
        raise SettingError(f"REPOMAN_WORKERS {error}") from None
    return configuration


# Variables with our prefix that something other than the server reads.
NOT_SETTINGS = frozenset({"REPOMAN_TOOLS", "REPOMAN_TEST_DATABASE"})


def secret_key(configuration: Configuration) -> str:
    """The key that encrypts stored secrets: from the settings, else from REPOMAN_DATA/secret-key (made once, 0600).

    Raises SettingError if it is too short or the file cannot be read.
    """
    import secrets

    key = configuration["REPOMAN_SECRET_KEY"]
    if not key and configuration["REPOMAN_SECRET_KEY_FILE"]:
        try:
            key = Path(configuration["REPOMAN_SECRET_KEY_FILE"]).read_text().strip()
        except OSError as error:
            raise SettingError(f"REPOMAN_SECRET_KEY_FILE cannot be read: {error.strerror}") from None
    if not key:
        path = configuration.data / "secret-key"
        try:
            configuration.data.mkdir(parents=True, exist_ok=True)
            try:
                descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            except FileExistsError:
                pass
            else:
                with os.fdopen(descriptor, "w") as file:
                    file.write(secrets.token_urlsafe(48))
                    file.flush()
                    os.fsync(file.fileno())
            key = path.read_text().strip()
        except OSError as error:
            raise SettingError(f"REPOMAN_DATA: {path} cannot be used: {error.strerror}") from None
    if len(key) < 32:
        raise SettingError("REPOMAN_SECRET_KEY must have at least 32 characters")
    return str(key)
