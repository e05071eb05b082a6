"""Classification of images, signals and texts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from radserve.contracts import DECISIONS, EVIDENCE, PROBABILITIES
from radserve.errors import SpecError
from radserve_export.graphs import NETWORK_OUTPUT
from radserve_export.graphs.checked import signature
from radserve_export.graphs.postprocess import decision_edges, postprocess_graph, postprocess_reference
from radserve_export.network import Form

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx
    from numpy.typing import NDArray

    from radserve_export.network import Arrays, Network
    from radserve_export.spec import Spec
    from radserve_export.tasks._rules import Wrong


def _wrong_decisions(got: Arrays, want: Arrays, spec: Spec) -> NDArray[np.bool_]:
    """Decisions must be equal, but where the probability lies on an edge within the tolerance."""
    p = want[PROBABILITIES].astype(np.float64)
    allowed = spec.parity.allowed(PROBABILITIES, p)
    lower, upper = decision_edges(spec.labels)
    on_edge = (np.abs(p - lower) <= allowed) | (np.abs(p - upper) <= allowed)
    wrong: NDArray[np.bool_] = ((got[DECISIONS] != want[DECISIONS]) & ~on_edge).any(axis=-1)
    return wrong


_SURELY = 1e-3  # no rounding is that far from a sum of 1


def check_activation(outputs: NDArray[np.generic], spec: Spec) -> None:
    """Refuse a spec that says of the network's output what it is not: graph and original would be wrong alike.

    Args:
        outputs: What Keras gives on several inputs ``(n, labels)``.
        spec: Says whether they are probabilities, and whether exactly one label applies.

    Raises:
        SpecError: They are not what the spec says.
    """
    values = np.asarray(outputs, np.float64)
    if not np.isfinite(values).all():
        return  # the parity gate says so
    within = bool((values >= -_SURELY).all() and (values <= 1 + _SURELY).all())
    sums_to_one = within and values.shape[-1] > 1 and bool((np.abs(values.sum(axis=-1) - 1) <= _SURELY).all())
    problem = None
    if spec.network_output == "probabilities":
        if not within:
            problem = "gives values outside 0 to 1, no probabilities: say network_output: logits"
        elif spec.exclusive and not sums_to_one:
            problem = "gives values that do not sum to 1: say exclusive: false, or network_output: logits"
    elif sums_to_one or (within and np.ptp(values) > 0):
        problem = "gives values within 0 to 1, as an activation does: say network_output: probabilities"
    if problem is not None:
        msg = f"{spec.name}: the network {problem}"
        raise SpecError(msg)


class Classification:
    """Labels with probabilities and decisions."""

    form: ClassVar[Form] = Form.PLAIN
    own_rules: ClassVar[Mapping[str, Wrong]] = {DECISIONS: _wrong_decisions}

    def check_network(self, spec: Spec, network: Network) -> None:
        """The network must give one value a label.

        Raises:
            SpecError: It gives something else.
        """
        _, (output, *_) = signature(network.graph)
        if output.dims != (len(spec.labels),):
            msg = f"{spec.name}: the model gives {list(output.dims)} values, but the spec has {len(spec.labels)} labels"
            raise SpecError(msg)

    def check_outputs(self, outputs: Arrays, spec: Spec) -> None:
        """Probabilities must be some, and logits none; and evidence maps must show something.

        Raises:
            SpecError: They are not what the spec says.
        """
        check_activation(outputs[NETWORK_OUTPUT], spec)
        if spec.evidence and not outputs[EVIDENCE].any():
            msg = f"{spec.name}: evidence: no map shows anything, whatever the network is shown: leave evidence out"
            raise SpecError(msg)

    def trailing_graphs(self, spec: Spec) -> dict[str, onnx.ModelProto]:
        """Calibration, activation and thresholds."""
        return {"postprocess": postprocess_graph(spec)}

    def finish(self, outputs: Arrays, spec: Spec) -> dict[str, NDArray[Any]]:
        """The same in numpy."""
        return postprocess_reference(np.asarray(outputs[NETWORK_OUTPUT], np.float32), spec)
