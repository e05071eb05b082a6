"""What the SDK offers by name, and what importing it brings."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import radserve
from radserve import errors
from radserve.errors import RadserveError


def test_the_public_names_are_these() -> None:
    tree = {
        name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, RadserveError)
    }
    not_of_the_sdk = {
        name for name in tree if issubclass(getattr(errors, name), errors.ExportError | errors.ServerStartError)
    }
    results = {"Classification", "EvidenceMap", "GeneratedText", "Region", "Rejection", "Result", "Segmentation"}
    clients = {"AsyncClient", "AsyncModel", "Client", "Model"}
    options = {"ClientOptions", "Priority", "RetryPolicy", "Secret", "TLS"}
    others = {"Finding", "Geometry", "ImageFindings", "Progress", "Provenance", "Tensors"}
    assert set(radserve.__all__) == (tree - not_of_the_sdk) | results | clients | options | others
    assert all(getattr(radserve, name) is not None for name in radserve.__all__)
    assert sorted(radserve.__all__, key=lambda name: (name.upper() != name, name)) == radserve.__all__


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nothing"):
        radserve.nothing  # noqa: B018 - the access is what is tested


def test_importing_radserve_imports_nothing_heavy() -> None:
    heavy = {"tensorflow", "onnx", "onnxruntime", "pydicom", "grpc", "rich", "typer"}
    code = f"import sys, radserve; found = {heavy} & set(sys.modules); assert not found, found"
    subprocess.run([sys.executable, "-c", code], check=True)  # noqa: S603 - ourselves


def test_no_message_names_an_index_on_which_radserve_is_not() -> None:
    root = Path(__file__).resolve().parents[2]
    files = [
        root / "README.md",
        *(path for top in ("client", "export", "deploy") for path in (root / top).rglob("*.py")),
    ]
    told = "".join(path.read_text(encoding="utf-8") for path in files)
    assert "pip install" in told
    assert re.findall(r"pip install [^.`]*\bradserve\b.*", told) == []
    assert errors.installing("cli") == "pip install '.[cli]' in a checkout of radserve"
