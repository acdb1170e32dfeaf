"""Everything that one web process answers, by path: formats, operations, the token endpoint, and Django behind them."""

from __future__ import annotations

import asyncio
import hmac
import json
from typing import Any

from repoman.core.clock import monotonic
from repoman.core.errors import CredentialsInvalid, MethodNotAllowed, NotFound, RepomanError
from repoman.core.wire import DocumentBody, Query
from repoman.ops.logs import AccessLog, logger, shown_path
from repoman.ops.metrics import Metrics
from repoman.services import workshop

from . import django_bridge, hot, origin, serve, token
from .afterwards import Afterwards
from .body import read_document
from .dispatch import Edge, answerable, authorization_of, standard_headers
from .exchange import ClientGone, Exchange, request_id_of
from .pools import close_pools, pools
from .target import MIRRORED, RESERVED_ROOTS, table

FORM_BYTES = 64 * 1024
OPERATIONS = frozenset({b"/healthz", b"/readyz", b"/metrics"})
_PLAIN = (b"content-type", b"text/plain; charset=utf-8")
_FRESH = (b"cache-control", b"no-store")


class Application:
    """ASGI 3: lifespan and http. Made before the fork; what belongs to one process is made at its start."""

    def __init__(
        self, edge: Edge, origins: origin.Origins, *, metrics_token: str = "", access_log: bool = True
    ) -> None:
        self.edge = edge
        self.origins = origins
        self.metrics = Metrics()
        self._metrics_token = metrics_token
        self._access_log = access_log
        self.afterwards = Afterwards(self.metrics, AccessLog(enabled=access_log))
        self.loop: Any = None

    @classmethod
    def configured(cls) -> Application:
        from django.conf import settings

        from repoman.ops import logs

        logs.configure(settings.CONFIGURATION["REPOMAN_LOG_LEVEL"])
        django_bridge.preload()
        edge = Edge(table=table(), server=serve.Server(serve.settings_of()), lookup=hot.configured())
        return cls(
            edge,
            origin.configured(),
            metrics_token=settings.CONFIGURATION["REPOMAN_METRICS_TOKEN"],
            access_log=settings.CONFIGURATION["REPOMAN_ACCESS_LOG"],
        )

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            if self.loop is None:
                self.start()
            if self.edge.has_short_cut and await self.edge.short_cut(scope, receive, send, self):
                return
            await self._serve(Exchange(scope, receive, send, _given_request_id(scope)))
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        else:
            raise RuntimeError(f"connections of type {scope['type']} are not served")

    # --- a process's life --------------------------------------------------------------------------------------------

    async def _lifespan(self, receive: Any, send: Any) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                self.start()
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                await self.stop()
                await send({"type": "lifespan.shutdown.complete"})
                return

    def start(self) -> None:
        """What belongs to one process: its loop, its file of counters, its log."""
        from django.conf import settings

        self.loop = asyncio.get_running_loop()
        self.metrics = Metrics(settings.CONFIGURATION.data / "metrics")
        self.metrics.forget_earlier()
        for pool in pools().all():
            self.metrics.gauges[f"queue:{pool.name}"] = pool.waiting_calls
        self.metrics.gauges["short_cut_reads"] = lambda: float(self.edge.short_cuts)
        self.edge.fetches.count_in(self.metrics)
        self.metrics.keep_flushing(self.loop)
        pools().api.post(workshop.warm_up_if_needed)
        self.afterwards = Afterwards(self.metrics, AccessLog(enabled=self._access_log))

    async def stop(self) -> None:
        self.afterwards.settle()
        self.metrics.stop()
        lookup = self.edge.lookup
        if lookup.is_inline:
            lookup.close()
        else:
            await lookup.close_all()
        await self.edge.fetches.close()
        await asyncio.get_running_loop().run_in_executor(None, close_pools)

    # --- a request ---------------------------------------------------------------------------------------------------

    async def _serve(self, exchange: Exchange) -> None:
        cancelled = False
        try:
            await self._route(exchange)
        except (ConnectionError, ClientGone):
            exchange.status = exchange.status or 499
        except asyncio.CancelledError:
            cancelled = True
            raise
        except Exception as error:
            if exchange.status:
                # The answer had begun. Returning without its end makes the server cut the connection.
                logger.error("answer_cut", exc_info=error, extra={"fields": {"request_id": exchange.request_id}})
            else:
                status, headers, body = django_bridge.problem(answerable(error, exchange), exchange.request_id)
                await self._try_respond(exchange, status, headers, body)
        finally:
            if cancelled:
                exchange.status = 499
            self.note(exchange)

    def note(self, exchange: Exchange) -> None:
        """Count and log one request that has ended; 499 where its client left before it was answered."""
        self.afterwards.note(
            self.loop,
            (
                exchange.method,
                exchange.route_class,
                shown_path(exchange.raw_path),
                exchange.status or 499,
                exchange.received,
                exchange.sent,
                exchange.started,
                monotonic(),
                exchange.request_id,
                exchange.actor_name or "-",
                exchange.origin,
            ),
        )

    async def _try_respond(
        self, exchange: Exchange, status: int, headers: list[tuple[bytes, bytes]], body: bytes
    ) -> None:
        try:
            await exchange.respond(status, headers, body)
        except ConnectionError:
            exchange.status = exchange.status or 499

    async def _route(self, exchange: Exchange) -> None:
        path = exchange.raw_path
        if path in OPERATIONS:
            exchange.origin = self.origins.of(exchange.scope, exchange.headers, any_host=True)
            exchange.route_class = f"ops:{path[1:].decode()}"
            await self._operate(exchange, path)
            return
        handler = self.edge.table.handler_of(path)
        try:
            exchange.origin = self.origins.of(exchange.scope, exchange.headers)
        except RepomanError as error:
            exchange.origin = self.origins.of(exchange.scope, exchange.headers, any_host=True)
            if handler is None:
                raise
            response = handler.error(error, mount="", head=exchange.is_head)
            await self.edge.server.send(exchange, response)
            return
        if handler is not None or self.edge.table.owns(path):
            await self.edge.serve(exchange)
        elif path == b"/":
            await exchange.respond(302, [(b"location", b"/ui/"), _FRESH], b"")
        elif path == b"/token":
            exchange.route_class = "token"
            await self._issue_token(exchange)
        elif path.startswith(django_bridge.STATIC.encode()):
            exchange.route_class = "static"
            await django_bridge.answer_static(exchange)
        elif path.startswith((b"/api/", b"/ui/")):
            exchange.route_class = "api" if path.startswith(b"/api/") else "ui"
            await django_bridge.answer(exchange)
        else:
            first = path[1:].partition(b"/")[0].decode("latin-1")
            exchange.route_class = "reserved" if first in RESERVED_ROOTS else "none"
            if exchange.method not in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"):
                raise MethodNotAllowed(f"the method {exchange.method[:20]} is not supported", allow=["GET", "HEAD"])
            raise NotFound("there is nothing at this address")

    async def _issue_token(self, exchange: Exchange) -> None:
        """The registry protocol's token endpoint, with its errors; password checks have threads of their own."""
        handler = self.edge.table.by_prefix.get(MIRRORED)
        try:
            if exchange.method not in ("GET", "HEAD", "POST"):
                raise MethodNotAllowed("tokens are asked for by GET or POST", allow=["GET", "HEAD", "POST"])
            authorization = authorization_of(exchange)
            query = Query(exchange.scope.get("query_string", b""))
            form: Query | None = None
            if exchange.method == "POST":
                document = await read_document(exchange, DocumentBody(FORM_BYTES))
                form = Query(document.data)
            issued = await pools().sign_in.run(
                token.issue,
                query,
                form,
                authorization.decode("latin-1") if authorization is not None else None,
                exchange.origin.address,
                exchange.request_id,
                exchange.origin.base_url,
            )
        except ClientGone:
            raise
        except Exception as raised:
            error = answerable(raised, exchange)
            if handler is None:
                raise error from raised
            response = handler.error(error, mount="", head=exchange.is_head)
            lines = serve.encode(response.headers)
            names = {name for name, _ in lines}
            lines += [line for line in serve.encode(standard_headers(error)) if line[0] not in names]
            if error.status == 401:
                lines.append((b"www-authenticate", b'Basic realm="Repoman", charset="UTF-8"'))
            await exchange.respond(
                response.status, lines, response.content if isinstance(response.content, bytes) else b""
            )
            return
        headers = [(b"content-type", b"application/json"), _FRESH, (b"x-content-type-options", b"nosniff")]
        await exchange.respond(200, headers, json.dumps(issued).encode())

    async def _operate(self, exchange: Exchange, path: bytes) -> None:
        if exchange.method not in ("GET", "HEAD"):
            raise MethodNotAllowed("this can only be read", allow=["GET", "HEAD"])
        if path == b"/healthz":
            await exchange.respond(200, [_PLAIN, _FRESH], b"ok\n")
        elif path == b"/readyz":
            from repoman.ops import health

            checks = await pools().api.run(health.readiness)
            body = {
                "ready": all(check.is_well for check in checks),
                "checks": {check.name: check.reason or "ok" for check in checks},
            }
            headers = [(b"content-type", b"application/json"), _FRESH]
            if not body["ready"]:
                headers.append((b"retry-after", b"2"))
            await exchange.respond(200 if body["ready"] else 503, headers, json.dumps(body).encode() + b"\n")
        else:
            self._check_metrics_token(exchange)
            text = await pools().api.run(self.metrics.render)
            kind = (b"content-type", b"text/plain; version=0.0.4; charset=utf-8")
            await exchange.respond(200, [kind, _FRESH], text.encode())

    def _check_metrics_token(self, exchange: Exchange) -> None:
        if not self._metrics_token:
            return
        given = exchange.header(b"authorization") or ""
        scheme, _, value = given.partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(value.strip().encode(), self._metrics_token.encode()):
            raise CredentialsInvalid("the metrics need the configured token")


def _given_request_id(scope: Any) -> str:
    given = None
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            given = value
    return request_id_of(given)
