"""HEAD is answered as GET is, without the body."""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class HeadAsGet:
    """Asks the routes for GET; what the server sends of the answer is its head."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the request; a stream is ended as if the client had gone once it begins."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self.app(scope, receive, send)
            return
        has_begun = asyncio.Event()

        async def gone_once_begun() -> Message:
            await has_begun.wait()
            return {"type": "http.disconnect"}

        async def send_head(message: Message) -> None:
            if message["type"] == "http.response.start":
                await send(message)
                await send({"type": "http.response.body", "body": b"", "more_body": False})
                has_begun.set()

        inner = {**scope, "method": "GET"}
        await self.app(inner, gone_once_begun, send_head)
        if "route" in inner:  # for the log and the metrics
            scope["route"] = inner["route"]
