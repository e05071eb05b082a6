# mypy: disable-error-code="import-not-found", allow-untyped-decorators, allow-untyped-calls
"""FastAPI with raw bytes in and out."""

from __future__ import annotations

from fastapi import FastAPI, Request, Response
from served import Network

network = Network()
app = FastAPI()


@app.post("/")
async def predict(request: Request) -> Response:
    """Answer one request; ONNX Runtime runs in the loop: it would wait for the same core in a thread."""
    return Response(network.answer(await request.body()), media_type="application/octet-stream")
