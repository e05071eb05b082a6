from __future__ import annotations

import json
import logging
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import typer
from onnx import numpy_helper
from support.exports import dense_network, image_spec, runner, write_spec
from typer.testing import CliRunner

from radserve.errors import UntrustedModelError
from radserve_export import commands, pipeline

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from radserve_export.network import Network

app = typer.Typer()
for command in (commands.export, commands.check, commands.train):
    app.command()(command)


@pytest.fixture
def spec(tmp_path: Path, use_network: Callable[[Network], None]) -> Path:
    use_network(dense_network())
    return write_spec(tmp_path, image_spec())


def _run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, result.stdout, result.stderr


def test_an_export_says_what_it_published(tmp_path: Path, spec: Path) -> None:
    code, output, errors = _run("export", spec, "--repository", tmp_path / "models")
    assert (code, errors) == (0, "")
    assert output.startswith("tiny: published as version 1 in")
    code, output, _ = _run("export", spec, "--repository", tmp_path / "models")
    assert code == 0
    assert output.startswith("tiny: unchanged, still version 1 in")


def test_an_export_says_on_what_it_compared(tmp_path: Path, spec: Path, use_network: Callable[[Network], None]) -> None:
    _, output, _ = _run("export", spec, "--repository", tmp_path / "models")
    compared, reference = output.splitlines()[1:]
    assert compared == "tiny: compared on random batches of 1, 2, 7, 64: the network from -2 to 2"
    assert reference.startswith("tiny: no reference: nobody will see its inputs drift")
    network = dense_network()
    weights = network.graph.graph.initializer[0]
    weights.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weights) * 0, weights.name))
    use_network(replace(network, reference=runner(network.graph)))
    _, output, _ = _run("export", spec, "--repository", tmp_path / "other")
    assert output.splitlines()[2].startswith("tiny: note: NETWORK_OUTPUT, PROBABILITIES: one answer to all inputs")


def test_a_failed_export_is_one_line_and_exit_code_1(tmp_path: Path, spec: Path) -> None:
    spec.write_text("name: 1")
    code, output, errors = _run("export", spec, "--repository", tmp_path / "models")
    assert (code, output) == (1, "")
    assert errors.startswith("radserve: ")
    assert errors.count("\n") == 1
    assert not (tmp_path / "models").exists()


def test_an_interrupted_export_is_one_line_and_exit_code_130(
    tmp_path: Path, spec: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_args: object, **_options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "converted_network", interrupted)
    code, output, errors = _run("export", spec, "--repository", tmp_path / "models")
    assert (code, output, errors) == (130, "", "interrupted; what was not reported as finished was not written\n")


def test_one_model_file_belongs_to_one_spec(spec: Path) -> None:
    code, _, errors = _run("export", spec, spec, "--model", "m.keras")
    assert code == 1
    assert "--model belongs to one spec" in errors


def _several(folder: Path, *names: str) -> list[Path]:
    return [write_spec(folder, image_spec(name=name)) for name in names]


def test_one_of_several_specs_that_fails_is_told_and_the_others_are_exported(tmp_path: Path, spec: Path) -> None:
    first, second, third, last = _several(tmp_path, "first", "second", "third", "last")
    second.write_text("name: [")
    third.write_text("name: 1")
    code, output, errors = _run("export", first, second, third, spec, last, "--repository", tmp_path / "models")
    assert code == 1
    published = [line.partition(":")[0] for line in output.splitlines() if ": published as" in line]
    assert published == ["first", "tiny", "last"]
    assert errors.splitlines()[0].startswith(f"radserve: {second}:1:8: not YAML")
    assert errors.splitlines()[1].startswith(f"radserve: {third} is not an export spec")
    assert errors.splitlines()[2:] == [f"radserve: 2 of 5 specs were not exported: {second}, {third}"]
    assert {path.parent.name for path in (tmp_path / "models").glob("*/1")} >= {"first", "last", "tiny"}
    assert not (tmp_path / "models/second").exists()


