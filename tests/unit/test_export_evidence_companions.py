"""A model and the one with its evidence maps belong together: neither takes another's name, or is left behind."""

from __future__ import annotations

import re
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import typer
from support.exports import contents, export_network, image_spec, write_spec
from support.networks import evidence_network
from typer.testing import CliRunner

from radserve.contracts.manifest import verify_repository
from radserve.errors import RepositoryError
from radserve_export import commands, pipeline
from radserve_export.check import check_repository
from radserve_export.rollback import rollback

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from radserve_export.network import Network

    Publish = Callable[..., pipeline.Exported]


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return tmp_path / "models"


@pytest.fixture
def publish(tmp_path: Path) -> Publish:
    """Export a model of the trained file of that number."""

    def export(trained: int, **changes: Any) -> pipeline.Exported:
        described = image_spec(network_output="logits", **changes)
        return export_network(tmp_path, evidence_network(trained=trained), described)

    return export


@pytest.mark.parametrize(
    ("before", "then", "told"),
    [
        ({"evidence": True}, {}, "tiny_evidence would go on to explain the network that tiny has now"),
        ({"name": "tiny_evidence"}, {"evidence": True}, "tiny_evidence is another model"),
        ({"evidence": True}, {"name": "tiny_evidence"}, "tiny_evidence is the model with the evidence maps of tiny"),
        (
            {"evidence": True},
            {"name": "tiny_evidence", "evidence": True},
            "is the model with the evidence maps of tiny",
        ),
    ],
)
@pytest.mark.parametrize("trained", [1, 2])
def test_what_does_not_belong_together_is_refused_before_anything_is_written(
    models: Path, publish: Publish, before: dict[str, Any], then: dict[str, Any], told: str, *, trained: int
) -> None:
    publish(1, **before)
    there = contents(models)
    with pytest.raises(RepositoryError, match=told):
        publish(trained, **then)
    assert contents(models) == there
    assert [path.name for path in models.parent.iterdir() if path.name.startswith(".")] == []


def test_the_command_says_in_one_line_what_is_refused(tmp_path: Path, publish: Publish) -> None:
    publish(1, evidence=True)
    app = typer.Typer()
    app.command()(commands.export)
    spec = write_spec(tmp_path, image_spec(network_output="logits"))
    done = CliRunner().invoke(app, [str(spec), "--repository", str(tmp_path / "models")])
    assert done.exit_code == 1
    assert done.stdout == ""
    assert re.fullmatch(r"radserve: .*: say evidence: true; or, to give the maps up, delete .*\n", done.stderr)


def test_the_maps_can_be_given_up_as_the_message_says(models: Path, publish: Publish) -> None:
    """Steps of all versions are named, those that got a name of their own included."""
    publish(1, evidence=True)
    window = {"kind": "fixed", "center": 40, "width": 400}
    bigger = image_spec()["input"] | {"wire_dtype": "UINT16", "window": window}
    publish(2, evidence=True, input=bigger)
    assert (models / "tiny_evidence_pipeline_2").exists()
    with pytest.raises(RepositoryError) as caught:
        publish(3)
    named = re.search(r"delete (.*) there and export again", str(caught.value))
    assert named is not None
    for name in named[1].split(", "):
        shutil.rmtree(models / name)
    assert publish(3).version == 3
    assert verify_repository(models) == []
    assert check_repository(models) == []
    assert "tiny_evidence" not in (models / "README.md").read_text()
    again = publish(3, evidence=True)
    assert (again.version, again.is_new) == (3, False)
    assert again.evidence is not None
    assert again.evidence.version == 4, "no client has prepared anything by a contract of that number"
    assert not publish(3, evidence=True).evidence.is_new  # type: ignore[union-attr]  # seen just above
    assert check_repository(models) == []


def _give_up_maps(models: Path) -> None:
    for folder in models.glob("tiny_evidence*"):
        shutil.rmtree(folder)


def test_numbers_of_maps_ahead_of_their_model_are_not_used_again(models: Path, publish: Publish) -> None:
    for trained in (1, 2):
        publish(trained, evidence=True)
    assert [rollback(models, "tiny_evidence", to=to).version for to in (1, 2)] == [3, 4]
    _give_up_maps(models)
    publish(3)
    again = publish(3, evidence=True)
    assert (again.version, again.is_new) == (3, False)
    assert again.evidence is not None
    assert again.evidence.version == 5
    # What an export numbered is kept, too.
    _give_up_maps(models)
    assert publish(3, evidence=True).evidence.version == 6  # type: ignore[union-attr]  # maps were asked for
    assert verify_repository(models) == []
    assert check_repository(models) == []


def test_numbers_that_cannot_be_read_are_not_passed_over(models: Path, publish: Publish) -> None:
    publish(1, evidence=True)
    (models / ".numbers.json").write_text("{")
    with pytest.raises(RepositoryError, match=r"\.numbers\.json cannot be read: restore it"):
        publish(2, evidence=True)


def test_what_does_not_belong_together_is_refused_before_the_model_is_loaded(
    tmp_path: Path, models: Path, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(1, evidence=True)

    def loaded(*_args: Any, **_options: Any) -> None:
        pytest.fail("the model was loaded")

    monkeypatch.setattr(pipeline, "converted_network", loaded)
    with pytest.raises(RepositoryError, match="tiny_evidence would go on to explain"):
        pipeline.export(write_spec(tmp_path, image_spec(network_output="logits")), models)


def test_what_came_meanwhile_is_found_under_the_lock(
    tmp_path: Path, models: Path, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = evidence_network(trained=2)

    @contextmanager
    def loaded_slowly(*_args: Any, **_options: Any) -> Iterator[Network]:
        publish(1, evidence=True)
        yield network

    monkeypatch.setattr(pipeline, "converted_network", loaded_slowly)
    with pytest.raises(RepositoryError, match="tiny_evidence would go on to explain"):
        pipeline.export(write_spec(tmp_path, image_spec(network_output="logits")), models)


def test_a_model_that_only_has_such_a_name_is_none_of_its_business(models: Path, publish: Publish) -> None:
    publish(1, name="tiny_evidence")
    publish(1)
    assert publish(2).version == 2
    assert publish(2, name="tiny_evidence").version == 2
    assert check_repository(models) == []
