"""A child that means harm: ``python -m support.hostile_worker SETTINGS`` in place of the real one.

What it does is named by the first custom object of the request.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time

import numpy as np
from onnx import TensorProto, helper

from radserve_export.sandbox import messages
from radserve_export.sandbox.confine import confine


def _graph(**changes: object) -> bytes:
    tensor = helper.make_tensor("w", TensorProto.FLOAT, [1], [1.0])
    if "location" in changes:
        tensor.ClearField("float_data")
        tensor.data_location = TensorProto.EXTERNAL
        entry = tensor.external_data.add()
        entry.key, entry.value = "location", str(changes["location"])
    nodes = [helper.make_node(str(changes.get("op", "Add")), ["x", "w"], ["y"], domain=str(changes.get("domain", "")))]
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 1]) for name in ("x", "y")]
    return helper.make_model(helper.make_graph(nodes, "g", value[:1], value[1:], [tensor])).SerializeToString()


def _converted(graph: bytes = b"", **changes: object) -> messages.Converted:
    described = {
        "graphs": {"": graph or _graph()},
        "vocabulary": None,
        "tokenizer": None,
        "tools": {"keras": "3"},
    } | changes
    return messages.Converted(**described)  # type: ignore[arg-type]  # some are wrong on purpose


def _allocate() -> None:
    held = []
    while True:
        held.append(np.empty(2**24))


def _frame(content: bytes) -> bytes:
    return len(content).to_bytes(8, "big") + content


def _say(answers: int, content: bytes) -> None:
    while content:
        content = content[os.write(answers, content) :]


def _end(what: str) -> None:
    """End this process in a way of its own, or wait until somebody does."""
    if what == "sleep":
        time.sleep(600)
    elif what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif what == "exit":
        os.write(2, b"\x1b[31mlast words\n")
        os._exit(3)
    elif what == "bad_alloc":
        os.write(2, b"terminate called after throwing an instance of 'std::bad_alloc'\n")
    os.abort()


def _babble(what: str, answers: int) -> None:
    """Begin an answer that never ends."""
    if what == "half":
        _say(answers, _frame(bytes(100))[:50])
        os._exit(0)
    _say(answers, (2**32).to_bytes(8, "big"))
    while True:
        _say(answers, bytes(2**16))


def _convert(what: str, answers: int) -> bytes:
    """The bytes of the answer."""
    if what in ("sleep", "kill", "exit", "abort", "bad_alloc"):
        _end(what)
    if what in ("half", "endless"):
        _babble(what, answers)
    if what == "allocate":
        try:
            _allocate()
        except MemoryError:
            return _frame(messages.encode(messages.Failed(kind="memory")))
    return {
        "huge": (2**40).to_bytes(8, "big"),
        "noise": _frame(os.urandom(64)),
        "pickle": _frame(b"cos\nsystem\n(S'true'\ntR."),
        "other": _frame(messages.encode(messages.Answered(outputs=()))),
        "external": _frame(messages.encode(_converted(_graph(location="/etc/passwd")))),
        "custom": _frame(messages.encode(_converted(_graph(op="Evil", domain="evil")))),
        "no graph": _frame(messages.encode(_converted(b"\xff\xff"))),
        "no network": _frame(messages.encode(_converted(graphs={"x": _graph()}))),
        "tools": _frame(messages.encode(_converted(tools={"keras": "3\n\x1b[31m"}))),
        "notes": _frame(messages.encode(_converted(notes=("a\n\x1b[2Jb", "c" * 600)))),
        "many notes": _frame(messages.encode(_converted(notes=("a",) * 21))),
        "long note": _frame(messages.encode(_converted(notes=("a" * 601,)))),
        "kind": _frame(messages.encode(messages.Failed(kind="SystemExit"))),  # type: ignore[arg-type]  # on purpose
        "lines": _frame(messages.encode(messages.Failed(kind="ConversionError", message="a\n\x1b[2Jb" + "x" * 9999))),
    }.get(what) or _frame(messages.encode(_converted()))


def _run(part: str) -> bytes:
    lie = messages.Numbers(name="y", dtype="float32", shape=(3,), data=bytes(4))
    outputs: messages.Tensors = (lie,) if part == "" else ()
    return _frame(messages.encode(messages.Answered(outputs=outputs)))


def main() -> None:
    settings = json.loads(sys.argv[1])
    settings.pop("trust")
    confine(**settings)
    answers = os.dup(1)
    while length := os.read(0, 8):
        content = b""
        while len(content) < int.from_bytes(length, "big"):
            content += os.read(0, 2**20)
        request = messages.decode_request(content)
        if isinstance(request, messages.Convert):
            _say(answers, _convert((*request.custom_objects, "")[0], answers))
        else:
            _say(answers, _run(request.part))


if __name__ == "__main__":
    main()
