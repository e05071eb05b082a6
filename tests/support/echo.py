"""What tests of the gateway serve: a model that answers with its input plus one, and one that does as it is asked."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
from support.envoys import tls, write_certificates
from support.faulty import write_faulty
from support.repositories import write_python

from radserve import Client
from radserve_server import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.envoys import RunningEnvoy

_ECHO = """
import triton_python_backend_utils as pb_utils
class TritonPythonModel:
    def execute(self, requests):
        arrays = [request.inputs()[0].as_numpy()[:, :4] for request in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("Y", array + 1)]) for array in arrays]
"""


def write_echo(repository: Path, name: str = "echo") -> None:
    """Write a model: of an input of any length, the first four numbers plus one."""
    write_python(repository, name, _ECHO, [("X", "FP32", (-1,))], [("Y", "FP32", (-1,))])


def write_models(repository: Path) -> None:
    """Write ``echo``, and ``faulty`` of ``support.faulty``."""
    write_echo(repository)
    write_faulty(repository)


def furnished(folder: Path) -> Path:
    """A folder with the certificates for a gateway, and both models in ``models``."""
    write_certificates(folder)
    write_models(folder / "models")
    return folder


@contextmanager
def two_replicas(folder: Path) -> Iterator[list[EmbeddedServer]]:
    """Two servers of what ``furnished`` wrote, which nobody supervises."""
    models = folder / "models"
    with (
        EmbeddedServer(models, supervise=False, verify=False) as one,
        EmbeddedServer(models, supervise=False, verify=False) as another,
    ):
        yield [one, another]


def answers(gateway: RunningEnvoy, folder: Path, name: str = "client", count: int = 1) -> None:
    """Ask ``echo`` through a gateway, with a client's certificate, and look at what comes."""
    with Client(gateway.url, tls=tls(folder, name)) as client:
        model = client.model("echo")
        for number in range(count):
            assert model.infer({"X": np.full((1, 4), number, np.float32)})["Y"].tolist() == [[number + 1] * 4]
