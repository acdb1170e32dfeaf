"""A small ASGI application that shows what the HTTP layer hands on; served by test_http_layer.py."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from typing import Any

PIECE = bytes(2**20)


async def application(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return

    async def answer(status: int, content: bytes, **extra: Any) -> None:
        headers = [(b"content-length", str(len(content)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers, **extra})
        await send({"type": "http.response.body", "body": content})

    path = scope["path"]
    if path == "/scope":
        headers = [[name.decode("latin-1"), value.decode("latin-1")] for name, value in scope["headers"]]
        shown = {**{key: scope[key] for key in ("method", "scheme", "path")}, "headers": headers, "type": scope["type"]}
        await answer(200, json.dumps(shown).encode())
    elif path.startswith("/raw/"):
        await answer(200, scope["raw_path"] + b"?" + scope["query_string"])
    elif path == "/reason":
        await answer(400, b"", reason="File already exists; 9 of 10 GiB\r\nX-Injected: 1 \u2603")
    elif path == "/refuse":
        await answer(403, b"no " * 100)
    elif path == "/refuse-in-halves":
        await receive()
        await send({"type": "http.response.start", "status": 403, "headers": [(b"content-length", b"4")]})
        await send({"type": "http.response.body", "body": b"no", "more_body": True})
        await asyncio.sleep(0.2)
        await send({"type": "http.response.body", "body": b"no"})
    elif path == "/hash":
        digest, size, kind = hashlib.sha256(), 0, "http.request"
        while True:
            message = await receive()
            kind = message["type"]
            if kind != "http.request":
                return
            digest.update(message["body"])
            size += len(message["body"])
            if not message["more_body"]:
                break
        await answer(200, f"{size} {digest.hexdigest()}".encode())
    elif path == "/hold":  # reads nothing for a while
        await asyncio.sleep(float(scope["query_string"]))
        size = 0
        while (message := await receive())["type"] == "http.request":
            size += len(message["body"])
            if not message["more_body"]:
                break
        await answer(200, str(size).encode())
    elif path == "/zeros":
        count = int(scope["query_string"])
        headers = [(b"content-length", str(count * len(PIECE)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        try:
            for number in range(count):
                await send({"type": "http.response.body", "body": PIECE, "more_body": number + 1 < count})
        except OSError as error:
            with open(os.environ["HTTP_LAYER_NOTES"], "a") as notes:
                notes.write(f"{type(error).__name__}\n")
            raise
    elif path == "/slow":
        await asyncio.sleep(float(scope["query_string"]))
        await answer(200, str(os.getpid()).encode())
    elif path == "/pid":
        await answer(200, str(os.getpid()).encode())
    else:
        await answer(404, b"")
