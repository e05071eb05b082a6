"""What the container runs, run here: its entry point's Triton, its checks and its probes."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np
import pytest
import tritonclient.grpc as triton
from support.collectors import Collector, collector
from support.containers import Container, entry_point, write_secrets
from support.deployment import ROOT, run
from support.faulty import held, write_faulty, x
from support.repositories import write_add_one
from support.servers import wait_until

from radserve import TLS, Client, DeadlineExceededError, ServerOverloadedError, ServerUnavailableError
from radserve.options import ClientOptions
from radserve_server import EmbeddedServer
from radserve_server.probe import why_dead
from radserve_server.stubs import stubs_of

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

_WITHOUT_EXTRAS = (
    "import sys; sys.modules.update(onnx=None, yaml=None); from radserve.cli import main; sys.exit(main())"
)


@pytest.fixture(scope="module")
def collected() -> Iterator[Collector]:
    with collector() as running:
        yield running


@pytest.fixture(scope="module")
def container(tmp_path_factory: pytest.TempPathFactory, collected: Collector) -> Iterator[Container]:
    folder = tmp_path_factory.mktemp("container")
    write_add_one(folder / "models")
    write_secrets(folder)
    with entry_point(folder / "models", folder, traces=collected.url) as running:
        yield running


def test_it_answers_those_with_a_certificate(container: Container) -> None:
    with Client(container.grpc, tls=container.tls) as client:
        assert client.health().keys() == {"add_one"}
    options = ClientOptions(endpoints=(container.grpc,), tls=container.tls)
    assert why_dead(options, container.http, container.metrics) is None


def test_it_answers_nobody_else(container: Container) -> None:
    tls = TLS.from_files(container.secrets / "ca.pem")
    for client in (Client(container.grpc, tls=tls), Client(container.grpc, insecure=True)):
        with client, pytest.raises(ServerUnavailableError):
            client.health("add_one", timeout_s=5)


def test_it_tells_spans_of_what_a_caller_traces(container: Container, collected: Collector) -> None:
    trace_ids: list[str] = []
    with _triton(container) as client:

        def is_told() -> bool:  # Triton 2.51 loses one trace in twenty or so
            trace_ids.append(uuid4().hex)
            tensor = triton.InferInput("X", [1, 4], "FP32")
            tensor.set_data_from_numpy(np.zeros((1, 4), np.float32))
            client.infer("add_one", [tensor], headers={"traceparent": f"00-{trace_ids[-1]}-{'cd' * 8}-01"})
            return bool(collected.spans)

        assert wait_until(is_told)
    assert {span.trace_id for span in collected.spans} <= set(trace_ids)


def test_nothing_is_loaded_shared_traced_or_logged_through_a_call(container: Container) -> None:
    with _triton(container) as client:
        refused = [
            lambda: client.load_model("add_one"),
            lambda: client.unload_model("add_one"),
            lambda: client.register_system_shared_memory("region", "/region", 64),
            client.get_trace_settings,
            client.get_log_settings,
        ]
        for call in refused:
            with pytest.raises(triton.InferenceServerException, match=r"restricted|not allowed"):
                call()
        assert client.is_model_ready("add_one")


def _triton(container: Container) -> triton.InferenceServerClient:
    named = {"root_certificates": "ca.pem", "private_key": "client.key", "certificate_chain": "client.pem"}
    files: Any = {option: str(container.secrets / name) for option, name in named.items()}
    return triton.InferenceServerClient(container.grpc, ssl=True, **files)


def _check(repository: Path) -> subprocess.CompletedProcess[str]:
    return run(sys.executable, "-c", _WITHOUT_EXTRAS, "check", "--manifests", repository, check=False)


def test_manifests_are_verified_with_what_the_image_has() -> None:
    done = _check(ROOT / "model_repository")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("9 models as they were published\n")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda models: (models / "add_one" / "config.pbtxt").write_text("name: 'x'"),
            "differs from what was published",
        ),
        (lambda models: (models / "stray").mkdir(), "stray: no manifest covers this model"),
        (shutil.rmtree, "holds no published model"),
    ],
    ids=["changed", "stray", "absent"],
)
def test_a_repository_that_is_not_as_published_is_refused(tmp_path: Path, damage: object, message: str) -> None:
    write_add_one(tmp_path)
    assert callable(damage)
    assert _check(tmp_path).returncode == 0
    damage(tmp_path)
    done = _check(tmp_path)
    assert done.returncode == 1
    assert message in done.stdout


@pytest.fixture
def faulty(tmp_path: Path) -> Iterator[EmbeddedServer]:
    write_faulty(tmp_path / "models")
    with EmbeddedServer(tmp_path / "models", supervise=False, verify=False) as server:
        yield server


def _why_dead(server: EmbeddedServer, timeout_s: float) -> str | None:
    options = ClientOptions(endpoints=(server.grpc_url,), timeout_s=timeout_s)
    return why_dead(options, server.http_url, server.metrics_url)


def test_a_model_whose_process_died_is_dead(faulty: EmbeddedServer) -> None:
    for stub in stubs_of(faulty.pid, faulty.repository):
        os.kill(stub.pid, signal.SIGKILL)
    assert "faulty" in str(_why_dead(faulty, 10))


def test_a_model_that_finishes_nothing_is_dead(faulty: EmbeddedServer) -> None:
    with Client(faulty.grpc_url) as client, held(client.model("faulty"), faulty.repository):
        assert _why_dead(faulty, 0.5) == "model faulty finished no request within 0.5 s"


def test_a_model_that_finishes_others_requests_is_alive(
    faulty: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished = (f'nv_inference_request_success{{model="faulty",version="1"}} {count}\n' for count in itertools.count())
    monkeypatch.setattr("radserve_server.probe._read", lambda *_: next(finished))
    with Client(faulty.grpc_url) as client, held(client.model("faulty"), faulty.repository):
        assert _why_dead(faulty, 0.5) is None


def test_a_model_whose_queue_is_full_is_alive(faulty: EmbeddedServer) -> None:
    def is_full() -> bool:
        try:
            model.infer(x(), timeout_s=0.2)
        except ServerOverloadedError:
            return True
        except DeadlineExceededError:
            return False
        return False

    with ThreadPoolExecutor(2) as pool, Client(faulty.grpc_url) as client:
        model = client.model("faulty")
        with held(model, faulty.repository):
            waiting = [pool.submit(model.infer, x(), timeout_s=60) for _ in range(2)]
            assert wait_until(is_full)
            assert _why_dead(faulty, 5) is None
        assert any(one.exception(60) is None for one in waiting)  # the question above may have taken one's place


def test_a_server_that_is_gone_is_dead(tmp_path: Path) -> None:
    write_add_one(tmp_path / "models")
    with EmbeddedServer(tmp_path / "models", supervise=False) as server:
        assert _why_dead(server, 5) is None
    assert "does not answer" in str(_why_dead(server, 1))
