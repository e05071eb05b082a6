# mypy: disable-error-code="import-not-found,attr-defined"
"""Ray Serve in its throughput-optimised mode, two replicas that answer HTTP themselves."""

import os
import signal
from pathlib import Path

os.environ |= {  # read when Ray is imported
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": os.environ["PEER_PORT"],
    "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(int(os.environ["PEER_PORT"]) + 99),
}
import ray
from ray import serve
from served import Network
from starlette.requests import Request
from starlette.responses import Response


@serve.deployment(num_replicas=2, max_ongoing_requests=100, ray_actor_options={"num_cpus": 0.5})
class Served:
    """One replica."""

    def __init__(self) -> None:
        """Load the network."""
        self.network = Network()

    async def __call__(self, request: Request) -> Response:
        """Answer one request."""
        return Response(self.network.answer(await request.body()), media_type="application/octet-stream")


if __name__ == "__main__":
    folder = Path.cwd() / "ray"  # which the benchmark removes
    ray.init(include_dashboard=False, num_cpus=2, object_store_memory=100 * 2**20, _temp_dir=str(folder))
    serve.start(http_options={"host": "127.0.0.1"})
    serve.run(Served.bind())
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
