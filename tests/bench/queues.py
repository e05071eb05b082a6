"""Repositories of one model as it would have been exported with another queue, or other instances."""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def repository_of(source: Path, model: str, folder: Path, *, has_queue: bool = True, instances: int = 2) -> Path:
    """Copy a public model of one fused step; its manifests then no longer fit.

    Args:
        source: The repository that has it.
        model: Its name.
        folder: Where to.
        has_queue: False for ``queue: null``.
        instances: How many.

    Returns:
        The folder.
    """
    for name in (model, f"{model}_pipeline"):
        shutil.copytree(source / name, folder / name)
    config = folder / f"{model}_pipeline" / "config.pbtxt"
    text, found = re.subn("count: 2", f"count: {instances}", config.read_text(encoding="utf-8"))
    assert found == 1
    if not has_queue:
        text, found = re.subn(r"\ndynamic_batching \{.*?\n\}", "\ndynamic_batching { }", text, flags=re.DOTALL)
        assert found == 1
    config.write_text(text, encoding="utf-8")
    return folder
