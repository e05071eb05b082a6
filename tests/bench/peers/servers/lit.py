# mypy: disable-error-code="import-not-found", allow-subclassing-any, allow-any-generics
"""LitServe with two workers, raw bytes and its fast queue."""

import os
from typing import Annotated, Any

import litserve
import numpy as np
from fastapi import Depends, Request, Response
from served import Network


async def body_of(request: Request) -> bytes:
    """The request's bytes: LitServe itself reads JSON or forms only."""
    return bytes(await request.body())


class Served(litserve.LitAPI):
    """The network behind LitServe's queue."""

    def setup(self, device: str) -> None:  # noqa: ARG002 - LitServe's signature
        """Load it, in each worker."""
        self.network = Network()

    def decode_request(self, request: Annotated[bytes, Depends(body_of)]) -> bytes:
        """Nothing to decode."""
        return request

    def batch(self, inputs: list[bytes]) -> Any:
        """All rows of several requests."""
        self.sizes = [len(one) // self.network.row_bytes for one in inputs]
        return b"".join(inputs)

    def predict(self, raw: bytes) -> Any:
        """Run it."""
        return self.network.run(self.network.rows(raw))

    def unbatch(self, output: list[Any]) -> list[list[Any]]:
        """Each request's rows."""
        ends = np.cumsum(self.sizes)
        return [[value[end - size : end] for value in output] for size, end in zip(self.sizes, ends, strict=True)]

    def encode_response(self, output: list[Any]) -> Response:
        """The outputs as they are."""
        return Response(b"".join([value.tobytes() for value in output]), media_type="application/octet-stream")


if __name__ == "__main__":
    batch = int(os.environ.get("PEER_BATCH", "1"))
    server = litserve.LitServer(
        Served(max_batch_size=batch, batch_timeout=0.0, api_path="/"),
        accelerator="cpu",
        workers_per_device=2,
        fast_queue=True,
    )
    server.run(
        host="127.0.0.1",
        port=int(os.environ["PEER_PORT"]),
        num_api_servers=2,
        log_level="warning",
        generate_client_file=False,
        access_log=False,
    )
