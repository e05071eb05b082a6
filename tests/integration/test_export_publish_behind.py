"""A server that is more than one version behind goes over to the newest one, too."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import typer
from support.callers import Callers
from support.datasets import TEST_FILES
from support.exports import ROWS, dense_network, image_spec, write_spec
from support.servers import served, wait_until
from typer.testing import CliRunner

from radserve import Client
from radserve_export import pipeline, release_commands

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from radserve_export.network import Network
    from radserve_server import EmbeddedServer

    Publish = Callable[..., int]

CT = TEST_FILES / "CT_small.dcm"
STEPS = ("tiny_preprocess", "tiny_network", "tiny_postprocess")

app = typer.Typer()
for command in (release_commands.publish, release_commands.rollback):
    app.command()(command)


@pytest.fixture
def export(tmp_path: Path, use_network: Callable[[Network], None]) -> Publish:
    """Export a version with a window and a network of its own to ``tmp_path/models``, step by step."""

    def run(version: int, *, rows: int = ROWS, kept: int = 5, fuse: bool = False) -> int:
        use_network(dense_network(seed=version, rows=rows))
        described = image_spec(serving={"fuse": fuse, "versions_kept": kept})
        window = {"kind": "fixed", "center": 40, "width": 400 * version}
        described["input"] |= {"modalities": ["CT"], "window": window, "rows": rows}
        return pipeline.export(write_spec(tmp_path, described), tmp_path / "models").version

    return run


def _publish(models: Path, server: EmbeddedServer) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["publish", "--repository", str(models), "--url", server.grpc_url])
    return result.exit_code, result.stdout, result.stderr


def _steps(server: EmbeddedServer) -> list[list[int]]:
    """The versions of each step that are served."""
    return [served(server.grpc_url).get(step, []) for step in STEPS]


@pytest.mark.parametrize("missed", [2, pytest.param(4, marks=pytest.mark.full)])
def test_one_publishing_over_several_versions_loses_no_request_and_mixes_none(
    tmp_path: Path, export: Publish, start_server: Callable[..., EmbeddedServer], missed: int
) -> None:
    models = tmp_path / "models"
    export(1)
    server = start_server(models)
    newest = 1 + missed
    with Callers(server.grpc_url, "tiny", CT) as callers:
        assert callers.see() == 1
        for version in range(2, newest + 1):
            export(version)
        code, output, errors = _publish(models, server)
        assert (code, output, errors) == (0, f"{server.grpc_url} serves tiny version {newest}\n", "")
        assert callers.see() == newest
        # The steps are served as their configurations on the disk say, and follow what comes next.
        assert wait_until(lambda: _steps(server) == [[newest - 1, newest]] * 3), _steps(server)
        export(newest + 1)
        assert _publish(models, server)[0] == 0
        assert callers.see() == newest + 1
    assert wait_until(lambda: _steps(server) == [[newest, newest + 1]] * 3), _steps(server)
    assert set(callers.counts) == {1, newest, newest + 1}
    callers.check()


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
