# mypy: disable-error-code="import-not-found", allow-subclassing-any
"""MLServer with a runtime of its own for the graph.

Pixels and outputs travel as bytes, not as uint8 and float32: of those MLServer
makes lists of Python numbers.
"""

import asyncio
import os

from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput
from served import Network


class Runtime(MLModel):
    """The network as an MLServer runtime."""

    async def load(self) -> bool:
        """Load it, in each worker."""
        self.network = Network()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """All rows of one request, or of several that were batched."""
        rows = payload.inputs[0].data.root
        values = self.network.run(self.network.rows(b"".join(rows)))
        answers = [b"".join([value[at].tobytes() for value in values]) for at in range(len(rows))]
        output = ResponseOutput(name="answers", shape=[len(rows)], datatype="BYTES", data=answers)
        return InferenceResponse(model_name=self.name, outputs=[output])


async def main() -> None:
    """Serve until the end."""
    settings = Settings(
        host="127.0.0.1",
        http_port=int(os.environ["PEER_PORT"]),
        grpc_port=int(os.environ["PEER_GRPC_PORT"]),
        metrics_endpoint=None,
        parallel_workers=int(os.environ.get("PEER_WORKERS", "2")),
        debug=False,
        logging_settings=None,
    )
    batch = int(os.environ.get("PEER_BATCH", "0"))
    model = ModelSettings(
        name=os.environ["PEER_MODEL"],
        implementation="mls.Runtime",
        max_batch_size=batch,
        max_batch_time=0.001 if batch else 0,
    )
    await MLServer(settings).start([model])


if __name__ == "__main__":
    asyncio.run(main())
