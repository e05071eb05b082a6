"""What the README shows is what happens."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from radserve_export.spec import load_spec
from radserve_export.summary import embed, summarise
from radserve_export.synthetic import Split, generate

if TYPE_CHECKING:
    from radserve_server import EmbeddedServer

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.strip().splitlines()[0][:40])
def test_python_blocks_run(
    block: str,
    reference_server: EmbeddedServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    source = next(generate("chest_xray", 1, seed=3, split=Split.TEST)).source
    assert isinstance(source, bytes)
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples" / "chest_xray_000.dcm").write_bytes(source)
    (tmp_path / "README.md").write_text("not a DICOM file")
    assert "localhost:8001" in block
    exec(compile(block.replace("localhost:8001", reference_server.grpc_url), "README.md", "exec"), {})  # noqa: S102 - the README's own text
    assert capsys.readouterr().out.strip()


@pytest.mark.parametrize("block", re.findall(r"^```yaml\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL))
def test_yaml_blocks_are_parts_of_a_spec(block: str, tmp_path: Path) -> None:
    given = yaml.safe_load(block)
    base = given if "task" in given else yaml.safe_load((ROOT / "export/specs/chest_xray.yaml").read_text()) | given
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(base))
    assert load_spec(tmp_path / "spec.yaml")


def test_ten_lines_are_enough() -> None:
    code = [line for line in BLOCKS[0].splitlines() if line.strip()]
    assert len(code) <= 10


def test_results_are_those_of_the_committed_models() -> None:
    summary = summarise(ROOT / "model_repository")
    assert summary == (ROOT / "model_repository" / "README.md").read_bytes()
    assert embed(summary.decode(), README) == README
    assert "| **pneumothorax** |" in README


def test_every_make_target_and_command_named_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = set(re.findall(r"\bmake ([a-z-]+)", README))
    assert named
    assert {name for name in named if not re.search(rf"^{name}:", makefile, flags=re.MULTILINE)} == set()
