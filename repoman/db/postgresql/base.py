"""Django's PostgreSQL backend with a pool for long-lived servers.

Every session gets time limits, so that nothing waits for a lock or a statement for ever. A connection that died with
its server is seen at its socket and thrown away before anyone uses it, and while the server is gone a request fails
within seconds (OperationalError) instead of waiting; when it is back the next request succeeds.
"""

from __future__ import annotations

import os
import select
import time
from typing import Any, ClassVar

from django.core.exceptions import ImproperlyConfigured
from django.db.backends.postgresql import base
from django.db.utils import NotSupportedError
from psycopg import Connection, OperationalError
from psycopg_pool import ConnectionPool

from repoman.db.postgresql.validation import DatabaseValidation

# Sent by libpq at connecting, so it costs no round trip. A server's or role's own stricter values are overridden.
SESSION = {
    "lock_timeout": "4s",
    "statement_timeout": "30s",
    "idle_in_transaction_session_timeout": "60s",
}
CONNECT_TIMEOUT_SECONDS = 3
POOL: dict[str, Any] = {
    "min_size": 0,
    "max_size": 12,
    # How long a request waits for a connection, be all of them busy or the server away.
    "timeout": 4.0,
    # After this the pool forgets a failed attempt; the next request starts another. Without it the attempts would
    # come ever more rarely, and a server that is back would stay unused for up to half a minute.
    "reconnect_timeout": 1.0,
    "max_idle": 120.0,
    "max_lifetime": 1800.0,
    "num_workers": 1,
}


def check_alive(connection: Connection[Any]) -> None:
    """Raise OperationalError for a connection whose server has gone.

    A server that ends or dies closes its side, which makes an idle socket readable; only then a round trip is spent.
    """
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN | select.POLLPRI)
    if poll.poll(0):
        connection.execute("")


class CheckedPool(ConnectionPool[Any]):
    """Gives no dead connection. The pool's own `check` sleeps a second and more between two dead ones, so that after a
    restart of the server a full pool would refuse its next users."""

    def getconn(self, timeout: float | None = None) -> Connection[Any]:
        """Raises PoolTimeout, an OperationalError."""
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        while True:
            connection = super().getconn(deadline - time.monotonic())
            try:
                check_alive(connection)
            except OperationalError:
                self.putconn(connection)  # which throws it away and asks for another
            else:
                return connection


class DatabaseWrapper(base.DatabaseWrapper):
    """OPTIONS["pool"] may override POOL; False means a connection for each thread."""

    validation_class = DatabaseValidation
    _connection_pools: ClassVar[dict[str, Any]] = {}

    def get_connection_params(self) -> dict[str, Any]:
        params: dict[str, Any] = super().get_connection_params()
        given = params.get("options", "")
        settings = " ".join(f"-c {name}={value}" for name, value in SESSION.items())
        params["options"] = f"{settings} {given}".strip()
        params.setdefault("connect_timeout", CONNECT_TIMEOUT_SECONDS)
        params.setdefault("application_name", "repoman")
        # Half-open connections (a cable pulled) end after about 15 s.
        params.setdefault("keepalives_idle", 10)
        params.setdefault("keepalives_interval", 3)
        params.setdefault("keepalives_count", 2)
        params.setdefault("tcp_user_timeout", 15_000)
        return params

    @property
    def pool(self) -> ConnectionPool[Any] | None:
        options = self.settings_dict["OPTIONS"].get("pool", True)
        if options is False or self.alias == base.NO_DB_ALIAS:
            return None
        pool = self._connection_pools.get(self.alias)
        if pool is None:
            if self.settings_dict.get("CONN_MAX_AGE", 0) != 0:
                raise ImproperlyConfigured("a pool keeps connections itself: CONN_MAX_AGE must be 0")
            pool = CheckedPool(
                kwargs={**self.get_connection_params(), "autocommit": True},
                open=False,
                configure=self._configure_connection,
                **{**POOL, **(options if isinstance(options, dict) else {})},
            )
            # Two threads may both have made one; the first to store it wins, the other is never opened.
            pool = self._connection_pools.setdefault(self.alias, pool)
        return pool

    def init_connection_state(self) -> None:
        super().init_connection_state()
        if self.pg_version < 150000:
            raise NotSupportedError("PostgreSQL 15 or newer is needed")


def _after_fork_in_child() -> None:
    # The parent's sockets and threads are not ours. The pools are leaked, not closed: closing would end its sessions.
    _leaked.append(dict(DatabaseWrapper._connection_pools))
    DatabaseWrapper._connection_pools.clear()


_leaked: list[dict[str, Any]] = []
os.register_at_fork(after_in_child=_after_fork_in_child)
