"""Every way to build a recurrent layer that the exporter has a native operator for, and the check of such layers."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
from support.keras_models import keras, layers

from radserve_export.from_keras.convert import convert
from radserve_export.graphs.checked import Chain, all_nodes
from radserve_export.network import Conversion, Form

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from support.pairwise import Case

STEPS, FEATURES, UNITS, WORDS = 5, 4, 3, 11
ATOL = 1e-5
_MOST_STATES = 4
_KINDS: dict[str, tuple[Any, Any, dict[str, Any], str]] = {
    "LSTM": (layers.LSTM, layers.LSTMCell, {}, "LSTM"),
    "GRU": (layers.GRU, layers.GRUCell, {"reset_after": True}, "GRU"),
    "GRU reset before": (layers.GRU, layers.GRUCell, {"reset_after": False}, "GRU"),
    "SimpleRNN": (layers.SimpleRNN, layers.SimpleRNNCell, {}, "RNN"),
}
_FUNCTIONS = ("tanh", "sigmoid", "relu", "hard_sigmoid")
_WRAPPERS = (
    *("none", "stacked", "RNN(cell)", "RNN(cells)"),
    *("Bidirectional concat", "Bidirectional sum", "Bidirectional mul", "Bidirectional ave", "Bidirectional None"),
)
_SHARED: dict[str, Sequence[object]] = {
    "kind": tuple(_KINDS),
    "masking": ("plain", "Masking", "Embedding"),
    "return_sequences": (False, True),
    "return_state": (False, True),
    "go_backwards": (False, True),
    "wrapper": _WRAPPERS,
    "use_bias": (True, False),
    "initial_state": (False, True),
}
# For a pairwise cover.
FACTORS: dict[str, Sequence[object]] = {
    **_SHARED,
    "activation": _FUNCTIONS,
    "recurrent_activation": _FUNCTIONS,
    "time": ("fixed", "free", "unrolled"),
    "zero_output_for_mask": (False, True),
}
# For the full product of what makes another graph; the functions, which do not, are each in each role.
CROSSED: dict[str, Sequence[object]] = {
    **_SHARED,
    "activations": (("tanh", "sigmoid"), ("sigmoid", "relu"), ("relu", "hard_sigmoid"), ("hard_sigmoid", "tanh")),
}


def name_of(case: Case) -> str:
    """A test's name."""
    flags = [name for name, value in case.items() if value is True]
    return ", ".join([*(str(value) for value in case.values() if not isinstance(value, bool)), *flags])


def check_recurrent(cases: Sequence[Case], seed: int = 0) -> None:
    """Convert a model with the layers of all cases, and compare it with Keras called eagerly: nothing is shared.

    Args:
        cases: They must agree in ``masking`` and ``time``.
        seed: Of the weights.

    Raises:
        AssertionError: Names the case.
    """
    inputs = _Inputs(cases[0]["masking"], cases[0].get("time") == "free")
    outputs = [_outputs_of(case, inputs) for case in cases]
    owners = [case for case, tensors in zip(cases, outputs, strict=True) for _ in tensors]
    read = inputs.tensors if any(case["initial_state"] for case in cases) else inputs.tensors[:1]
    model = keras.Model(read, keras.tree.flatten(outputs))
    rng = np.random.default_rng(seed)
    # Positive enough that relu lives, small enough that it does not grow with every step.
    model.set_weights([rng.normal(0.2, 0.2 / np.sqrt(w.shape[0]), w.shape).astype(w.dtype) for w in model.weights])
    graph = convert(model, Conversion(form=Form.NAMED), source_sha256="0" * 64).graph
    operators = Counter(node.op_type for node in all_nodes(graph.graph.node))
    assert not {"Loop", "Scan", "If"} & set(operators), f"a loop for one of {cases}"
    wanted: Counter[str] = Counter()
    for case in cases:
        if case["kind"] != "SimpleRNN" or inputs.is_free:
            wanted[_KINDS[str(case["kind"])][3]] += _operators_in(case)
    assert {kind: operators[kind] for kind in ("LSTM", "GRU", "RNN") if operators[kind]} == wanted
    feeds = inputs.feeds()[: len(read)]
    got = Chain([graph])({value.name: feed for value, feed in zip(graph.graph.input, feeds, strict=True)})
    want = keras.tree.flatten(model(feeds, training=False))
    for case, value, expected in zip(owners, graph.graph.output, want, strict=True):
        array = np.asarray(expected)
        spread = float(np.ptp(array))
        assert spread, f"the outputs must differ for the comparison to mean something: {name_of(case)}"
        # Where outputs are small, ATOL alone would let anything pass.
        np.testing.assert_allclose(got[value.name], array, atol=min(ATOL, 1e-2 * spread), rtol=0, err_msg=name_of(case))


