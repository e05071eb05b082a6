"""Reads a model's folder: its configuration, versions, model files and labels."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

import onnx
from google.protobuf.message import DecodeError

from radserve.errors import RepositoryError
from radserve_export.checks.model import (
    Finding,
    ServedModel,
    backend_of,
    is_known_backend,
    model_files,
    similar_backend,
)
from radserve_export.checks.onnx_file import runtime_problems, weights_problems
from radserve_export.checks.pbtxt import scan
from radserve_export.triton_config import CONFIG_FILE, parse_config

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

    from radserve_export.triton_config import ModelConfig

_POSITION = re.compile(r"\b(\d+):\d+")
_POINTER = b"version https://git-lfs"
_VERSION = re.compile(r"[1-9][0-9]*\Z")
_LIKE_A_VERSION = re.compile(r"[vV]?[0-9]")


def read_model(folder: Path, findings: list[Finding], backends: Collection[str] = ()) -> ServedModel | None:
    """Read a model folder.

    Args:
        folder: The model's folder.
        findings: What is wrong with its files is added.
        backends: What the server has beside Triton's own.

    Returns:
        The model; None where its configuration cannot be read.
    """
    file = f"{folder.name}/{CONFIG_FILE}"
    try:
        content = (folder / CONFIG_FILE).read_bytes()
        config = parse_config(content)
    except FileNotFoundError:
        message = "is missing: only a server that completes configurations would load this folder"
        findings.append(Finding(file=file, message=message))
        return None
    except OSError as error:
        findings.append(Finding(file=file, message=f"cannot be read: {error.strerror}"))
        return None
    except RepositoryError as error:
        position = _POSITION.search(str(error))
        findings.append(Finding(file=file, line=int(position[1]) if position else 1, message=str(error)))
        return None
    versions = sorted(
        (entry for entry in folder.iterdir() if entry.is_dir() and _VERSION.match(entry.name)),
        key=lambda entry: int(entry.name),
    )
    backend = backend_of(config)
    wanted = backend[1] if backend else ()
    findings += _misnamed(folder, wanted)
    graphs = {}
    for version in versions:
        path = _model_file(folder, version, wanted, findings)
        if path is not None and (graph := _read(path, folder, config, findings)):
            graphs[int(version.name)] = graph
    if backend is None and versions and not any((v / name).exists() for v in versions for name in model_files()):
        findings.append(Finding(file=file, message="names neither backend nor platform"))
    named = sorted({output.label_filename for output in config.output if output.label_filename})
    labels = {
        name: tuple((folder / name).read_text(encoding="utf-8", errors="replace").splitlines())
        for name in named
        if (folder / name).is_file()
    }
    model = ServedModel(
        config=config,
        versions=tuple(int(version.name) for version in versions),
        graphs=graphs,
        labels=labels,
        text=scan(content.decode()),
    )
    if config.backend not in backends:
        findings += _unknown_backend(folder, versions, model)
    return model


def _unknown_backend(folder: Path, versions: list[Path], model: ServedModel) -> Iterator[Finding]:
    """A backend that neither Triton has nor the model brings."""
    name = model.config.backend
    if not name or model.is_ensemble or is_known_backend(name):
        return
    library = model.config.runtime or f"libtriton_{name}.so"
    if any((place / library).is_file() for place in (folder, *versions)):
        return
    meant = similar_backend(name)
    hint = f"did you mean {meant}?" if meant else f"if the server has it, give --backend {name}"
    message = f"backend {name} is none of Triton's, and no {library} is here: {hint}"
    yield Finding(file=f"{folder.name}/{CONFIG_FILE}", line=model.text.at("backend").line, message=message)


def _misnamed(folder: Path, wanted: tuple[str, ...]) -> Iterator[Finding]:
    """Folders that look like versions, and that Triton leaves out."""
    names = wanted or tuple(model_files())
    for entry in sorted(folder.iterdir()):
        if not entry.is_dir() or _VERSION.match(entry.name):
            continue
        if _LIKE_A_VERSION.match(entry.name) or any((entry / name).exists() for name in names):
            message = "is no version to Triton: name it with a number above 0, without leading zeros"
            yield Finding(file=f"{folder.name}/{entry.name}", message=message)


def _model_file(folder: Path, version: Path, wanted: tuple[str, ...], findings: list[Finding]) -> Path | None:
    found = [version / name for name in wanted or sorted(model_files()) if (version / name).exists()]
    if not found:
        if wanted:
            message = f"has no {' or '.join(wanted)}, which its backend loads"
            findings.append(Finding(file=f"{folder.name}/{version.name}", message=message))
        return None
    path = found[0]
    if not path.resolve().is_relative_to(folder.parent.resolve()):
        findings.append(Finding(file=_name(path, folder), message="leaves the repository"))
        return None
    return path


def _name(path: Path, folder: Path) -> str:
    return path.relative_to(folder.parent).as_posix()


def _read(path: Path, folder: Path, config: ModelConfig, findings: list[Finding]) -> onnx.ModelProto | None:
    """An ONNX graph; of other files, only whether they can be what they are called."""
    backend = (backend_of(config) or ("",))[0]
    if path.is_dir():
        path = path / "model.onnx"
    if not path.is_file():
        return None
    with path.open("rb") as stream:
        is_pointer = stream.read(len(_POINTER)) == _POINTER
    if is_pointer:
        findings.append(Finding(file=_name(path, folder), message="is a pointer of Git LFS, no model: git lfs pull"))
    elif path.suffix == ".py" and backend == "python":
        findings += _python_problems(path, folder)
    elif path.suffix == ".onnx" or backend == "onnxruntime":
        try:
            graph = onnx.load_model_from_string(path.read_bytes())
        except (DecodeError, OSError) as error:
            findings.append(Finding(file=_name(path, folder), message=f"is no graph: {error}"))
            return None
        problems = list(weights_problems(graph, path))
        if not problems and backend in ("", "onnxruntime"):
            own = bool(config.model_operations.op_library_filename)
            problems = runtime_problems(graph, path, has_own_operators=own)
        findings += [Finding(file=_name(path, folder), message=problem) for problem in problems]
        return graph
    return None


def _python_problems(path: Path, folder: Path) -> Iterator[Finding]:
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None) or 1
        yield Finding(file=_name(path, folder), line=line, message=f"is no Python: {getattr(error, 'msg', error)}")
        return
    for line, name in _files_beside(tree):
        if not any((place / name).exists() for place in (path.parent, folder)):
            yield Finding(file=_name(path, folder), line=line, message=f"reads {name}, which is not beside it")
    if not any(_defines(node) for node in ast.walk(tree)):
        yield Finding(file=_name(path, folder), message="has no class TritonPythonModel")


def _files_beside(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and name of files that are read as ``Tokenizer.from_file(str(folder / "tokenizer.json"))``.

    The folder must come of ``args["model_repository"]`` or of ``__file__``: others are not known here.
    """
    made: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            made[node.targets[0].id] = made.get(node.targets[0].id, "") + ast.unparse(node.value)
    calls = [
        one for one in ast.walk(tree) if isinstance(one, ast.Call) and getattr(one.func, "attr", "") == "from_file"
    ]
    for part in (part for call in calls for part in ast.walk(call)):
        if not (isinstance(part, ast.BinOp) and isinstance(part.op, ast.Div) and isinstance(part.right, ast.Constant)):
            continue
        origin = ast.unparse(part.left)
        origin = made.get(origin, origin)
        if "model_repository" in origin or "__file__" in origin:
            yield part.lineno, str(part.right.value)


def _defines(node: ast.AST) -> bool:
    """Whether a statement may bring the name that Triton looks for."""
    if isinstance(node, ast.ImportFrom):
        return any((alias.asname or alias.name) in ("TritonPythonModel", "*") for alias in node.names)
    if isinstance(node, ast.Name):
        return node.id == "TritonPythonModel" and isinstance(node.ctx, ast.Store)
    return isinstance(node, ast.ClassDef) and node.name == "TritonPythonModel"
