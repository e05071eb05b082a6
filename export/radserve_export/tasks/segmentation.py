"""Segmentation of images: a label for each pixel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from radserve.contracts import LABEL_MAP, Calibration, ImageInput
from radserve.errors import SpecError
from radserve_export.graphs import NETWORK_OUTPUT
from radserve_export.graphs.checked import signature
from radserve_export.graphs.label_map import class_count, label_map_graph, label_map_reference, with_background
from radserve_export.network import Form
from radserve_export.tasks.classification import check_activation

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx
    from numpy.typing import NDArray

    from radserve_export.network import Arrays, Network
    from radserve_export.spec import Spec
    from radserve_export.tasks._rules import Wrong

_DEFAULT_THRESHOLD = 0.5

# What the original compared for each pixel; not served.
_COMPARED = "COMPARED"


def _wrong_pixels(got: Arrays, want: Arrays, spec: Spec) -> NDArray[np.bool_]:
    """Label maps must be equal, but where Keras holds both labels for equally probable within the tolerance."""
    labels, values = got[LABEL_MAP], want[_COMPARED].astype(np.float64)
    if labels.dtype != np.uint8 or labels.shape != values.shape[:-1] or labels.max() >= values.shape[-1]:
        return np.ones(len(values), bool)
    chosen = np.take_along_axis(values, labels[..., np.newaxis].astype(np.intp), axis=-1)[..., 0]
    best = values.max(axis=-1)
    allowed = spec.parity.allowed(NETWORK_OUTPUT, best) + spec.parity.allowed(NETWORK_OUTPUT, chosen)
    right = (labels == want[LABEL_MAP]) | (best - chosen <= allowed)  # a comparison with NaN is False
    wrong: NDArray[np.bool_] = ~(right & np.isfinite(best)).reshape(len(values), -1).all(axis=1)
    return wrong


class Segmentation:
    """A label map."""

    form: ClassVar[Form] = Form.PLAIN
    own_rules: ClassVar[Mapping[str, Wrong]] = {LABEL_MAP: _wrong_pixels}

    def check_network(self, spec: Spec, network: Network) -> None:
        """The network must give values for each pixel of the wire, as many as there are classes.

        Raises:
            SpecError: It gives something else, or the spec asks for what a label map cannot tell.
        """
        problem = _contradiction(spec)
        if problem is not None:
            msg = f"{spec.name}: {problem}"
            raise SpecError(msg)
        _, (output,) = signature(network.graph)
        described = spec.input
        wanted = (*described.grid, class_count(spec)) if isinstance(described, ImageInput) else ()
        if len(output.dims) != len(wanted) or any(
            have not in (-1, want) for have, want in zip(output.dims, wanted, strict=True)
        ):
            of = "the background and each label" if spec.exclusive else "its only label"
            msg = (
                f"{spec.name}: the model gives {list(output.dims)} values, but the spec asks for {list(wanted)}:"
                f" one for {of} of every pixel"
            )
            raise SpecError(msg)

    def check_outputs(self, outputs: Arrays, spec: Spec) -> None:
        """Probabilities of a single label must be some, and logits none; of several the largest counts all the same.

        Raises:
            SpecError: They are not what the spec says.
        """
        if not spec.exclusive:
            check_activation(np.reshape(outputs[NETWORK_OUTPUT], (-1, 1)), spec)

    def trailing_graphs(self, spec: Spec) -> dict[str, onnx.ModelProto]:
        """From the network's output to the label map."""
        return {"postprocess": label_map_graph(spec)}

    def finish(self, outputs: Arrays, spec: Spec) -> dict[str, NDArray[Any]]:
        """The same in numpy, and what it was decided by."""
        output = np.asarray(outputs[NETWORK_OUTPUT], np.float32)
        return {LABEL_MAP: label_map_reference(output, spec), _COMPARED: with_background(output, spec)}


def _contradiction(spec: Spec) -> str | None:
    if len(spec.labels) > 1 and not spec.exclusive:
        return "a label map gives each pixel one label: set exclusive: true (the background is a class of its own)"
    if spec.calibration != Calibration():
        return "calibration: a label map has no probabilities: leave it out"
    if any(label.indeterminate is not None for label in spec.labels):
        return "labels: no pixel of a label map is undecided: leave indeterminate out"
    if spec.exclusive and any(label.threshold != _DEFAULT_THRESHOLD for label in spec.labels):
        return "labels: the largest of exclusive classes counts: leave threshold out"
    return None
