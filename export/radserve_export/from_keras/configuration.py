"""Looks into a model's configuration without making anything of it.

Keras' safe mode is not a boundary (CVE-2025-1550, CVE-2025-8747, CVE-2025-9906):
a configuration may name whatever can be imported. So only what is known to be
harmless passes: classes of Keras' own that are parts of models, its functions
of tensors, and the custom objects that the user named.
"""

from __future__ import annotations

import re
import sys
from types import FunctionType
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from radserve.errors import UntrustedModelError
from radserve_export.from_keras._tensorflow import keras
from radserve_export.sandbox.text import one_line

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | bool | None"

_REFUSED = {
    "Lambda": "a Lambda layer holds Python code: make it a layer of its own and name it with --custom-objects",
    "__lambda__": "it holds Python code: make it a function and name it with --custom-objects",
    "TFSMLayer": "the layer reads a SavedModel from disk, which holds code",
    "TorchModuleWrapper": "the layer unpickles a torch module",
    "JaxLayer": "the layer holds foreign code",
    "FlaxLayer": "the layer holds foreign code",
}
_VALUES = frozenset(
    {"__keras_tensor__", "__tensor__", "__numpy__", "__bytes__", "__ellipsis__", "__slice__", "__tuple__"}
)
_OF_CLASSES = (
    *("layers", "models", "initializers", "regularizers", "constraints", "losses", "metrics"),
    *("optimizers", "optimizers.schedules", "dtype_policies", "quantizers"),
)
_OF_FUNCTIONS = ("activations", "losses", "metrics", "ops", "initializers", "regularizers", "constraints")
_INNER = re.compile(
    r"keras\.src\.(applications|layers|models|ops|initializers|losses|metrics|optimizers|dtype_policies)\.[\w.]+\Z"
)
_PARTS = (
    *(keras.Operation, keras.Initializer, keras.Regularizer, keras.constraints.Constraint, keras.Loss, keras.Metric),
    *(keras.Optimizer, keras.optimizers.schedules.LearningRateSchedule, keras.Quantizer),
    *(keras.DTypePolicy, keras.dtype_policies.DTypePolicyMap),
)
_NOT_OF_TENSORS = frozenset({"get", "serialize", "deserialize"})
_LONGEST_NAME = 120
# What a hostile file would call: it must not be able to make radserve advise that.
_NEVER_ADVISED = sys.stdlib_module_names | {"keras", "tensorflow"}
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)


class Custom(NamedTuple):
    """A custom object that a model names.

    Attributes:
        name: Its own name, one of those that the user gave.
        registered_name: What the model calls it, a package in front or not.
    """

    name: str
    registered_name: str


def check_configuration(
    value: Json, model: str, custom: AbstractSet[str] = frozenset(), *, legacy: bool = False
) -> set[Custom]:
    """Refuse a configuration that names more than parts of a model.

    Args:
        value: The configuration, or what compiling the model took.
        model: What to call the model in messages.
        custom: Names of the custom objects that the user gave.
        legacy: Of an HDF5 model, which names classes without their module.

    Returns:
        The custom objects that it names.

    Raises:
        UntrustedModelError: What is refused, and why.
    """
    look = _Look(model, custom, legacy=legacy)
    look.at(value)
    return look.found


def refusal(model: str, what: str, why: str) -> UntrustedModelError:
    """The error of something that is not let through; the text of the file in it is cut, and made printable."""
    return UntrustedModelError(f"{one_line(model, 100)} was not loaded: {one_line(what, _LONGEST_NAME)}: {why}")


def _advice(module: str | None, name: str) -> str:
    """The option that lets a custom object in, as far as a file tells."""
    parts = (module or "").split(".")
    if parts[0] in _NEVER_ADVISED or not name.isidentifier() or len(f"{module}{name}") > _LONGEST_NAME:
        return ""
    is_known = parts[0] != "__main__" and all(map(str.isidentifier, parts))
    option, where = (module, "") if is_known else ("MODULE", ", MODULE being where you define it")
    return f": if that code is yours, add --custom-objects {option}:{name}{where}"


class _Look:
    def __init__(self, model: str, custom: AbstractSet[str], *, legacy: bool) -> None:
        self._model = model
        self._custom = custom
        self._legacy = legacy
        self.found: set[Custom] = set()

    def at(self, value: Json) -> None:
        if isinstance(value, str):
            if _ADDRESS.match(value):
                raise refusal(self._model, f"address {value!r}", "a model reads nothing from elsewhere")
        elif isinstance(value, list):
            for item in value:
                self.at(item)
        elif isinstance(value, dict):
            if "class_name" in value:
                self._object(value)
            inner = value.get("config")
            for config in (inner, value):
                if isinstance(config, dict) and isinstance(config.get("vocabulary"), str):
                    raise refusal(self._model, _called(value), "it reads its vocabulary from a file")
            for item in value.values():
                self.at(item)

    def _object(self, described: dict[str, Json]) -> None:
        class_name, module = described["class_name"], described.get("module")
        registered = described.get("registered_name")
        if not (isinstance(class_name, str) and isinstance(module, str | None) and isinstance(registered, str | None)):
            raise refusal(self._model, f"{class_name} of {module}", "it is not a class")
        if class_name in _REFUSED:
            raise refusal(self._model, _called(described), _REFUSED[class_name])
        if class_name in _VALUES:
            return
        name = described.get("config") if class_name == "function" else class_name
        if not isinstance(name, str):
            raise refusal(self._model, f"function of {module}", "it has no name")
        own = name.rpartition(">")[2]
        if own in self._custom:
            self.found |= {Custom(own, called) for called in (name, registered) if called}
            return
        # A registered name is looked up before Keras' own classes are.
        if registered not in (None, name, class_name) or not self._is_keras(class_name, module, name):
            what = f"{name} of {module}" if module else registered or name
            why = "only Keras' own layers and functions are loaded, and custom objects that --custom-objects names"
            raise refusal(self._model, _called(described) if own == "Lambda" else what, why + _advice(module, own))

    def _is_keras(self, class_name: str, module: str | None, name: str) -> bool:
        if class_name == "function":
            return name not in _NOT_OF_TENSORS and any(
                isinstance(getattr(sys.modules.get(f"keras.{where}"), name, None), FunctionType)
                for where in _OF_FUNCTIONS
                if module in ("builtins", f"keras.{where}")
            )
        if module is None:
            # Of the classes that HDF5 names without a module, Functional alone is no public one.
            places = [*(f"keras.{where}" for where in _OF_CLASSES), "keras.src.models.functional"]
            return self._legacy and any(_has_part(place, name) for place in places)
        public = module == "keras" or module.removeprefix("keras.") in _OF_CLASSES
        return (public or _INNER.match(module) is not None) and _has_part(module, name)


def _has_part(module: str, name: str) -> bool:
    """Whether a module, if Keras itself has imported it, has such a part of models."""
    found = getattr(sys.modules.get(module), name, None)
    return isinstance(found, type) and issubclass(found, _PARTS) and found.__name__ not in _REFUSED


def _called(described: dict[str, Json]) -> str:
    class_name, config = described.get("class_name"), described.get("config", described)
    label = config.get("name") if isinstance(config, dict) else None
    return f"layer {label!r} ({class_name})" if label else str(class_name or "a layer")
