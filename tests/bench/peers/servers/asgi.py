# mypy: disable-error-code="import-not-found"
"""A bare ASGI function, with nothing between uvicorn and ONNX Runtime."""

from __future__ import annotations

from typing import Any

from served import Network

network = Network()


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answer one request."""
    if scope["type"] != "http":
        return  # uvicorn is started with --lifespan off, without web sockets
    message = await receive()
    body = message["body"]
    while message.get("more_body"):
        message = await receive()
        body += message["body"]
    answer = network.answer(body)
    headers = [(b"content-length", str(len(answer)).encode()), (b"content-type", b"application/octet-stream")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})