def _operators_in(case: Case) -> int:
    """How many native operators a case needs."""
    wrapper = str(case["wrapper"])
    return 2 if wrapper in {"stacked", "RNN(cells)"} or wrapper.startswith("Bidirectional") else 1


class _Inputs:
    """What the cases of a model read: a sequence, or the ids of one, and a context for initial states."""

    def __init__(self, masking: object, is_free: bool) -> None:  # noqa: FBT001 - private
        self.is_free, self._is_text = is_free, masking == "Embedding"
        steps = None if is_free else STEPS
        raw = (
            layers.Input((steps,), dtype="int32", name="ids")
            if self._is_text
            else layers.Input((steps, FEATURES), name="sequence")
        )
        context = layers.Input((2,), name="context")
        self.tensors = [raw, context]
        self.states = [layers.Dense(UNITS, activation="tanh")(context) for _ in range(_MOST_STATES)]
        self.sequence, self.mask = raw, None
        if masking != "plain":
            masker = layers.Embedding(WORDS, FEATURES, mask_zero=True) if self._is_text else layers.Masking()
            self.sequence, self.mask = masker(raw), masker.compute_mask(raw)

    def feeds(self) -> list[NDArray[Any]]:
        """All lengths 0..STEPS right-padded, then holes, left padding and single steps."""
        rng = np.random.default_rng(0)
        keep = np.arange(STEPS)[None] < np.arange(STEPS + 1)[:, None]
        others = np.array([[0, 1, 1, 0, 1], [1, 0, 1, 0, 0], [0, 0, 1, 1, 1], [0, 0, 0, 0, 1], [0, 0, 1, 0, 0]])
        valid = np.concatenate([keep, others]).astype(np.int32)
        context = rng.normal(size=(len(valid), 2)).astype(np.float32)
        if self._is_text:
            return [valid * rng.integers(1, WORDS, valid.shape, dtype=np.int32), context]
        values = rng.normal(0, 0.5, size=(*valid.shape, FEATURES))
        return [(valid[..., None] * values).astype(np.float32), context]


def _outputs_of(case: Case, inputs: _Inputs) -> list[Any]:
    """What the layers of a case return, flat."""
    layer, cell, options, _ = _KINDS[str(case["kind"])]
    chosen: Any = case.get("activations", (case.get("activation"), case.get("recurrent_activation")))
    of_cell = {"activation": chosen[0], "use_bias": case["use_bias"], **options}
    if case["kind"] != "SimpleRNN":
        of_cell["recurrent_activation"] = chosen[1]
    of_layer = {key: case[key] for key in ("return_sequences", "return_state", "go_backwards")}
    of_layer |= {
        "zero_output_for_mask": case.get("zero_output_for_mask", False),
        "unroll": case.get("time") == "unrolled",
    }
    states = 2 if case["kind"] == "LSTM" else 1
    sequence, wrapper = inputs.sequence, str(case["wrapper"])
    if wrapper == "stacked":
        sequence = layer(UNITS, **of_cell, return_sequences=True)(sequence)
    if wrapper == "RNN(cell)":
        made = layers.RNN(cell(UNITS, **of_cell), **of_layer)
    elif wrapper == "RNN(cells)":
        made = layers.RNN([cell(UNITS, **of_cell), cell(UNITS, **of_cell)], **of_layer)
    elif wrapper.startswith("Bidirectional"):
        mode = wrapper.partition(" ")[2]
        made = layers.Bidirectional(
            layer(UNITS, **of_cell, **of_layer),
            merge_mode=None if mode == "None" else mode,
            backward_layer=layer(UNITS, **of_cell, **{**of_layer, "go_backwards": not case["go_backwards"]}),
        )
        states *= 2
    else:
        made = layer(UNITS, **of_cell, **of_layer)
    given: dict[str, Any] = {}
    if case["initial_state"]:
        given["initial_state"] = inputs.states[:states]
        if wrapper == "RNN(cells)":
            given["initial_state"] = [inputs.states[:states], inputs.states[states : 2 * states]]
        if inputs.mask is not None:
            # Keras hands a mask on by itself only to a layer that is called with nothing but a sequence.
            given["mask"] = inputs.mask
    # A name of its own for each, whatever the layer's.
    return [layers.Identity()(tensor) for tensor in keras.tree.flatten(made(sequence, **given))]