def test_an_error_that_does_not_name_its_spec_is_told_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: Path, *_args: object, **_options: object) -> None:
        msg = f"{path.name} was not loaded"
        raise UntrustedModelError(msg)

    monkeypatch.setattr(pipeline, "converted_network", refused)
    specs = _several(tmp_path, "first", "second")
    code, output, errors = _run("export", *specs, "--repository", tmp_path / "models")
    assert (code, output) == (1, "")
    assert errors.splitlines() == [
        *(f"radserve: {spec}: tiny.keras was not loaded" for spec in specs),
        f"radserve: 2 of 2 specs were not exported: {specs[0]}, {specs[1]}",
    ]
    assert not (tmp_path / "models").exists()


def test_a_repository_that_is_a_file_is_one_line(tmp_path: Path, spec: Path) -> None:
    (tmp_path / "models").write_text("x")
    code, output, errors = _run("export", spec, "--repository", tmp_path / "models")
    assert (code, output, errors.count("\n")) == (1, "", 1)
    assert str(tmp_path / "models") in errors


def test_what_the_exporter_warns_of_is_a_line_each_and_no_failure(
    tmp_path: Path, spec: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def warning(*_args: object, **_options: object) -> AbstractContextManager[Network]:
        log = logging.getLogger("radserve_export")
        log.info("loaded")
        log.warning("layer %s [red]is\n\x1b[2Jslow :smile:", "gru")
        return nullcontext(dense_network())

    monkeypatch.setattr(pipeline, "converted_network", warning)
    code, output, errors = _run("export", spec, "--repository", tmp_path / "models")
    assert code == 0
    assert output.startswith("tiny: published as version 1")
    assert errors == "radserve: layer gru [red]is  [2Jslow :smile:\n"
    assert logging.getLogger("radserve_export").handlers == []


def test_check_says_that_nothing_is_wrong(tmp_path: Path, spec: Path) -> None:
    _run("export", spec, "--repository", tmp_path / "models")
    assert _run("check", tmp_path / "models") == (0, f"{tmp_path / 'models'}: nothing wrong\n", "")
    assert _run("check", tmp_path / "models", "--json") == (0, "[]\n", "")


def test_check_lists_findings_and_exits_1(tmp_path: Path, spec: Path) -> None:
    _run("export", spec, "--repository", tmp_path / "models")
    (tmp_path / "models/tiny/1/labels.txt").unlink()
    code, output, _ = _run("check", tmp_path / "models", "--json")
    assert code == 1
    assert {"file": "tiny/1/labels.txt", "line": 1, "message": "missing"} in json.loads(output)
    code, output, _ = _run("check", tmp_path / "models")
    assert code == 1
    assert "tiny/1/labels.txt:1: missing\n" in output


def test_checking_what_is_not_there_is_one_line(tmp_path: Path) -> None:
    code, _, errors = _run("check", tmp_path / "absent")
    assert code == 1
    assert errors.startswith("radserve: there is no model repository")


@pytest.mark.parametrize("options", [["--data", "a.npz", "--data-folder", "d"], ["--data-folder", "d"]])
def test_contradicting_training_data_is_one_line(spec: Path, options: list[str]) -> None:
    code, _, errors = _run("train", spec, *options)
    assert code == 1
    assert errors.count("\n") == 1


def test_the_module_is_cheap_to_import() -> None:
    script = (
        "import sys, radserve_export.commands\n"
        "print(sorted({'tensorflow', 'keras', 'onnx', 'onnxruntime', 'numpy', 'grpc'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)  # noqa: S603 - ours
    assert found.stdout == "[]\n"


def test_all_but_from_keras_works_without_tensorflow() -> None:
    script = (
        "import sys, radserve_export.pipeline, radserve_export.check, radserve_export.evaluate\n"
        "print(sorted({'tensorflow', 'keras', 'tf2onnx'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)  # noqa: S603 - ours
    assert found.stdout == "[]\n"
