"""New versions, and the way back, while callers ask several replicas behind the gateway."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import typer
from support.callers import Callers
from support.datasets import TEST_FILES
from support.exports import ROWS, dense_network, image_spec, write_spec
from support.figures import tell
from support.repositories import write_add_one
from support.servers import served, wait_until
from typer.testing import CliRunner

from radserve_export import pipeline, release_commands
from radserve_server import Cluster

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from radserve_export.network import Network

    Export = Callable[..., int]

CT = TEST_FILES / "CT_small.dcm"

app = typer.Typer()
for command in (release_commands.publish, release_commands.rollback):
    app.command()(command)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return tmp_path / "models"


@pytest.fixture
def export(tmp_path: Path, models: Path, use_network: Callable[[Network], None]) -> Export:
    """Export a version with a window and a network of its own."""

    def run(version: int, *, rows: int = ROWS) -> int:
        use_network(dense_network(seed=version, rows=rows))
        described = image_spec()
        window = {"kind": "fixed", "center": 40, "width": 400 * version}
        described["input"] |= {"modalities": ["CT"], "window": window, "rows": rows}
        return pipeline.export(write_spec(tmp_path, described), models).version

    return run


def _order(cluster: Cluster, *words: str) -> None:
    """Give an order about the repository to every replica."""
    urls = [word for server in cluster.servers for word in ("--url", server.grpc_url)]
    result = CliRunner().invoke(app, [*words, "--repository", str(cluster.repository), *urls])
    assert result.exit_code == 0, result.stderr


def test_publishing_and_rolling_back_lose_no_answer_and_mix_no_versions(models: Path, export: Export) -> None:
    export(1)
    with Cluster(models, replicas=2) as cluster:
        with Callers(cluster.url, "tiny", CT, cluster.tls) as callers:
            assert callers.see() == 1
            export(2)
            _order(cluster, "publish")
            assert callers.see() == 2
            _order(cluster, "rollback", "tiny")
            assert callers.see() == 3
        callers.check()
        assert callers.expected[3] == pytest.approx(callers.expected[1], abs=1e-6)
        assert callers.expected[2] != pytest.approx(callers.expected[1], abs=1e-3)
        assert all(served(server.grpc_url)["tiny"] == [3] for server in cluster.servers)


@pytest.mark.chaos
def test_many_versions_of_changing_sizes_lose_no_answer_either(models: Path, export: Export) -> None:
    export(1)
    write_add_one(models)
    # The gateway's canary is of one size: a model whose size changes cannot be asked by it.
    with Cluster(models, canary="add_one") as cluster:
        with Callers(cluster.url, "tiny", CT, cluster.tls) as callers:
            for rows in (6, ROWS, ROWS, 6):
                export(callers.see() + 1, rows=rows)
                _order(cluster, "publish", "tiny")
            for _ in range(3):
                callers.see()
                _order(cluster, "rollback", "tiny")
            cluster.rolling_restart()
            assert callers.see() == 8
            assert wait_until(lambda: callers.counts.total() >= 5000, 240)
        callers.check()
        assert set(callers.expected) == set(range(1, 9))
    tell(answers_by_version=dict(callers.counts))
