"""A server that is more than one version behind goes over to the newest one, too."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pydicom
import pytest
import tritonclient.grpc as triton
import typer
from support.exports import ROWS, dense_network, image_spec, write_spec
from typer.testing import CliRunner

from radserve import Client
from radserve.contracts import PROBABILITIES
from radserve_export import pipeline, release_commands

if TYPE_CHECKING:
    from collections.abc import Callable

    from radserve import Classification
    from radserve_server import EmbeddedServer

    Publish = Callable[..., int]

CT = Path(pydicom.__file__).parent / "data" / "test_files" / "CT_small.dcm"
CALLERS = 3
SEEN_BEFORE_GOING_ON = 120
STEPS = ("tiny_preprocess", "tiny_network", "tiny_postprocess")

app = typer.Typer()
for command in (release_commands.publish, release_commands.rollback):
    app.command()(command)


@pytest.fixture
def export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Publish:
    """Export a version with a window and a network of its own to ``tmp_path/models``, step by step."""

    def run(version: int, *, rows: int = ROWS, kept: int = 5, fuse: bool = False) -> int:
        network = dense_network(seed=version, rows=rows)
        monkeypatch.setattr(pipeline, "converted_network", lambda *_args, **_options: nullcontext(network))
        described = image_spec(serving={"fuse": fuse, "versions_kept": kept})
        window = {"kind": "fixed", "center": 40, "width": 400 * version}
        described["input"] |= {"modalities": ["CT"], "window": window, "rows": rows}
        return pipeline.export(write_spec(tmp_path, described), tmp_path / "models").version

    return run


def _publish(models: Path, server: EmbeddedServer) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["publish", "--repository", str(models), "--url", server.grpc_url])
    return result.exit_code, result.stdout, result.stderr


def _expected(client: Client) -> tuple[int, dict[str, float]]:
    """The version served now, and what it must answer."""
    model = client.model("tiny")
    (row,) = model.infer(model.prepare(CT))[PROBABILITIES]
    return model.contract.version, {
        one.name: float(value) for one, value in zip(model.contract.labels, row, strict=True)
    }


def _served(server: EmbeddedServer, step: str) -> list[str]:
    with triton.InferenceServerClient(server.grpc_url) as client:
        models = client.get_model_repository_index().models
    return sorted(one.version for one in models if one.name == step and one.state == "READY")


class _Callers:
    """Send the same file again and again, never twice for one answer."""

    def __init__(self, client: Client) -> None:
        self.answers: list[Classification] = []
        self._stop = threading.Event()
        self._more = threading.Condition()
        self._pool = ThreadPoolExecutor(CALLERS)
        self._running = [self._pool.submit(self._call, client.model("tiny")) for _ in range(CALLERS)]

    def _call(self, model: Any) -> None:
        while not self._stop.is_set():
            answer = model.predict(CT)
            with self._more:
                self.answers.append(answer)
                self._more.notify_all()

    def see(self) -> None:
        with self._more:
            wanted = len(self.answers) + SEEN_BEFORE_GOING_ON
            self._more.wait_for(lambda: len(self.answers) >= wanted, timeout=60)

    def finish(self) -> None:
        """Stop; raises what a caller met."""
        self._stop.set()
        try:
            for one in self._running:
                one.result(60)
        finally:
            self._pool.shutdown()


@pytest.mark.parametrize("missed", [2, pytest.param(4, marks=pytest.mark.full)])
def test_one_publishing_over_several_versions_loses_no_request_and_mixes_none(
    tmp_path: Path, export: Publish, start_server: Callable[..., EmbeddedServer], missed: int
) -> None:
    models = tmp_path / "models"
    export(1)
    server = start_server(models)
    newest = 1 + missed
    with Client(server.grpc_url, timeout_s=20) as client:
        expected = dict([_expected(client)])
        callers = _Callers(client)
        try:
            callers.see()
            for version in range(2, newest + 1):
                export(version)
            code, output, errors = _publish(models, server)
            assert (code, output, errors) == (0, f"{server.grpc_url} serves tiny version {newest}\n", "")
            expected |= dict([_expected(client)])
            callers.see()
            # The steps are served as their configurations on the disk say, and follow what comes next.
            assert [_served(server, step) for step in STEPS] == [[str(newest - 1), str(newest)]] * 3
            export(newest + 1)
            assert _publish(models, server)[0] == 0
            expected |= dict([_expected(client)])
            callers.see()
        finally:
            callers.finish()
    assert [_served(server, step) for step in STEPS] == [[str(newest), str(newest + 1)]] * 3
    assert {answer.version for answer in callers.answers} == {1, newest, newest + 1}
    for answer in callers.answers:
        found = {finding.label: finding.probability for finding in answer.findings}
        assert found == pytest.approx(expected[answer.version], abs=1e-6)


def test_a_version_that_was_pruned_while_it_was_served_is_told(
    tmp_path: Path, export: Publish, start_server: Callable[..., EmbeddedServer]
) -> None:
    models = tmp_path / "models"
    export(1, fuse=True)
    server = start_server(models)
    for version in (2, 3):
        export(version, fuse=True, kept=2)
    assert not (models / "tiny_pipeline/1").exists()
    code, output, errors = _publish(models, server)
    assert (code, output) == (0, f"{server.grpc_url} serves tiny version 3\n")
    assert "serves version 1 of tiny, whose step tiny_pipeline is pruned from" in " ".join(errors.split())


def test_a_step_whose_name_came_back_with_another_signature_is_told(
    tmp_path: Path, export: Publish, start_server: Callable[..., EmbeddedServer]
) -> None:
    models = tmp_path / "models"
    export(1, fuse=True)
    server = start_server(models)
    export(2)
    export(3, fuse=True, rows=6)
    code, _, errors = _publish(models, server)
    assert code == 0
    assert "tiny_pipeline is pruned from" in " ".join(errors.split())
    with Client(server.grpc_url) as client:
        assert client.model("tiny").predict(CT).version == 3
