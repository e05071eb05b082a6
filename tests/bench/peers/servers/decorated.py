# mypy: disable-error-code="import-not-found", allow-untyped-decorators
"""PyTriton: Triton with Python functions behind it, two instances."""

import os
import signal
import tempfile
from typing import Any

import numpy as np
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig
from served import Network


def function() -> Any:
    """One instance."""
    network = Network()

    @batch
    def infer(**inputs: Any) -> Any:
        return network.run(inputs[network.input])

    return infer


def main() -> None:
    """Serve until the end."""
    described = Network()
    types = {"tensor(float)": np.float32, "tensor(int8)": np.int8}
    ports = {"http_port": int(os.environ["PEER_PORT"]), "grpc_port": int(os.environ["PEER_GRPC_PORT"])}
    quiet = {"http_address": "127.0.0.1", "grpc_address": "127.0.0.1", "allow_metrics": False}
    with (
        tempfile.TemporaryDirectory() as workspace,
        Triton(config=TritonConfig(**ports, **quiet), workspace=f"{workspace}/pytriton") as triton,
    ):
        triton.bind(
            model_name=os.environ["PEER_MODEL"],
            infer_func=[function(), function()],
            inputs=[Tensor(name=described.input, dtype=np.uint8, shape=tuple(described.shape))],
            outputs=[
                Tensor(name=name, dtype=types[kind], shape=tuple(shape)) for name, kind, shape in described.outputs
            ],
            config=ModelConfig(max_batch_size=64, batcher=DynamicBatcher()),
        )
        triton.run()
        signal.sigwait({signal.SIGTERM, signal.SIGINT})


if __name__ == "__main__":
    main()
