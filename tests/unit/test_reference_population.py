"""The reference that travels in the contract is that of the inputs which the spec names, as they are served."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from support.exports import COLUMNS, ROWS, dense_network, image_spec, text_spec, token_network, write_spec

from radserve.contracts import CONTRACT_PARAMETER, PIXELS, PROBABILITIES, Contract, ImageInput, parse_contract
from radserve.errors import SpecError
from radserve.preprocess import level
from radserve_export import pipeline
from radserve_export.graphs.checked import Chain
from radserve_export.population import SCORE_EDGES, distribution
from radserve_export.spec import load_spec
from radserve_export.synthetic import Split, generate
from radserve_export.triton_config import parse_config

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from radserve_export.network import Network

    UseNetwork = Callable[[Network], None]

REPORTS = {"generator": "report_triage", "samples": 200, "seed": 3}


def write_arrays(folder: Path, n: int = 400) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A MedMNIST file, and its test images."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (n, ROWS, COLUMNS), np.uint8)
    y = np.zeros((n, 1), np.uint8)
    np.savez(folder / "x.npz", train_images=pixels[:5] // 2, train_labels=y[:5], test_images=pixels, test_labels=y)
    return pixels[..., np.newaxis]


def contract_of(folder: Path, name: str = "tiny") -> Contract:
    config = parse_config((folder / "models" / name / "config.pbtxt").read_bytes())
    return parse_contract(config.parameters[CONTRACT_PARAMETER].string_value)


def export(folder: Path, spec: dict[str, Any]) -> pipeline.Exported:
    return pipeline.export(write_spec(folder, spec), folder / "models")


@pytest.mark.parametrize("serving", [{}, {"fuse": False}])
def test_it_holds_the_levels_and_the_served_scores_of_the_inputs(
    tmp_path: Path, use_network: UseNetwork, serving: dict[str, Any]
) -> None:
    use_network(dense_network())
    wire = write_arrays(tmp_path)
    export(tmp_path, image_spec(reference={"data": "x.npz"}, serving=serving))
    contract = contract_of(tmp_path)
    found, described = contract.reference, contract.input
    assert found is not None
    assert found.level is not None
    assert isinstance(described, ImageInput)
    assert found.n == len(wire)
    assert found.level == distribution(np.array([level(one, described) for one in wire]), found.level.edges)
    assert max(found.level.shares) < 0.06  # bins of a twentieth each, but for ties and rounding
    steps = [] if serving else ["pipeline"]
    chain = Chain(
        [
            onnx.load(tmp_path / f"models/tiny_{step}/1/model.onnx")
            for step in steps or ["preprocess", "network", "postprocess"]
        ]
    )
    scores = chain({PIXELS: wire})[PROBABILITIES]
    assert found.scores == tuple(distribution(column, SCORE_EDGES) for column in scores.T)


def test_of_texts_it_counts_characters_and_asks_the_tokenised_text(tmp_path: Path, use_network: UseNetwork) -> None:
    use_network(token_network())
    export(tmp_path, text_spec(reference=REPORTS))
    found = contract_of(tmp_path, "words").reference
    assert found is not None
    assert found.level is not None
    lengths = [len(str(one.source)) for one in generate("report_triage", 200, seed=3, split=Split.TEST)]
    assert found.level == distribution(np.array(lengths), found.level.edges)
    assert [sum(one.shares) for one in found.scores] == [1]


def test_a_folder_of_files_is_read_as_the_sdk_reads_it(tmp_path: Path, use_network: UseNetwork) -> None:
    use_network(token_network())
    (tmp_path / "reports").mkdir()
    for number in range(200):
        (tmp_path / f"reports/{number}.txt").write_text("肺" * (number + 1))
    export(tmp_path, text_spec(reference={"data": "reports"}))
    found = contract_of(tmp_path, "words").reference
    assert found is not None
    assert found.level is not None
    assert found.level.edges == tuple(float(10 * step) for step in range(1, 20))
    assert found.level.shares == (0.05,) * 20


def test_exporting_again_makes_the_same_reference(tmp_path: Path, use_network: UseNetwork) -> None:
    use_network(token_network())
    assert export(tmp_path, text_spec(reference=REPORTS)).is_new
    assert not export(tmp_path, text_spec(reference=REPORTS)).is_new
    assert export(tmp_path, text_spec(reference=REPORTS | {"seed": 4})).is_new


def test_a_model_without_one_says_so(tmp_path: Path, use_network: UseNetwork) -> None:
    use_network(dense_network())
    (note,) = export(tmp_path, image_spec()).notes
    assert "name inputs in the spec's reference block" in note
    assert contract_of(tmp_path).reference is None
    write_arrays(tmp_path)
    assert export(tmp_path, image_spec(reference={"data": "x.npz"})).notes == ()


def test_too_few_inputs_are_refused(tmp_path: Path, use_network: UseNetwork) -> None:
    use_network(dense_network())
    write_arrays(tmp_path, 199)
    with pytest.raises(SpecError, match="reference needs 200 inputs or more, and has 199"):
        export(tmp_path, image_spec(reference={"data": "x.npz"}))
    assert not (tmp_path / "models").exists()


def test_a_file_that_the_model_does_not_take_is_counted_not_named(tmp_path: Path, use_network: UseNetwork) -> None:
    use_network(token_network())
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports/a.txt").write_text("no")
    (tmp_path / "reports/Doe^Jane.txt").write_bytes(b"\xff")
    with pytest.raises(SpecError, match=r"reference\.data: file 1 of the folder.*it is not UTF-8") as caught:
        export(tmp_path, text_spec(reference={"data": "reports"}))
    assert "Doe" not in str(caught.value)


@pytest.mark.parametrize(
    ("plan", "told"),
    [
        ({}, "name either a generator or data"),
        (REPORTS | {"data": "x"}, "name either a generator or data"),
        ({"data": "x", "seed": 1}, "a seed belongs to a generator"),
        ({"generator": "dreams"}, r"reference\.generator: there is no generator dreams"),
        ({"data": "x", "labels": "y.csv"}, "has no field labels"),
    ],
)
def test_a_plan_that_contradicts_itself_is_refused(tmp_path: Path, plan: dict[str, Any], told: str) -> None:
    with pytest.raises(SpecError, match=told):
        load_spec(write_spec(tmp_path, image_spec(reference=plan)))


def test_plain_tensors_have_none(tmp_path: Path) -> None:
    spec = {"name": "plain", "task": "tensors", "model": "x.keras", "reference": REPORTS}
    with pytest.raises(SpecError, match="task tensors takes no reference"):
        load_spec(write_spec(tmp_path, spec))


def test_a_bin_holds_its_upper_edge() -> None:
    found = distribution(np.array([0.0, 1.0, 1.5, 2.0, 9.0]), (1.0, 2.0))
    assert found.shares == (0.4, 0.4, 0.2)
