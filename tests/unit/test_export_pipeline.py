"""Exports of networks that need no TensorFlow: what is written, and what is not."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from support.exports import dense_network, image_spec, label, text_spec, token_network, write_spec, write_tokenizer

from radserve.contracts import parse_contract
from radserve.contracts.manifest import read_manifest, verify_repository
from radserve.errors import ExportError, ParityError, RepositoryError, SpecError
from radserve_export import pipeline
from radserve_export.check import check_repository
from radserve_export.spec import load_spec
from radserve_export.tasks.classification import check_activation
from radserve_export.triton_config import parse_config

if TYPE_CHECKING:
    from collections.abc import Callable

    from radserve_export.network import Network


@pytest.fixture
def use_network(monkeypatch: pytest.MonkeyPatch) -> Callable[[Network], None]:
    """Choose what loading and converting gives."""

    def use(network: Network) -> None:
        monkeypatch.setattr(pipeline, "converted_network", lambda *_args, **_options: nullcontext(network))

    use(dense_network())
    return use


@pytest.fixture
def spec(tmp_path: Path, use_network: Callable[[Network], None]) -> Path:  # noqa: ARG001 - it must be in place
    return write_spec(tmp_path, image_spec())


STEPS_OF_TWO = {"tiny_pipeline": [1], "tiny_pipeline_2": [2]}


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _siblings(folder: Path) -> set[str]:
    return {path.name for path in folder.parent.iterdir()}


def test_an_export_publishes_what_it_checked(tmp_path: Path, spec: Path) -> None:
    done = pipeline.export(spec, tmp_path / "models")
    assert (done.name, done.version, done.is_new) == ("tiny", 1, True)
    assert set(_contents(tmp_path / "models")) == {
        "README.md",
        "tiny/config.pbtxt",
        "tiny/1/labels.txt",
        "tiny/1/manifest.json",
        "tiny/1/configs/tiny.pbtxt",
        "tiny/1/configs/tiny_pipeline.pbtxt",
        "tiny_pipeline/config.pbtxt",
        "tiny_pipeline/1/model.onnx",
    }
    assert check_repository(tmp_path / "models") == []
    manifest = read_manifest(tmp_path / "models/tiny/1/manifest.json")
    assert manifest.parity["outputs"]["pipeline/PROBABILITIES"]["max_abs"] < 1e-6
    assert manifest.models == ("tiny", "tiny_pipeline")
    assert _siblings(tmp_path / "models") == {"models", "tiny.yaml"}


def test_the_same_export_again_writes_nothing(tmp_path: Path, spec: Path) -> None:
    models = tmp_path / "models"
    pipeline.export(spec, models)
    before = {path: path.stat().st_mtime_ns for path in models.rglob("*")}
    done = pipeline.export(spec, models)
    assert (done.version, done.is_new) == (1, False)
    assert {path: path.stat().st_mtime_ns for path in models.rglob("*")} == before


def test_a_new_version_leaves_the_old_one_as_it_was(
    tmp_path: Path, spec: Path, use_network: Callable[[Network], None]
) -> None:
    models = tmp_path / "models"
    pipeline.export(spec, models)
    old = {name: content for name, content in _contents(models).items() if "/1/" in name}
    use_network(dense_network(seed=1))
    assert pipeline.export(spec, models).version == 2
    assert {name: content for name, content in _contents(models).items() if "/1/" in name} == old
    step = parse_config((models / "tiny_pipeline/config.pbtxt").read_bytes())
    assert list(step.version_policy.specific.versions) == [1, 2]
    ensemble = parse_config((models / "tiny/config.pbtxt").read_bytes())
    assert list(ensemble.version_policy.specific.versions) == [2]
    assert ensemble.ensemble_scheduling.step[0].model_version == 2
    assert parse_contract(ensemble.parameters["radserve.contract"].string_value).version == 2
    assert check_repository(models) == []
    assert pipeline.export(spec, models).is_new is False


def test_a_step_of_another_signature_gets_its_own_name(
    tmp_path: Path, spec: Path, use_network: Callable[[Network], None]
) -> None:
    models = tmp_path / "models"
    pipeline.export(spec, models)
    use_network(dense_network(outputs=2))
    write_spec(tmp_path, image_spec(labels=[label("a"), label("b")]))
    pipeline.export(spec, models)
    steps = {name: parse_config((models / name / "config.pbtxt").read_bytes()) for name in STEPS_OF_TWO}
    assert {name: list(step.version_policy.specific.versions) for name, step in steps.items()} == STEPS_OF_TWO
    ensemble = parse_config((models / "tiny/config.pbtxt").read_bytes())
    assert [step.model_name for step in ensemble.ensemble_scheduling.step] == ["tiny_pipeline_2"]
    assert check_repository(models) == []
    assert pipeline.export(spec, models).is_new is False


def test_text_models_export_with_their_tokenizer(tmp_path: Path, use_network: Callable[[Network], None]) -> None:
    use_network(token_network())
    pipeline.export(write_spec(tmp_path, text_spec()), tmp_path / "models")
    assert {path.name for path in (tmp_path / "models/words_tokenize/1").iterdir()} == {"model.py", "tokenizer.json"}
    assert check_repository(tmp_path / "models") == []


STAGES = [
    "reading the spec",
    "loading and converting the model",
    "comparing with Keras",
    "writing the repository",
    "measuring accuracy through the whole path",
    "publishing",
]


PLAN = {"generator": "chest_xray", "samples": 4, "seed": 1, "minimum_accuracy": 0.5}


@pytest.fixture(autouse=True)
def generator_of_the_same_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("radserve_export.spec.labels", lambda _generator: ("a", "b", "c"))


@pytest.fixture
def evaluated(tmp_path: Path, spec: Path) -> Path:
    """The spec, with an evaluation."""
    write_spec(tmp_path, image_spec(evaluation=PLAN))
    return spec


@pytest.mark.parametrize("had_version", [False, True])
@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize("stage", STAGES)
def test_an_interruption_at_any_stage_leaves_no_trace(
    tmp_path: Path,
    spec: Path,
    use_network: Callable[[Network], None],
    stage: str,
    error: type[BaseException],
    *,
    had_version: bool,
) -> None:
    models = tmp_path / "models"
    if had_version:
        pipeline.export(spec, models)
        use_network(dense_network(seed=1))
    write_spec(tmp_path, image_spec(evaluation=PLAN))
    before, siblings = _contents(tmp_path), _siblings(models)

    def progress(now: str) -> None:
        if now == stage:
            raise error

    with pytest.raises(error):
        pipeline.export(spec, models, evaluate=lambda *_: {"accuracy": 1.0}, progress=progress)
    assert _contents(tmp_path) == before
    assert _siblings(models) == siblings


@pytest.mark.parametrize("had_version", [False, True])
def test_an_interruption_at_any_file_operation_leaves_no_trace(
    tmp_path: Path,
    spec: Path,
    use_network: Callable[[Network], None],
    monkeypatch: pytest.MonkeyPatch,
    *,
    had_version: bool,
) -> None:
    """Fails the first renaming, then the second, and so on, until an export gets through."""
    models = tmp_path / "models"
    if had_version:
        pipeline.export(spec, models)
        use_network(dense_network(seed=1))
    before = _contents(tmp_path)
    for fails_at in range(1, 60):
        count = 0

        def counted(original: Callable[..., Any], limit: int = fails_at) -> Callable[..., Any]:
            def call(*args: Any, **options: Any) -> Any:
                nonlocal count
                count += 1
                if count == limit:
                    raise OSError(28, "No space left on device")
                return original(*args, **options)

            return call

        with monkeypatch.context() as patched:
            for owner, name in ((Path, "rename"), (Path, "replace"), (os, "link"), (os, "fsync")):
                patched.setattr(owner, name, counted(getattr(owner, name)))
            try:
                pipeline.export(spec, models)
            except RepositoryError as error:
                assert "No space left on device" in str(error)  # noqa: PT017 - the last round raises nothing
            else:
                assert fails_at > 10
                break
        assert _contents(tmp_path) == before
        assert _siblings(models) == ({"models", "tiny.yaml"} if had_version else {"tiny.yaml"})
    else:
        pytest.fail("no export got through")
    assert verify_repository(models) == []


def test_a_failed_parity_gate_publishes_nothing(
    tmp_path: Path, spec: Path, use_network: Callable[[Network], None]
) -> None:
    use_network(replace(dense_network(), reference=dense_network(seed=1).reference))
    with pytest.raises(ParityError):
        pipeline.export(spec, tmp_path / "models")
    assert _siblings(tmp_path / "models") == {"tiny.yaml"}


_FOUND: dict[str, Any] = {
    "n": 4,
    "seed": 1,
    "labels": ["a", "b", "c"],
    "confusion": [[2, 0, 0], [0, 1, 1], [0, 0, 0]],
    "accuracy": 0.75,
    "skew": {"n": 4, "max": 1.5e-6},
}


def test_what_was_published_unmeasured_is_measured_when_the_spec_asks(tmp_path: Path, evaluated: Path) -> None:
    models = tmp_path / "models"
    assert pipeline.export(evaluated, models).version == 1
    asked: list[Path] = []

    def fail(staged: Path, spec: object, reference: object) -> dict[str, Any]:
        del spec, reference
        asked.append(staged)
        msg = "accuracy too low"
        raise ExportError(msg)

    with pytest.raises(ExportError, match="accuracy too low"):
        pipeline.export(evaluated, models, evaluate=fail)
    assert asked
    done = pipeline.export(evaluated, models, evaluate=lambda *_: _FOUND)
    assert (done.version, done.is_new, done.evaluation) == (2, True, _FOUND)
    again = pipeline.export(evaluated, models, evaluate=fail)
    assert (again.version, again.is_new, again.evaluation) == (2, False, _FOUND)


def test_a_failed_evaluation_publishes_nothing(tmp_path: Path, evaluated: Path) -> None:

    def evaluate(staged: Path, spec: object, reference: object) -> dict[str, Any]:
        del spec, reference
        assert verify_repository(staged) == []
        msg = "accuracy too low"
        raise ExportError(msg)

    with pytest.raises(ExportError, match="accuracy too low"):
        pipeline.export(evaluated, tmp_path / "models", evaluate=evaluate)
    assert _siblings(tmp_path / "models") == {"tiny.yaml"}


def test_the_evaluation_is_in_the_manifest_and_in_the_readme(tmp_path: Path, evaluated: Path) -> None:
    pipeline.export(evaluated, tmp_path / "models", evaluate=lambda *_: _FOUND)
    assert read_manifest(tmp_path / "models/tiny/1/manifest.json").evaluation == _FOUND
    text = (tmp_path / "models/README.md").read_text()
    assert "| `tiny` | 1 | 0.750 | 4 | 1.5e-06 | " in text
    assert "| **b** | 0 | 1 | 1 |" in text
    assert verify_repository(tmp_path / "models") == []


@pytest.mark.parametrize(
    ("described", "message"),
    [
        (image_spec(labels=[label("a"), label("b")]), "the model gives [3] values, but the spec has 2 labels"),
        (
            image_spec(input={**image_spec()["input"], "rows": 5}),
            "the model takes [4, 3, 1], but the spec's input gives [5, 3, 1]",
        ),
    ],
)
def test_a_model_that_does_not_fit_its_spec_is_told(
    tmp_path: Path, spec: Path, described: dict[str, Any], message: str
) -> None:
    write_spec(tmp_path, described)
    with pytest.raises(SpecError) as caught:
        pipeline.export(spec, tmp_path / "models")
    assert message in str(caught.value)


def test_a_tokenizer_larger_than_the_embedding_is_refused(
    tmp_path: Path, use_network: Callable[[Network], None]
) -> None:
    use_network(token_network())
    path = write_spec(tmp_path, text_spec())
    write_tokenizer(tmp_path / "tokenizer.json", ("[PAD]", "[UNK]", *"abcdefg"))
    with pytest.raises(SpecError, match="the tokenizer has 9 tokens, but the model's Embedding only 6"):
        pipeline.export(path, tmp_path / "models")


def test_a_published_file_that_was_changed_is_not_overlooked(tmp_path: Path, spec: Path) -> None:
    pipeline.export(spec, tmp_path / "models")
    (tmp_path / "models/tiny/1/labels.txt").write_text("a\nb\nd\n")
    with pytest.raises(RepositoryError, match=r"labels\.txt is not what was published"):
        pipeline.export(spec, tmp_path / "models")


def test_a_text_model_without_a_tokenizer_is_told_where_one_belongs(
    tmp_path: Path, use_network: Callable[[Network], None]
) -> None:
    use_network(token_network())
    with pytest.raises(SpecError, match=r"name its tokenizer\.json"):
        pipeline.export(write_spec(tmp_path, text_spec(tokenizer=None)), tmp_path / "models")


def test_a_models_own_text_layer_makes_the_tokenize_step(
    tmp_path: Path, use_network: Callable[[Network], None]
) -> None:
    write_tokenizer(tmp_path / "own.json")
    use_network(replace(token_network(), tokenizer=(tmp_path / "own.json").read_bytes()))
    pipeline.export(write_spec(tmp_path, text_spec(tokenizer=None)), tmp_path / "models")
    assert (tmp_path / "models/words_tokenize/1/tokenizer.json").is_file()
    with pytest.raises(SpecError, match="leave the spec's tokenizer out"):
        pipeline.export(write_spec(tmp_path, text_spec()), tmp_path / "models")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"network_output": "logits"}, "say network_output: probabilities"),
        ({"network_output": "logits", "exclusive": False}, "say network_output: probabilities"),
    ],
)
def test_an_activation_that_the_spec_does_not_know_of_is_refused(
    tmp_path: Path,
    use_network: Callable[[Network], None],
    changes: dict[str, Any],
    told: str,
) -> None:
    use_network(dense_network())
    with pytest.raises(SpecError, match=told):
        pipeline.export(write_spec(tmp_path, image_spec(**changes)), tmp_path / "models")
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize(
    ("values", "exclusive", "told"),
    [
        ([[2.0, -1.0, 0.5]], True, "say network_output: logits"),
        ([[0.2, 0.2, 0.2]], True, "do not sum to 1"),
        ([[0.9, 0.8, 1.2]], False, "say network_output: logits"),
        ([[0.2, 0.3, 0.5]], True, None),
        ([[0.9, 0.8, 0.1]], False, None),
    ],
)
def test_what_is_called_probabilities_must_be_some(
    tmp_path: Path, values: list[list[float]], *, exclusive: bool, told: str | None
) -> None:
    spec = load_spec(write_spec(tmp_path, image_spec(exclusive=exclusive)))
    with nullcontext() if told is None else pytest.raises(SpecError, match=told):
        check_activation(np.array(values), spec)


def test_two_exporters_do_not_write_at_once(tmp_path: Path, spec: Path) -> None:
    with (tmp_path / ".models.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(RepositoryError, match="another export is writing to"):
            pipeline.export(spec, tmp_path / "models")
    assert pipeline.export(spec, tmp_path / "models").is_new


def test_a_killed_exporter_leaves_nothing_that_the_next_one_does_not_remove(tmp_path: Path, spec: Path) -> None:
    models = tmp_path / "models"
    script = (
        "import os, signal, sys; from pathlib import Path; from radserve_export import repository as r\n"
        "models = Path(sys.argv[1])\n"
        "with r.locked(models), r.staging(models) as staged:\n"
        "    r.write_staged(staged, {'tiny/config.pbtxt': b'x'})\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", script, str(models)], check=False)  # noqa: S603 - our own code
    assert killed.returncode == -signal.SIGKILL
    assert any(name.startswith(".models.staging-") for name in _siblings(models))
    pipeline.export(spec, models)
    assert _siblings(models) == {"models", "tiny.yaml"}
    assert check_repository(models) == []


def test_a_repository_that_cannot_be_written_is_named(tmp_path: Path, spec: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RepositoryError, match="cannot write beside"):
        pipeline.export(spec, tmp_path / "file" / "models")


def test_the_public_models_configuration_is_what_is_written_last(
    tmp_path: Path, spec: Path, use_network: Callable[[Network], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    models = tmp_path / "models"
    write_spec(tmp_path, image_spec(serving={"fuse": False}))
    pipeline.export(spec, models)
    use_network(dense_network(seed=1))
    placed: list[str] = []

    def spied(original: Callable[..., Any]) -> Callable[..., Any]:
        def spy(source: Path, target: Path) -> Any:
            placed.append(Path(target).relative_to(models).as_posix())
            return original(source, target)

        return spy

    for name in ("rename", "replace"):
        monkeypatch.setattr(Path, name, spied(getattr(Path, name)))
    pipeline.export(spec, models)
    steps = ["tiny_preprocess", "tiny_network", "tiny_postprocess"]
    folders = [f"{name}/2" for name in (*steps, "tiny")]
    configs = [f"{name}/config.pbtxt" for name in (*steps, "tiny")]
    assert placed == [".publishing.json", *folders, *configs, "README.md"]
