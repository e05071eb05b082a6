"""Exports that are interrupted, killed, or not alone: nothing half-written is ever published."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.exports import contents, dense_network, image_spec, siblings, write_spec

from radserve.contracts.manifest import verify_repository
from radserve.errors import RepositoryError
from radserve_export import pipeline
from radserve_export.check import check_repository

if TYPE_CHECKING:
    from collections.abc import Callable

    from radserve_export.network import Network


@pytest.fixture
def spec(tmp_path: Path, use_network: Callable[[Network], None]) -> Path:
    use_network(dense_network())
    return write_spec(tmp_path, image_spec())


STAGES = [
    "reading the spec",
    "loading and converting the model",
    "comparing with Keras",
    "writing the repository",
    "measuring accuracy through the whole path",
    "publishing",
]


@pytest.fixture
def plan(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """An evaluation on data with the labels of the spec."""
    monkeypatch.setattr("radserve_export.spec.labels", lambda _generator: ("a", "b", "c"))
    return {"generator": "chest_xray", "samples": 4, "seed": 1, "minimum_accuracy": 0.5}


@pytest.mark.parametrize("had_version", [False, True])
@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize("stage", STAGES)
def test_an_interruption_at_any_stage_leaves_no_trace(
    spec: Path,
    plan: dict[str, Any],
    use_network: Callable[[Network], None],
    stage: str,
    error: type[BaseException],
    *,
    had_version: bool,
) -> None:
    folder, models = spec.parent, spec.parent / "models"
    if had_version:
        pipeline.export(spec, models)
        use_network(dense_network(seed=1))
    write_spec(folder, image_spec(evaluation=plan))
    before, beside = contents(folder), siblings(models)

    def progress(now: str) -> None:
        if now == stage:
            raise error

    with pytest.raises(error):
        pipeline.export(spec, models, evaluate=lambda *_: {"accuracy": 1.0}, progress=progress)
    assert contents(folder) == before
    assert siblings(models) == beside


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
    before = contents(tmp_path)
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
        assert contents(tmp_path) == before
        assert siblings(models) == ({"models", "tiny.yaml"} if had_version else {"tiny.yaml"})
    else:
        pytest.fail("no export got through")
    assert verify_repository(models) == []


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
    assert any(name.startswith(".models.staging-") for name in siblings(models))
    pipeline.export(spec, models)
    assert siblings(models) == {"models", "tiny.yaml"}
    assert check_repository(models) == []


def test_a_repository_that_cannot_be_written_is_named(tmp_path: Path, spec: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RepositoryError, match="cannot write beside"):
        pipeline.export(spec, tmp_path / "file" / "models")
