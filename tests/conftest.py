"""Fixtures that any test may use."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest
from hypothesis import HealthCheck
from support import installations
from support.leftovers import children
from support.servers import write_certificate

from radserve_server import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.installations import CopyTriton

    from radserve_export.network import Network

REPOSITORY = Path(__file__).parent.parent / "model_repository"


def pytest_configure() -> None:
    """Let Ctrl-C reach the programs under test: where a shell starts this run in the background, it is ignored."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # tests and benchmarks import ONNX Runtime, too
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # How fast a machine is, no test judges.
    hypothesis.settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    hypothesis.settings.load_profile("any machine")


@pytest.fixture
def no_child_left() -> Iterator[None]:
    """Fails a test that leaves a process behind; servers of the whole run are none of its business."""
    before = children()
    yield
    assert children() <= before


@pytest.fixture
def start_server() -> Iterator[Callable[..., EmbeddedServer]]:
    """A function that starts a server on free ports: ``start_server(repository, **options)``."""
    with ExitStack() as running:

        def start(repository: Path, **options: Any) -> EmbeddedServer:
            return running.enter_context(EmbeddedServer(repository, **options))

        yield start


@pytest.fixture(scope="session")
def reference_server() -> Iterator[EmbeddedServer]:
    """One server of the committed model repository for the whole run; tests only send requests."""
    # A supervisor's thread would call, and tell spans of, what tests replace and listen to.
    with EmbeddedServer(REPOSITORY, supervise=False) as server:
        yield server


@pytest.fixture
def copy_triton(tmp_path: Path) -> CopyTriton:
    """A function that copies the installed Triton, to be damaged; returns its executable."""

    def copy(*, libpython: str | None = None) -> Path:
        return installations.copy_triton(tmp_path / "tritonserver", libpython)

    return copy


@pytest.fixture
def use_network(monkeypatch: pytest.MonkeyPatch) -> Callable[[Network], None]:
    """A function that chooses what loading and converting a model gives to the exporter."""

    def use(network: Network) -> None:
        monkeypatch.setattr(
            "radserve_export.pipeline.converted_network", lambda *_args, **_options: nullcontext(network)
        )

    return use


@pytest.fixture(scope="session")
def pems(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keys and certificates of two clients."""
    folder = tmp_path_factory.mktemp("pems")
    for name in ("one", "two"):
        write_certificate(folder, name)
    return folder
