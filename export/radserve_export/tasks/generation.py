"""Generation of text from text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from radserve.contracts import IS_COMPLETE, LOG_PROBABILITY
from radserve_export.graphs import GENERATED_IDS
from radserve_export.graphs.decoding import MARGIN, OWN_LOG_PROBABILITY, REGRET
from radserve_export.network import Form

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx
    from numpy.typing import NDArray

    from radserve_export.network import Arrays, Network
    from radserve_export.spec import Spec
    from radserve_export.tasks._rules import Wrong


def _is_tie(want: Arrays, spec: Spec) -> NDArray[np.bool_]:
    """Rows where Keras itself had two candidates within the tolerance, so that either text is right."""
    margin, score = want[MARGIN][:, 0], want[LOG_PROBABILITY][:, 0].astype(np.float64)
    tie: NDArray[np.bool_] = margin <= 2 * spec.parity.allowed(LOG_PROBABILITY, score)
    return tie


def _same_text(got: Arrays, want: Arrays) -> NDArray[np.bool_]:
    same: NDArray[np.bool_] = (got[GENERATED_IDS] == want[GENERATED_IDS]).all(axis=-1)
    return same


def _wrong_ids(got: Arrays, want: Arrays, spec: Spec) -> NDArray[np.bool_]:
    return ~(_same_text(got, want) | _is_tie(want, spec))


def _wrong_end(got: Arrays, want: Arrays, spec: Spec) -> NDArray[np.bool_]:
    same: NDArray[np.bool_] = got[IS_COMPLETE][:, 0] == want[IS_COMPLETE][:, 0]
    return ~(same | _is_tie(want, spec))


def _wrong_score(got: Arrays, want: Arrays, spec: Spec) -> NDArray[np.bool_]:
    """Of the same text, the log probability must be the same one; a NaN is none."""
    a, b = (answers[LOG_PROBABILITY][:, 0].astype(np.float64) for answers in (got, want))
    close = np.abs(a - b) <= spec.parity.allowed(LOG_PROBABILITY, b)
    other_text = ~_same_text(got, want) & np.isfinite(a) & np.isfinite(b)
    wrong: NDArray[np.bool_] = ~(close | other_text)
    return wrong


def _wrong_choice(_: Arrays, want: Arrays, spec: Spec) -> NDArray[np.bool_]:
    """No word may be less probable than another one, but by the tolerance."""
    score, regret = want[OWN_LOG_PROBABILITY][:, 0], want[REGRET][:, 0]
    return np.asarray(~(regret <= 2 * spec.parity.allowed(LOG_PROBABILITY, np.where(np.isfinite(score), score, 0))))


class Generation:
    """A text, whether it is complete, and how probable it is."""

    form: ClassVar[Form] = Form.GENERATION
    own_rules: ClassVar[Mapping[str, Wrong]] = {
        GENERATED_IDS: _wrong_ids,
        IS_COMPLETE: _wrong_end,
        LOG_PROBABILITY: _wrong_score,
        REGRET: _wrong_choice,
    }

    def check_network(self, spec: Spec, network: Network) -> None:
        """Nothing is left to compare: the exporter itself built the graph around the model's parts."""

    def check_outputs(self, outputs: Arrays, spec: Spec) -> None:
        """Nothing: token ids are compared one by one."""

    def trailing_graphs(self, spec: Spec) -> dict[str, onnx.ModelProto]:  # noqa: ARG002 - the protocol's
        """None: the network's graph gives the public outputs, but for the text itself."""
        return {}

    def finish(self, outputs: Arrays, spec: Spec) -> dict[str, NDArray[Any]]:  # noqa: ARG002 - as above
        """The network's outputs."""
        return dict(outputs)
