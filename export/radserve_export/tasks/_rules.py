"""What a task must say about itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from radserve_export.network import Arrays

if TYPE_CHECKING:
    import onnx

    from radserve_export.network import Form, Network
    from radserve_export.spec import Spec

Wrong = Callable[[Arrays, Arrays, "Spec"], NDArray[np.bool_]]


class Rules(Protocol):
    """One task.

    Attributes:
        form: What its model file is made into.
        own_rules: Outputs that the parity gate does not compare by tolerance:
            from the graphs' answers, the original's and the spec, the rows that are wrong.
    """

    form: ClassVar[Form]
    own_rules: ClassVar[Mapping[str, Wrong]]

    def check_network(self, spec: Spec, network: Network) -> None:
        """Compare what the network gives with what the spec says of it.

        Raises:
            SpecError: It is something else.
        """

    def check_outputs(self, outputs: Arrays, spec: Spec) -> None:
        """Compare what the original gives on several inputs with what the spec says of it.

        Raises:
            SpecError: It is something else.
        """

    def trailing_graphs(self, spec: Spec) -> dict[str, onnx.ModelProto]:
        """The graphs between the network and the public outputs, by the suffix of the step that each alone would be."""

    def finish(self, outputs: Arrays, spec: Spec) -> dict[str, NDArray[Any]]:
        """What the trailing graphs compute, in numpy; and whatever the own rules need beside.

        Args:
            outputs: The network's.
            spec: The spec.
        """
