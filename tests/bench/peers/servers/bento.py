# mypy: disable-error-code="import-not-found", allow-untyped-decorators, allow-untyped-calls
"""BentoML with two workers; its own endpoints read JSON, forms or files, so raw bytes come by a mounted route."""

import bentoml
from served import Network
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

network = Network()


async def predict(request: Request) -> Response:
    """Answer one request."""
    return Response(network.answer(await request.body()), media_type="application/octet-stream")


app = Starlette(routes=[Route("/", predict, methods=["POST"])])


@bentoml.service(
    workers=2, metrics={"enabled": False}, logging={"access": {"enabled": False}}, tracing={"sample_rate": 0.0}
)
@bentoml.asgi_app(app, path="/raw")
class Served:
    """A service with nothing but the mounted route."""
