"""The cores of this machine that the embedded server may use."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from radserve_server.machine import cores

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def sixteen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of 16 cores."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: set(range(16)))


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("0::/", {}, 16),
        ("0::/", {"cpu.max": "max 100000"}, 16),
        ("0::/", {"cpu.max": "200000 100000"}, 2),
        ("0::/", {"cpu.max": "250000 100000"}, 2),
        ("0::/", {"cpu.max": "50000 100000"}, 1),
        ("0::/", {"cpu.max": "6400000 100000"}, 16),
        ("0::/a/b", {"a/b/cpu.max": "max 100000", "a/cpu.max": "300000 100000"}, 3),
        (
            "3:cpu,cpuacct:/docker",
            {"cpu/docker/cpu.cfs_quota_us": "400000", "cpu/docker/cpu.cfs_period_us": "100000"},
            4,
        ),
        ("3:cpu,cpuacct:/docker", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 16),
        ("nothing that can be read", {"cpu.max": "a few"}, 16),
    ],
)
def test_a_control_groups_limit_counts(own: str, files: dict[str, str], expected: int, tmp_path: Path) -> None:
    (tmp_path / "own").write_text(own + "\n")
    for name, text in files.items():
        path = tmp_path / "groups" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    assert cores(tmp_path / "own", tmp_path / "groups") == expected


def test_affinity_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: {3, 5, 8})
    assert cores(tmp_path / "own", tmp_path) == 3
