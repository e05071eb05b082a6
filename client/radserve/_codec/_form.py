"""What is the same in every call by one contract, worked out once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tritonclient.grpc import service_pb2

from radserve._codec._seen import Seen
from radserve.contracts import Decision

if TYPE_CHECKING:
    import numpy as np

    from radserve.contracts import Contract, Label

_MOST_FORMS, _MOST_SHAPES = 256, 64


class Output:
    """An output tensor of a contract, as it is compared with answers.

    Attributes:
        name: Its name.
        datatype: Triton's name of its type.
        dtype: NumPy's.
        is_float: Whether its values may be no finite numbers.
        dims: Its shape, without the batch axis; -1 is free.
    """

    __slots__ = ("datatype", "dims", "dtype", "is_float", "name")

    def __init__(self, name: str, datatype: str, dtype: np.dtype[Any], dims: tuple[int, ...]) -> None:
        self.name = name
        self.datatype = datatype
        self.dtype = dtype
        self.is_float = dtype.kind == "f"
        self.dims = dims


class Form:
    """What requests, answers and results of one contract have in common; see ``form_of``.

    Attributes:
        version: The contract's, as on the wire.
        outputs: By name.
        is_fixed: Whether all answers of one batch size have the same length.
        edges: Of each label, from where on it is not negative, and from where on positive.
        labels: Of each label, by its decision, the attributes of a Finding; all but the probability.
        seen: Answers that were checked.
    """

    __slots__ = ("_contract", "_heads", "edges", "is_fixed", "labels", "outputs", "seen", "version")

    def __init__(self, contract: Contract) -> None:
        self._contract = contract
        self._heads: dict[tuple[tuple[int, ...], ...], bytes] = {}
        self.version = str(contract.version)
        self.outputs = {
            tensor.name: Output(tensor.name, tensor.dtype.value, tensor.dtype.numpy, tensor.dims)
            for tensor in contract.outputs
        }
        self.is_fixed = all(one.dtype.kind != "O" and -1 not in one.dims for one in self.outputs.values())
        self.edges = [label.indeterminate or (label.threshold, label.threshold) for label in contract.labels]
        self.seen = Seen()
        self.labels = [_of_finding(label) for label in contract.labels]

    def head(self, shapes: tuple[tuple[int, ...], ...]) -> bytes:
        """A request's message without its id, parameters and contents, for inputs of such shapes."""
        head = self._heads.get(shapes)
        if head is None:
            contract = self._contract
            request = service_pb2.ModelInferRequest(model_name=contract.name, model_version=self.version)
            for tensor, shape in zip(contract.inputs, shapes, strict=True):
                request.inputs.add(name=tensor.name, datatype=tensor.dtype.value, shape=shape)
            for tensor in contract.outputs:
                request.outputs.add(name=tensor.name)
            if len(self._heads) >= _MOST_SHAPES:
                self._heads.clear()
            head = self._heads[shapes] = request.SerializeToString()
        return head


def _of_finding(label: Label) -> dict[int, dict[str, Any]]:
    return {
        int(decision): {
            "label": label.name,
            "probability": None,
            "threshold": label.threshold,
            "is_positive": decision is Decision.POSITIVE,
            "is_indeterminate": decision is Decision.INDETERMINATE,
            "indeterminate": label.indeterminate,
            "code": label.code,
        }
        for decision in Decision
    }


_forms: dict[str, Form] = {}


def form_of(contract: Contract) -> Form:
    """The form of a contract: made once for each, wherever it was read."""
    form = _forms.get(contract.sha256)
    if form is None:
        if len(_forms) >= _MOST_FORMS:
            _forms.clear()
        form = _forms[contract.sha256] = Form(contract)
    return form
