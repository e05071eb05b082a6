"""Reads YAML, and says of what is none where it goes wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml
from yaml.reader import ReaderError

from radserve.errors import SpecError

if TYPE_CHECKING:
    from pathlib import Path


class _Loader(yaml.SafeLoader):
    """YAML's own forbids a key that stands twice in a mapping; PyYAML's lets the last one win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 - PyYAML's signature
        keys = [(key.tag, key.value) for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for place, (key, _) in enumerate(node.value):
            if isinstance(key, yaml.ScalarNode) and (key.tag, key.value) in keys[:place]:
                problem = f"{key.value} stands there twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> Any:  # noqa: ANN401 - YAML holds anything
    """The content of a YAML file.

    Raises:
        OSError: It cannot be read.
        SpecError: It is not YAML; the message begins with file, line and column, as far as that is known.
    """
    content = path.read_bytes()
    try:
        # Specs are small, and the C library words its errors worse.
        return yaml.load(content, Loader=_Loader)  # noqa: S506 - a safe one
    except yaml.MarkedYAMLError as error:
        place, problem = f":{_place(error.problem_mark)}", str(error.problem)
        if "\\t" in problem:
            problem += ": indent with spaces"
        elif error.context is not None:
            begins = f", from {_place(error.context_mark)}" if error.context_mark else ""
            problem += f" ({error.context}{begins})"
    except ReaderError as error:
        # Counted in bytes where they are not text at all, else in characters.
        whole = content.decode("utf-8", "replace") if error.encoding == "unicode" else content
        before = whole[: error.position]
        text = before if isinstance(before, str) else before.decode("utf-8", "replace")
        place, problem = f":{text.count(chr(10)) + 1}:{len(text) - text.rfind(chr(10))}", error.reason
    # A date that does not exist, nesting without end.
    except (ValueError, RecursionError) as error:
        place, problem = "", str(error)
    msg = f"{path}{place}: not YAML: {problem}"
    raise SpecError(msg)


def _place(mark: Any) -> str:  # noqa: ANN401 - PyYAML has one class of marks in Python, another in C
    return f"{mark.line + 1}:{mark.column + 1}"
