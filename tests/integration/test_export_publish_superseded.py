"""Damage to a version that is served no more reaches neither a server's start nor a publication."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import typer
from support.exports import dense_network, export_network, image_spec
from typer.testing import CliRunner

from radserve.errors import ServerStartError
from radserve_export import release_commands

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from radserve_server import EmbeddedServer

app = typer.Typer()
app.command()(release_commands.publish)


@pytest.mark.parametrize("file", ["tiny_pipeline/1/model.onnx", "tiny/1/manifest.json"])
def test_a_damaged_version_that_no_step_serves_keeps_no_server_from_starting_or_following(
    tmp_path: Path, start_server: Callable[..., EmbeddedServer], file: str
) -> None:
    models = tmp_path / "models"

    for seed in (1, 2, 3):
        export_network(tmp_path, dense_network(seed=seed), image_spec())
    (models / file).write_bytes(b"{")
    url = start_server(models).grpc_url
    export_network(tmp_path, dense_network(seed=4), image_spec())
    done = CliRunner().invoke(app, ["--repository", str(models), "--url", url])
    assert (done.exit_code, done.stdout) == (0, f"{url} serves tiny version 4\n")
    (models / "tiny_pipeline/3/model.onnx").write_bytes(b"{")  # which the step serves beside version 4
    done = CliRunner().invoke(app, ["--repository", str(models), "--url", url])
    assert done.exit_code == 1
    assert "delete the public model and its steps there, and export it again" in done.stderr
    with pytest.raises(ServerStartError, match=r"tiny_pipeline/3/model\.onnx: differs"):
        start_server(models)
