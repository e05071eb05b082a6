"""A candidate's answers against those of the release in use."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest
import typer
from support.answers import segmentation
from support.classifiers import text_contract, write_classifier
from support.sdk_contracts import TEXT, contract, tensors
from typer.testing import CliRunner

from radserve import InputError, Rejection
from radserve.contracts import Contract, Datatype, TensorSpec
from radserve_server import compare as compares
from radserve_server.compare import Comparison, compare, lost_canary, main, unasked

if TYPE_CHECKING:
    from pathlib import Path

    from radserve.results import Segmentation
    from radserve_server import EmbeddedServer


class _Answer:
    """What ``to_dict`` tells of a result."""

    def __init__(self, version: int = 1, probability: float = 0.9, *, is_positive: bool = True, text: str = "") -> None:
        finding = {"label": "a", "probability": probability, "is_positive": is_positive, "is_indeterminate": False}
        self._told = {"version": version, "findings": [finding], "text": text}

    def to_dict(self) -> dict[str, Any]:
        return self._told


def _rejection() -> Rejection:
    return Rejection(index=0, error=InputError("no"))


def test_probabilities_may_move_and_decisions_count() -> None:
    pairs: list[Any] = [
        (_Answer(), _Answer(2, 0.8)),
        (_Answer(), _Answer(2, 0.4, is_positive=False)),
        (_Answer(), _Answer(2, text="other")),
        (_Answer(), _Answer(2)),
    ]
    assert compare(pairs) == Comparison(4, 2, 0, 0.5, (("1",), ("2",)))
    assert compare(pairs).share_changed == 0.5


def test_what_only_one_release_answers_has_changed() -> None:
    pairs: list[Any] = [(_Answer(), _rejection()), (_rejection(), _Answer()), (_rejection(), _rejection())]
    found = compare(pairs)
    assert (found.inputs, found.changed, found.unanswered) == (3, 2, 1)


@pytest.mark.parametrize("count", [0, 2])
def test_where_nothing_was_answered_nothing_is_shown(count: int) -> None:
    assert compare([(_rejection(), _rejection())] * count).share_changed == 1


def _drawn(*pixels: int) -> Segmentation:
    label_map = np.zeros((10, 20), np.uint8)
    label_map.flat[list(pixels)] = 1
    return segmentation(label_map=label_map)


def test_an_outline_that_moved_has_changed_although_it_is_there_in_both() -> None:
    before = _drawn(*range(100))
    moved, hardly, elsewhere = _drawn(*range(10, 110)), _drawn(*range(2, 102)), _drawn(*range(100, 200))
    found = compare([(before, before), (before, hardly), (before, moved), (before, elsewhere)])
    assert (found.changed, found.lowest_overlap) == (2, 0)
    assert (compare([(before, moved)]).lowest_overlap, compare([(before, moved)], 0.9).changed) == (0.9, 0)


def test_outlines_are_compared_where_there_are_any_and_on_one_grid() -> None:
    assert compare([(_drawn(), _drawn())]) == Comparison(1, 0, 0, 0.0, (("2",), ("2",)), 1.0)
    other = segmentation(label_map=np.zeros((20, 10), np.uint8))
    assert compare([(_drawn(), other)]).changed == 1


def _named(name: str, version: int = 1) -> Contract:
    return msgspec.structs.replace(tensors(), name=name, version=version)


@pytest.mark.parametrize(
    ("candidate", "asked", "told"),
    [
        ([_named("a"), _named("b")], [], []),
        ([_named("a"), _named("b", 2)], ["b"], []),
        ([_named("a"), _named("b", 2)], ["a"], ["b"]),
        ([_named("a")], ["a", "b"], ["b"]),
        ([_named("a"), _named("b"), _named("c")], [], []),
    ],
    ids=["same", "asked", "not asked", "gone", "new"],
)
def test_what_changed_must_have_been_asked(candidate: list[Contract], asked: list[str], told: list[str]) -> None:
    assert unasked([_named("a"), _named("b")], candidate, asked) == told


def _taking(dtype: Datatype = Datatype.FP32, *dims: int, name: str = "X") -> Contract:
    return tensors(inputs=(TensorSpec(name=name, dtype=dtype, dims=dims or (4,)),))


@pytest.mark.parametrize(
    "later",
    [[], [_taking(Datatype.UINT8)], [_taking(Datatype.FP32, 5)], [_taking(name="Y")], [contract(TEXT)]],
)
def test_a_canary_that_the_candidate_would_not_answer_is_named(later: list[Contract]) -> None:
    assert lost_canary([_taking()], later) == "raw"


def test_a_canary_outlives_what_changes_of_other_models() -> None:
    later = msgspec.structs.replace(_taking(), version=2)
    assert lost_canary([_taking()], [later, contract(TEXT)]) is None
    assert lost_canary([_taking(), contract(TEXT)], [_taking(Datatype.UINT8), contract(TEXT, version=4)]) is None
    assert lost_canary([_taking(), contract(TEXT)], [_taking(Datatype.UINT8), contract(TEXT)], "raw") == "raw"
    with pytest.raises(InputError, match="no public model other"):
        lost_canary([_taking()], [_taking()], "other")


@pytest.fixture
def run(reference_server: EmbeddedServer) -> Any:
    app = typer.Typer()
    app.command()(main)
    urls = ["--live", reference_server.grpc_url, "--candidate", reference_server.grpc_url]
    return lambda folder, *given: CliRunner().invoke(app, [str(folder), *urls, *given])


def _write_reports(folder: Path, *models: str) -> None:
    for model in models:
        (folder / model).mkdir(parents=True)
        for number, text in enumerate(("No evidence of pneumothorax.", "Large pneumothorax on the left.")):
            (folder / model / f"{number}.txt").write_text(text)


def test_a_release_agrees_with_itself(run: Any, tmp_path: Path) -> None:
    _write_reports(tmp_path, "report_triage")
    done = run(tmp_path)
    assert done.exit_code == 0, done.output
    told = json.loads(done.output)
    assert (told["model"], told["inputs"], told["share_changed"], told["unanswered"]) == ("report_triage", 2, 0, 0)
    assert told["versions"] == [["1"], ["1"]]


def test_a_release_that_the_gateways_canary_cannot_ask_fails(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write_reports(tmp_path, "report_triage")
    monkeypatch.setattr(compares, "lost_canary", lambda *_: "report_triage")
    done = run(tmp_path)
    assert done.exit_code == 1
    assert "the gateways' canary asks report_triage" in done.output


def test_a_release_that_changes_what_was_not_asked_fails(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write_reports(tmp_path, "report_triage")
    monkeypatch.setattr(compares, "unasked", lambda *_: ["chest_xray"])
    done = run(tmp_path)
    assert done.exit_code == 1
    assert "changed or gone, and not compared: chest_xray; put inputs" in done.output


def test_inputs_of_a_new_model_are_told_and_those_of_none_fail(run: Any, start_server: Any, tmp_path: Path) -> None:
    write_classifier(tmp_path / "models", text_contract())
    before = start_server(tmp_path / "models", verify=False, supervise=False).grpc_url
    _write_reports(tmp_path / "inputs", "report_triage", "report_triag")
    done = run(tmp_path / "inputs", "--live", before)
    assert "report_triage is in one release alone: nothing to compare" in done.output
    assert "report_triag is in no release" in done.output
    same = run(tmp_path / "inputs")
    assert (same.exit_code, json.loads(same.stdout)["share_changed"]) == (1, 0)


def test_a_reference_set_that_nobody_answers_fails(run: Any, tmp_path: Path) -> None:
    (tmp_path / "chest_xray").mkdir()
    (tmp_path / "chest_xray" / "0.dcm").write_text("no image")
    assert run(tmp_path).exit_code == 1


def test_an_empty_reference_set_is_refused(run: Any, tmp_path: Path) -> None:
    assert isinstance(run(tmp_path).exception, InputError)
