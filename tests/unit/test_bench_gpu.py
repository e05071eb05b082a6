"""The benchmark for GPUs, as far as it can be shown without one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bench.gpu import bare, prepare, tables
from bench.gpu.run import main
from bench.gpu.served import alone, difference
from bench.gpu.watch import watched

GPU = Path(prepare.__file__).parent
REFERENCE_REPOSITORY = Path(__file__).parents[2] / "model_repository"
GRAPH = REFERENCE_REPOSITORY / "chest_xray_pipeline" / "1" / "model.onnx"


def test_without_a_gpu_it_ends_in_one_line(tmp_path: Path) -> None:
    command = [sys.executable, str(GPU / "measure.py"), "--device", "cuda", "--out", str(tmp_path / "out.md")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - ours
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("measure.py: ")
    assert "onnxruntime-gpu" in line
    assert not list(tmp_path.iterdir())


def test_models_that_were_not_prepared_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", str(tmp_path / "out.md"), "--bundle", str(tmp_path)]
    assert main(["--device", "cpu", "--models", "densenet", *out]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "densenet" in line
    assert "prepare.py" in line


def test_parts_put_together_are_the_bundle(tmp_path: Path) -> None:
    bundle, parts = tmp_path / "bundle", tmp_path / "parts"
    (bundle / "wheels").mkdir(parents=True)
    content = np.random.default_rng(0).bytes(50_000)
    (bundle / "wheels" / "one.whl").write_bytes(content)
    (bundle / "unpack.sh").write_text("echo unpacked")
    written = prepare.write_parts(bundle, parts, 20_000)
    assert len(written) == 3
    assert all(part.stat().st_size <= 20_000 for part in written)
    machine = tmp_path / "machine"
    machine.mkdir()
    for path in parts.glob("*/*"):
        path.rename(machine / path.name)
    command = "sha256sum --check --quiet SHA256SUMS && cat part-* | tar --extract --gzip"
    subprocess.run(["/bin/bash", "-c", command], cwd=machine, check=True)  # noqa: S603 - as unpack.sh does
    assert (machine / "wheels" / "one.whl").read_bytes() == content


def test_what_the_gpu_did_is_what_nvidia_smi_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool, told = tmp_path / "nvidia-smi", tmp_path / "told"
    tool.write_text(f"#!/bin/sh\nprintf '10, 500\\n[N/A], 1\\n70, 900\\n90, 800\\n'; : >{told}; exec sleep 60\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with watched() as use:
        while not told.exists():
            pass
    assert (use.busy, use.memory_mib) == (70, 900)


def test_where_there_is_no_nvidia_smi_nothing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with watched() as use:
        pass
    assert (use.busy, use.memory_mib) == (None, None)


def test_graphs_are_put_on_the_gpu_with_its_options(tmp_path: Path) -> None:
    made = alone(REFERENCE_REPOSITORY, "report_triage", tmp_path, device="cuda", instances=3, cuda={"use_tf32": "0"})
    config = (made / "report_triage_pipeline" / "config.pbtxt").read_text()
    assert "instance_group {\n  count: 3\n  gpus: 0\n  kind: KIND_GPU\n}" in config
    assert 'gpu_execution_accelerator {\n      name: "cuda"' in config
    assert 'key: "use_tf32"\n        value: "0"' in config
    tokenize = "report_triage_tokenize/config.pbtxt"
    assert (made / tokenize).read_bytes() == (REFERENCE_REPOSITORY / tokenize).read_bytes()


def test_what_runs_in_process_is_counted_by_device_and_by_the_second() -> None:
    feeds = {"PIXELS": np.zeros((2, 28, 28, 1), np.uint8)}
    there, total = bare.nodes_on_device(GRAPH, "cpu", feeds).split(" of ")
    assert there == total != "0"
    inside = bare.Bare(GRAPH, "cpu", {}, 2)
    assert inside.rate(feeds, 0.01) > 0
    assert inside.bound_rate(feeds, 0.01) > 0


def test_answers_are_compared_by_value_and_by_label() -> None:
    want: dict[str, Any] = {"P": np.array([0.5, 1.0], np.float32), "L": np.array([1, 2, 3, 4], np.int8)}
    got: dict[str, Any] = {"P": np.array([0.5, 0.75], np.float32), "L": np.array([1, 2, 3, 0], np.int8)}
    assert difference(got, want) == "2.5e-01, 75.00% of labels equal"
    assert difference({}, want) == "not compared"


def _row(rates: list[float], in_flight: int | None, p50: float | None = None) -> dict[str, Any]:
    times = {"p50": [p50] * len(rates), "p99": [p50] * len(rates), "n": 7 if p50 else 0}
    use = {"busy": [None], "memory_mib": [None]}
    return (
        {"how": "how", "batch": 1, "in_flight": in_flight, "is_limit": in_flight is None, "rates": rates} | times | use
    )


def test_the_page_holds_the_server_against_the_best_in_process() -> None:
    rows = [_row([50, 60, 70], None), _row([100, 200, 300], None), _row([95, 190, 270], 8, 2.0), _row([1, 2, 1], 1)]
    known = {"turns": 3, "seconds": 1.0, "options": "2 instances", "difference": "0", "nodes": "3 of 3"}
    model = {"kind": "model", "precision": "fp32", **known}
    models = [model | {"model": "a", "rows": rows}, model | {"model": "b", "rows": [*rows[:2], rows[3]]}]
    page = tables.page([{"kind": "machine", "text": "here"}, *models])
    assert "1 of 2 reach it" in page
    assert "| `a` | fp32 | how | 1 | 8 | 190 (95 to 270) | 0.95 | 2.00 | 2.00 | 7 | - | - |" in page
    assert "| `b` | fp32 | how | 1 | 1 | at least 1 (1 to 2) | 0.01 |" in page


@pytest.mark.full
def test_it_runs_on_the_cpu_and_goes_on_where_it_was_stopped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "fp32").symlink_to(REFERENCE_REPOSITORY)
    out = ["--device", "cpu", "--bundle", str(tmp_path / "models"), "--out", str(tmp_path / "out.md")]
    small = ["--models", "chest_xray,ecg_rhythm", "--batches", "1,2", "--turns", "1", "--seconds", "0.5"]
    assert main([*out, *small, "--until", "0.001"]) == 0
    assert main([*out, *small]) == 0
    assert main([*out, *small]) == 0
    told = capsys.readouterr().out
    assert [told.count(f"s: {name} in fp32") for name in ("chest_xray", "ecg_rhythm")] == [1, 1]
    page = (tmp_path / "out.md").read_text()
    assert page.count("| `chest_xray` | fp32 | Triton, gRPC |") == 3
    assert page.count("| `ecg_rhythm` | fp32 | ONNX Runtime in process |") == 2
    assert "0.0e+00, 100.00% of labels equal" in page
