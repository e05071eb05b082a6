"""The committed models with their steps kept apart answer as the fused ones do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import yaml

from radserve import Client
from radserve_export.pipeline import export
from radserve_export.synthetic import Split, generate

if TYPE_CHECKING:
    from collections.abc import Callable

    from radserve_server import EmbeddedServer

SPECS = Path(__file__).resolve().parents[2] / "export" / "specs"


@pytest.mark.parametrize("name", ["chest_xray", "ecg_rhythm", "report_triage"])
def test_three_steps_answer_as_one(
    name: str, tmp_path: Path, reference_server: EmbeddedServer, start_server: Callable[..., EmbeddedServer]
) -> None:
    spec = yaml.safe_load((SPECS / f"{name}.yaml").read_text(encoding="utf-8"))
    spec["serving"] = {"fuse": False}
    spec["model"] = str(SPECS / spec["model"])
    if "tokenizer" in spec:
        spec["tokenizer"] = str(SPECS / spec["tokenizer"])
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec, allow_unicode=True), encoding="utf-8")
    export(tmp_path / "spec.yaml", tmp_path / "models")
    steps = {path.name for path in (tmp_path / "models").iterdir() if path.is_dir()}
    assert f"{name}_network" in steps
    assert f"{name}_pipeline" not in steps
    apart = start_server(tmp_path / "models")
    with Client(apart.grpc_url) as one, Client(reference_server.grpc_url) as other:
        for sample in generate(name, 20, seed=77, split=Split.TEST):
            found = [client.model(name).predict(sample.source).findings for client in (one, other)]
            probabilities = [{finding.label: finding.probability for finding in findings} for findings in found]
            assert probabilities[0] == pytest.approx(probabilities[1], abs=1e-6)
            assert np.isfinite(list(probabilities[0].values())).all()
