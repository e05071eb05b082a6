"""Publishing and rolling back while a Triton in explicit mode serves the repository under load."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tritonclient.grpc as triton
import typer
from support.callers import CALLERS, Callers
from support.datasets import TEST_FILES
from support.exports import COLUMNS, ROWS, dense_network, image_spec, write_spec
from support.networks import convolutional_network, recurrent_network
from support.servers import free_port, raw_server, served, wait_until, write_certificate
from typer.testing import CliRunner

from radserve import Client
from radserve.contracts import PROBABILITIES
from radserve_export import pipeline, release_commands
from radserve_export.graphs import NETWORK_INPUT, NETWORK_OUTPUT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from radserve_export.network import Network
    from radserve_server import EmbeddedServer

    Publish = Callable[..., int]

CT = TEST_FILES / "CT_small.dcm"
WIDTHS = {1: 400, 2: 1500, 3: 3000, 4: 800}

app = typer.Typer()
for command in (release_commands.publish, release_commands.rollback):
    app.command()(command)


@pytest.fixture
def export(tmp_path: Path, use_network: Callable[[Network], None]) -> Publish:
    """Export a version with a window and a network of its own to ``tmp_path/models``."""

    def run(version: int, *, rows: int = ROWS, **changes: Any) -> int:
        use_network(dense_network(seed=version, rows=rows))
        described = image_spec(**changes)
        window = {"kind": "fixed", "center": 40, "width": WIDTHS[version]}
        described["input"] |= {"modalities": ["CT"], "window": window, "rows": rows}
        return pipeline.export(write_spec(tmp_path, described), tmp_path / "models").version

    return run


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """The repository that ``export`` writes."""
    return tmp_path / "models"


@pytest.fixture
def server(models: Path, export: Publish, start_server: Callable[..., EmbeddedServer]) -> EmbeddedServer:
    """A server of version 1."""
    export(1)
    running: EmbeddedServer = start_server(models)
    return running


def _run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, result.stdout, result.stderr


@pytest.mark.parametrize("fuse", [True, pytest.param(False, marks=pytest.mark.full)])
def test_publishing_and_rolling_back_under_load_loses_no_request_and_mixes_no_versions(
    tmp_path: Path, export: Publish, start_server: Callable[..., EmbeddedServer], *, fuse: bool
) -> None:
    models = tmp_path / "models"
    export(1, serving={"fuse": fuse})
    server = start_server(models)
    with Callers(server.grpc_url, "tiny", CT) as callers:
        assert callers.see() == 1
        assert export(2, serving={"fuse": fuse}) == 2
        assert callers.see() == 1  # the files are there, but the server has not been asked
        assert _run("publish", "--repository", models, "--url", server.grpc_url)[0] == 0
        assert callers.see() == 2
        code, output, _ = _run("rollback", "tiny", "--repository", models, "--url", server.grpc_url)
        assert (code, output.splitlines()[-1]) == (0, f"{server.grpc_url} serves tiny version 3")
        assert callers.see() == 3
    callers.check()
    # The window and the weights of version 1 are back, and version 2's were others.
    assert callers.expected[3] == pytest.approx(callers.expected[1], abs=1e-6)
    assert callers.expected[2] != pytest.approx(callers.expected[1], abs=1e-3)


def test_a_version_of_another_input_size_follows_without_a_gap_and_its_old_step_is_unloaded(
    models: Path, export: Publish, server: EmbeddedServer
) -> None:
    with Callers(server.grpc_url, "tiny", CT) as callers:
        assert callers.see() == 1
        export(2, rows=6)
        assert _run("publish", "tiny", "--repository", models, "--url", server.grpc_url)[0] == 0
        assert callers.see() == 2
        assert _run("rollback", "tiny", "--repository", models, "--url", server.grpc_url)[0] == 0
        assert callers.see() == 3
    callers.check()
    assert wait_until(lambda: set(served(server.grpc_url)) == {"tiny", "tiny_pipeline_3"}), served(server.grpc_url)


def test_callers_who_neither_retry_nor_name_a_version_lose_no_request_either(
    models: Path, export: Publish, server: EmbeddedServer
) -> None:
    """The public model is there at every moment: the old version until the new one is ready."""
    stop, more = threading.Event(), threading.Condition()
    seen: set[tuple[int, str]] = set()

    def call(caller: int) -> None:
        tensor = triton.InferInput("PIXELS", [1, ROWS, COLUMNS, 1], "UINT8")
        tensor.set_data_from_numpy(np.zeros((1, ROWS, COLUMNS, 1), np.uint8))
        with triton.InferenceServerClient(server.grpc_url) as client:
            while not stop.is_set():
                answer = client.infer("tiny", [tensor], client_timeout=20).get_response()
                with more:
                    seen.add((caller, answer.model_version))
                    more.notify_all()

    def all_see(version: int) -> bool:
        with more:
            wanted = {(caller, str(version)) for caller in range(CALLERS)}
            return more.wait_for(lambda: seen >= wanted or any(one.done() for one in callers), timeout=60)

    with ThreadPoolExecutor(CALLERS) as pool:
        callers = [pool.submit(call, caller) for caller in range(CALLERS)]
        try:
            assert all_see(1)
            for version in (2, 3, 4):
                export(version)
                assert _run("publish", "--repository", models, "--url", server.grpc_url)[0] == 0
                assert all_see(version)
            assert _run("rollback", "tiny", "--repository", models, "--url", server.grpc_url)[0] == 0
            assert all_see(5)
        finally:
            stop.set()
        for one in callers:
            one.result(60)


@pytest.mark.full
def test_many_versions_in_a_row_lose_no_request(models: Path, export: Publish, server: EmbeddedServer) -> None:
    with Callers(server.grpc_url, "tiny", CT) as callers:
        callers.see()
        for version in (2, 3, 4, 1, 2, 3):
            export(version)
            assert _run("publish", "--repository", models, "--url", server.grpc_url)[0] == 0
            callers.see()
        for _ in range(3):
            assert _run("rollback", "tiny", "--repository", models, "--url", server.grpc_url)[0] == 0
            callers.see()
    callers.check()
    assert set(callers.expected) == set(range(1, 11))


def test_networks_in_lower_precision_are_served_as_they_were_checked(
    tmp_path: Path, use_network: Callable[[Network], None], start_server: Callable[..., EmbeddedServer]
) -> None:
    loose = {"atol": 0.05, "minimum_agreement": 0.9}
    cases: dict[str, tuple[Network, dict[str, Any]]] = {
        "half": (convolutional_network(), {"precision": "fp16"}),
        "static": (convolutional_network(), {"quantization": "static"}),
        "dynamic": (recurrent_network(), {"quantization": "dynamic", "instances": {"kind": "cpu"}}),
    }
    for name, (network, serving) in cases.items():
        use_network(network)
        spec = image_spec(name=name, serving=serving | {"low_precision": loose})
        pipeline.export(write_spec(tmp_path, spec), tmp_path / "models")
    pixels = np.random.default_rng(0).integers(0, 256, (7, ROWS, COLUMNS, 1)).astype(np.uint8)
    scaled = (pixels.astype(np.float32) / 255 - 0.5) / 0.25
    with Client(start_server(tmp_path / "models").grpc_url) as client:
        for name, (network, _) in cases.items():
            served = client.model(name).infer({"PIXELS": pixels})[PROBABILITIES]
            wanted = network.reference({NETWORK_INPUT: scaled})[NETWORK_OUTPUT]
            np.testing.assert_allclose(served, wanted, atol=0.05, rtol=0, err_msg=name)


def test_a_server_that_reads_another_repository_is_told(
    tmp_path: Path, export: Publish, start_server: Callable[..., EmbeddedServer]
) -> None:
    export(1)
    (tmp_path / "models").rename(tmp_path / "other")
    server = start_server(tmp_path / "other")
    export(1)
    export(2)
    code, output, errors = _run("publish", "--repository", tmp_path / "models", "--url", server.grpc_url)
    assert (code, output) == (1, "")
    assert "does not serve version 2 of tiny: its repository is another one: copy this one" in errors
    assert errors.count("\n") == 1


def test_one_server_that_is_down_does_not_keep_the_others_from_the_version(
    models: Path, export: Publish, server: EmbeddedServer
) -> None:
    export(2)
    down = f"127.0.0.1:{free_port()}"
    code, output, errors = _run("publish", "--repository", models, "--url", down, "--url", server.grpc_url)
    assert (code, output) == (1, f"{server.grpc_url} serves tiny version 2\n")
    assert errors.startswith(f"radserve: {down}: ")
    assert errors.count("\n") == 1


def test_a_version_that_does_not_load_leaves_the_old_one_serving(
    models: Path, export: Publish, server: EmbeddedServer
) -> None:
    export(2)
    graph = models / "tiny_pipeline/2/model.onnx"
    graph.write_bytes(b"not a graph")
    code, _, errors = _run("publish", "--repository", models, "--url", server.grpc_url)
    assert code == 1
    assert "tiny_pipeline/2/model.onnx: differs from what was published" in errors
    with Client(server.grpc_url) as client:
        assert client.model("tiny").predict(CT).version == 1


def test_a_restricted_server_takes_the_right_secret_alone(
    tmp_path: Path, export: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = tmp_path / "models"
    export(1)
    restricted = "--grpc-restricted-protocol=model-repository:admin=s3cret"
    with raw_server(models, "--model-control-mode=explicit", restricted) as (_, url):
        options = ("publish", "--repository", models, "--url", url)
        code, _, errors = _run(*options)
        assert code == 1
        assert "give --protocol-key, and its secret in RADSERVE_PROTOCOL_SECRET" in errors
        monkeypatch.delenv("RADSERVE_PROTOCOL_SECRET", raising=False)
        assert "--protocol-key needs its secret" in _run(*options, "--protocol-key", "admin")[2]
        for secret, expected in (("wrong", 1), ("s3cret", 0)):
            monkeypatch.setenv("RADSERVE_PROTOCOL_SECRET", secret)
            code, output, errors = _run(*options, "--protocol-key", "admin")
            assert code == expected
            assert secret not in output + errors


def test_a_server_that_does_not_take_orders_is_told_how_to(tmp_path: Path, export: Publish) -> None:
    export(1)
    with raw_server(tmp_path / "models", "--model-control-mode=none") as (_, url):
        code, _, errors = _run("publish", "--repository", tmp_path / "models", "--url", url)
    assert code == 1
    assert "start the server with --model-control-mode=explicit" in errors


def test_a_server_behind_mutual_tls_takes_orders_of_its_client_alone(tmp_path: Path, export: Publish) -> None:
    export(1)
    for name, signed_by in (("ca", None), ("server", "ca"), ("client", "ca")):
        write_certificate(tmp_path, name, signed_by)
    arguments = ["--grpc-use-ssl-mutual=true", f"--grpc-server-cert={tmp_path}/server.pem"]
    arguments += [f"--grpc-server-key={tmp_path}/server.key", f"--grpc-root-cert={tmp_path}/ca.pem"]
    with raw_server(tmp_path / "models", "--model-control-mode=explicit", *arguments) as (_, url):
        options = ("publish", "--repository", tmp_path / "models", "--url", url, "--timeout", 5)
        trusted = (*options, "--tls-ca", tmp_path / "ca.pem")
        assert _run(*options)[0] == 1
        assert _run(*trusted)[0] == 1
        code, output, _ = _run(*trusted, "--tls-cert", tmp_path / "client.pem", "--tls-key", tmp_path / "client.key")
    assert (code, output) == (0, f"{url} serves tiny version 1\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("publish", "--url", "triton.hospital.local:8001"), "is not this machine: give --tls-ca"),
        (("publish", "--url", "localhost:1", "--tls-cert", "c.pem"), "mutual TLS needs"),
        (("publish", "absent", "--url", "localhost:1"), "has no public model absent: it has tiny\n"),
        (("rollback", "absent"), "has no public model absent: it has tiny\n"),
        (("rollback", "tiny"), "tiny: version 1 is served, and nothing older is kept\n"),
    ],
)
def test_wrong_orders_are_one_line(tmp_path: Path, export: Publish, arguments: tuple[str, ...], message: str) -> None:
    export(1)
    code, _, errors = _run(*arguments, "--repository", tmp_path / "models")
    assert code == 1
    assert message in errors
    assert errors.count("\n") == 1


def test_the_commands_are_cheap_to_import() -> None:
    script = (
        "import sys, radserve_export.release_commands\n"
        "print(sorted({'tensorflow', 'onnx', 'onnxruntime', 'numpy', 'grpc'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)  # noqa: S603 - ours
    assert found.stdout == "[]\n"
