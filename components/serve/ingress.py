"""What happens to a request before it is read: a size limit and an identity."""

import json
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from contextvars import ContextVar
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

REQUEST_ID: ContextVar[str] = ContextVar("request_id", default="")
_MAX_ID_BYTES = 64


class Ingress:
    """ASGI middleware: refuse bodies above a limit with 413 and name each request.

    The limit holds for a declared length and, while it arrives, for a body without one. A caller's
    `X-Request-Id` of at most 64 printable ASCII characters is kept, otherwise a UUID is made.
    """

    def __init__(self, app: App, max_request_bytes: int) -> None:
        self._app = app
        self._max = max_request_bytes

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        length = -1
        name = b""
        for header, value in scope["headers"]:
            if header == b"content-length":
                # The HTTP parser has refused anything but digits already.
                length = int(value)
            elif header == b"x-request-id":
                name = value
        if length > self._max:
            await self._refuse(send, length)
            return
        REQUEST_ID.set(name.decode() if 0 < len(name) <= _MAX_ID_BYTES and _printable(name) else uuid.uuid4().hex)
        if length >= 0:
            await self._app(scope, receive, send)
            return
        await self._receive_bounded(scope, receive, send)

    async def _receive_bounded(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Collect a body of unknown length before the application sees it: the limit bounds the memory."""
        body = bytearray()
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > self._max:
                await self._refuse(send, len(body))
                return
        pending: list[Message] = [{"type": "http.request", "body": bytes(body), "more_body": False}]

        async def replay() -> Message:
            return pending.pop() if pending else await receive()

        await self._app(scope, replay, send)

    async def _refuse(self, send: Send, measured: int) -> None:
        text = f"request body too large; measured: {measured} bytes; allowed: {self._max} bytes"
        body = json.dumps({"error": text}).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        await send({"type": "http.response.start", "status": 413, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def _printable(name: bytes) -> bool:
    return name.isascii() and name.decode("ascii").isprintable()
