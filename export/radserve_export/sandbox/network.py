"""A converted network whose model lives in the child."""

from __future__ import annotations

import logging
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
from google.protobuf.message import DecodeError

from radserve.errors import ConversionError
from radserve_export.graphs.checked import check_operators
from radserve_export.model_file import copy_model
from radserve_export.network import Network, Part
from radserve_export.sandbox.child import Child
from radserve_export.sandbox.limits import DEFAULT_LIMITS, Limits
from radserve_export.sandbox.messages import NETWORK, Answered, Convert, Converted, Run, pack, unpack
from radserve_export.sandbox.text import one_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from radserve_export.network import Arrays, Conversion, Runner

_LOG = logging.getLogger("radserve_export")


@contextmanager
def converted_network(
    path: Path,
    conversion: Conversion,
    *,
    trust: bool = False,
    custom_objects: Sequence[str] = (),
    limits: Limits = DEFAULT_LIMITS,
) -> Iterator[Network]:
    """Check, load and convert a model in a process of its own, which lives as long as the context.

    That process has no network, starts no program, writes nowhere but into a
    private folder, and has a memory and a time limit. What it warns of while it
    converts is logged here, on the logger ``radserve_export``.

    Args:
        path: A ``.keras`` archive, an HDF5 file or a SavedModel folder.
        conversion: What to make of it.
        trust: Take HDF5, and work where the system cannot confine a process.
        custom_objects: ``module:NAME`` of classes and functions that the model may name.
        limits: What that process may use.

    Yields:
        The network; its references ask the process.

    Raises:
        SpecError: There is no such file, or no such custom object.
        UntrustedModelError: The file could do more than be read.
        ConversionError: It cannot be converted, or not within the limits.
    """
    with tempfile.TemporaryDirectory(prefix="radserve-model-") as private:
        folder = Path(private)
        model = folder / "model"
        model.mkdir()
        copy, sha256 = copy_model(path, model, trust=trust)
        with Child(path.name, folder, limits, trust=trust, with_current_folder=bool(custom_objects)) as child:
            answer = child.ask(Convert(path=str(copy), conversion=conversion, custom_objects=tuple(custom_objects)))
            if not isinstance(answer, Converted) or NETWORK not in answer.graphs:
                raise _nonsense(path.name)
            for note in answer.notes:
                _LOG.warning("%s: %s", path.name, one_line(note))
            parts = {
                name: Part(graph=_graph(content, path.name), reference=_runner(child, name, path.name))
                for name, content in answer.graphs.items()
            }
            network = parts.pop(NETWORK)
            yield Network(
                graph=network.graph,
                reference=network.reference,
                vocabulary=answer.vocabulary,
                tokenizer=answer.tokenizer,
                source_sha256=sha256,
                tools=answer.tools,
                parts=parts,
            )


def _runner(child: Child, part: str, name: str) -> Runner:
    def run(arrays: Arrays) -> dict[str, NDArray[np.generic]]:
        answer = child.ask(Run(part=part, inputs=pack(arrays)))
        if not isinstance(answer, Answered):
            raise _nonsense(name)
        try:
            return unpack(answer.outputs)
        except ValueError as error:
            raise _nonsense(name) from error

    return run


def _graph(content: bytes, name: str) -> onnx.ModelProto:
    """Parse a graph, and refuse one that names files."""
    try:
        model = onnx.load_model_from_string(content)
    except DecodeError as error:
        raise _nonsense(name) from error
    if model.functions or model.training_info or any(map(_elsewhere, _tensors(model.graph))):
        raise _nonsense(name)
    check_operators(model)
    return model


def _elsewhere(tensor: onnx.TensorProto) -> bool:
    return bool(tensor.external_data) or tensor.data_location != onnx.TensorProto.DEFAULT


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for attribute in (attribute for node in graph.node for attribute in node.attribute):
        yield from (attribute.t, *attribute.tensors)
        for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
            yield from (sparse.values, sparse.indices)
        for body in (attribute.g, *attribute.graphs):
            yield from _tensors(body)


def _nonsense(name: str) -> ConversionError:
    return ConversionError(f"the process that reads {name} gave an answer that is none: do not trust the file")
