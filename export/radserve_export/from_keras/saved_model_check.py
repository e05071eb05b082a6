"""Looks into a SavedModel folder without running anything of it."""

from __future__ import annotations

import re
from itertools import chain
from typing import TYPE_CHECKING, Any

from google.protobuf.message import DecodeError
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import saved_model_pb2

from radserve.errors import ConversionError
from radserve_export.from_keras._saved_model_ops import OPERATIONS, SAVER_OPERATIONS
from radserve_export.from_keras.configuration import refusal
from radserve_export.model_file import SAVED_MODEL

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

_MEMBER = re.compile(
    r"(saved_model\.pb|fingerprint\.pb|keras_metadata\.pb"
    r"|variables/variables\.(index|data-\d{5}-of-\d{5})|assets|variables)\Z"
)
# Their content is a program of its own, or names one.
_OPAQUE = (types_pb2.DT_VARIANT, types_pb2.DT_RESOURCE)
_OBJECTS = frozenset({"user_object", "function", "bare_concrete_function", "variable", "constant", "resource"})
_OBJECTS |= {"captured_tensor"}
_REGISTERED = frozenset({"", "tf.StaticHashTable", "tf.TrackableConstant"})


def check_saved_model(folder: Path) -> None:
    """Refuse a SavedModel that could do more than compute.

    Args:
        folder: The folder, which nobody else can change any more.

    Raises:
        ConversionError: It is none, or of TensorFlow 1.
        UntrustedModelError: What is refused, and why.
    """
    name = folder.name
    for path in sorted(folder.rglob("*")):
        member = path.relative_to(folder).as_posix()
        if not _MEMBER.match(member):
            why = "a model reads no further files" if member.startswith("assets/") else "Keras writes no such member"
            raise refusal(name, f"member {member!r}", why)
    saved = saved_model_pb2.SavedModel()
    try:
        saved.ParseFromString((folder / SAVED_MODEL).read_bytes())
    except DecodeError as error:
        msg = f"{name}: its {SAVED_MODEL} is damaged: save the model again with model.export('{name}')"
        raise ConversionError(msg) from error
    if not saved.meta_graphs or not all(graph.object_graph_def.nodes for graph in saved.meta_graphs):
        msg = f"{name} is a SavedModel of TensorFlow 1: save the model as .keras, or with model.export('{name}')"
        raise ConversionError(msg)
    for graph in saved.meta_graphs:
        _check_graph(graph, name)


def _check_graph(graph: Any, name: str) -> None:  # noqa: ANN401 - TensorFlow's messages are untyped
    if graph.asset_file_def or "saved_model_assets" in graph.collection_def:
        raise refusal(name, "its assets", "a model reads no further files")
    library = graph.graph_def.library.function
    savers = {function.signature.name for function in library if _is_saver(function)}
    for function in library:
        where = function.signature.name
        allowed = OPERATIONS | SAVER_OPERATIONS if where in savers else OPERATIONS
        _check_nodes(function.node_def, allowed, name)
        if savers.intersection(_called(function.node_def)) or (where in savers and "api_implements" in function.attr):
            raise refusal(name, f"function {where}", "it calls what reads and writes the checkpoint")
    nodes = graph.graph_def.node
    _check_nodes(nodes, OPERATIONS, name)
    saver = graph.saver_def
    of_saver = {each.partition(":")[0] for each in (saver.save_tensor_name, saver.restore_op_name)}
    for node in nodes:
        if node.name not in of_saver and savers.intersection(_called([node])):
            raise refusal(name, f"node {node.name}", "it calls what reads and writes the checkpoint")
    _check_objects(graph.object_graph_def, savers, name)


def _is_saver(function: Any) -> bool:  # noqa: ANN401 - as above
    return any(node.op in SAVER_OPERATIONS for node in function.node_def)


def _check_nodes(nodes: Iterable[Any], allowed: frozenset[str], name: str) -> None:
    for node in nodes:
        if node.op not in allowed:
            raise refusal(name, f"operation {node.op} ({node.name})", "only operations that compute are loaded")
        if any(value.tensor.dtype in _OPAQUE for value in node.attr.values()):
            raise refusal(name, f"operation {node.op} ({node.name})", "it holds something else than numbers and text")


def _called(nodes: Iterable[Any]) -> Iterator[str]:
    """Names of the functions that nodes name."""
    pending = [value for node in nodes for value in node.attr.values()]
    while pending:
        value = pending.pop()
        for function in chain([value.func] if value.HasField("func") else [], value.list.func):
            yield function.name
            pending.extend(function.attr.values())


def _check_objects(objects: Any, savers: set[str], name: str) -> None:  # noqa: ANN401 - as above
    for node in objects.nodes:
        kind = node.WhichOneof("kind")
        if kind not in _OBJECTS or node.registered_name not in _REGISTERED or node.registered_saver:
            raise refusal(name, f"object {node.registered_name or kind}", "only what Keras itself saves is loaded")
        if kind == "variable" and node.variable.dtype in _OPAQUE:
            raise refusal(name, f"variable {node.variable.name}", "it holds something else than numbers and text")
        functions = {*node.function.concrete_functions, node.bare_concrete_function.concrete_function_name}
        if savers & functions:
            raise refusal(name, "a function of the model", "it reads and writes the checkpoint")
    if savers & set(objects.concrete_functions):
        raise refusal(name, "a function of the model", "it reads and writes the checkpoint")
