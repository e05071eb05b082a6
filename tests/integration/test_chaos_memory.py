"""Memory does not grow with the number of requests: in the server, its stubs and the client; leaks are seen."""

from __future__ import annotations

import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from support.classifiers import image_contract, write_classifier
from support.commands import program
from support.faulty import write_faulty
from support.figures import tell
from support.memory import Growth, growth, resident_bytes
from support.repositories import write_add_one, write_python

from radserve_server import EmbeddedServer
from radserve_server.stubs import stubs_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_MODELS = ("brightness", "add_one", "leaky")
_LEAKY = """
import triton_python_backend_utils as pb_utils
class TritonPythonModel:
    kept = []
    def execute(self, requests):
        arrays = [request.inputs()[0].as_numpy() for request in requests]
        self.kept += [bytes(%d) for _ in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("Y", array + 1)]) for array in arrays]
"""


@contextmanager
def _served(folder: Path, leak: int) -> Iterator[EmbeddedServer]:
    """A server of three models in turn, the last of which keeps so many bytes of each of its requests."""
    write_classifier(folder, image_contract())
    write_add_one(folder)
    write_faulty(folder)
    write_python(folder, "leaky", _LEAKY % leak)
    with EmbeddedServer(folder, verify=False, supervise=False) as server:
        yield server


def _growths(server: EmbeddedServer, requests: int, *, kept: int = 0) -> dict[str, Growth]:
    """How the memory of each process grows while a client sends so many requests, the first fifth not counted.

    Args:
        server: Whom.
        requests: How many.
        kept: Bytes of each that the client keeps.
    """
    command = program("support.steady", server.grpc_url, requests, kept, *_MODELS)
    processes = {stub.model: stub.pid for stub in stubs_of(server.pid, server.repository)} | {"server": server.pid}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as client:  # noqa: S603 - ourselves
        processes["client"] = client.pid
        assert client.stdout
        samples = [
            (int(line), {name: resident_bytes(pid) for name, pid in processes.items()})
            for line in client.stdout
            if int(line) < requests  # after the last it may have ended
        ]
    assert client.returncode == 0
    assert len(samples) == 99
    counted = sorted(samples[20:], key=lambda sample: sample[0])
    numbers = [number for number, _ in counted]
    return {name: growth(numbers, [of_each[name] for _, of_each in counted]) for name in processes}


@pytest.mark.parametrize(
    ("requests", "bound", "leak"),
    [
        pytest.param(2_000, 1000, 6000, id="short"),
        pytest.param(100_000, 50, 300, id="long", marks=pytest.mark.chaos),
    ],
)
def test_no_memory_grows_with_requests_but_that_of_a_leaky_model_and_a_leaky_client(
    tmp_path: Path, requests: int, bound: int, leak: int
) -> None:
    """The bound and the leak are bytes per request; of a model, which gets every third one, three times as many."""
    with _served(tmp_path, 3 * leak) as server:
        growths = _growths(server, requests)
        leaking = _growths(server, requests, kept=leak)["client"]
    tell(leaky_client=str(leaking), **{name: str(one) for name, one in growths.items()})
    assert {name for name, one in growths.items() if one.low > bound} == {"leaky_step"}
    assert {name for name, one in growths.items() if one.high > bound} == {"leaky_step"}
    assert leaking.low > bound
