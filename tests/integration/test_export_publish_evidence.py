"""A server gives up the evidence maps that its repository has no more."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tritonclient.grpc as triton
import typer
from support.exports import COLUMNS, ROWS, export_network, image_spec
from support.networks import evidence_network
from typer.testing import CliRunner

from radserve import Classification, Client
from radserve_export import release_commands

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from radserve_server import EmbeddedServer

app = typer.Typer()
app.command()(release_commands.publish)


@pytest.fixture
def export(tmp_path: Path) -> Callable[..., object]:
    """Export a model of the trained file of that number to ``tmp_path/models``."""

    def run(trained: int, **changes: Any) -> object:
        described = image_spec(network_output="logits", **changes)
        return export_network(tmp_path, evidence_network(trained=trained), described)

    return run


def _ready(url: str, *models: str) -> list[bool]:
    with triton.InferenceServerClient(url) as client:
        return [client.is_model_ready(model) for model in models]


def test_maps_that_were_given_up_are_served_no_more(
    tmp_path: Path, export: Callable[..., object], start_server: Callable[..., EmbeddedServer]
) -> None:
    models, image = tmp_path / "models", np.zeros((ROWS, COLUMNS, 1), np.uint8)
    export(1, evidence=True)
    export(1, name="other_evidence")
    url = start_server(models).grpc_url
    with Client(url) as client:
        shown = client.model("tiny_evidence", Classification).predict(image)
        assert shown.evidence is not None
        assert shown.evidence.label == shown.top.label
        for name in ("tiny_evidence", "tiny_evidence_pipeline", "other_evidence", "other_evidence_pipeline"):
            shutil.rmtree(models / name)
        export(2)
        export(2, name="other")
        done = CliRunner().invoke(app, ["--repository", str(models), "--url", url])
        assert (done.exit_code, done.stdout) == (0, f"{url} serves other version 1, tiny version 2\n")
        assert done.stderr == f"radserve: {url} no longer serves tiny_evidence: {models} has it no more\n"
        assert client.model("tiny").predict(image).version == 2
    assert _ready(url, "tiny_evidence", "tiny_evidence_pipeline") == [False, False]
    # What only has such a name shows no maps, and stays.
    assert _ready(url, "other_evidence", "other_evidence_pipeline") == [True, True]
