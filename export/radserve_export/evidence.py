"""The second public model of an image classifier: the same answers, and where it looked.

A step computes all its outputs, so the plain model must not have the map among them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec

from radserve.errors import ConversionError
from radserve_export.network import Form

if TYPE_CHECKING:
    from radserve_export.network import Network
    from radserve_export.spec import Spec


def evidence_model(spec: Spec, network: Network) -> tuple[Spec, Network]:
    """The spec and the network of ``NAME_evidence``.

    Args:
        spec: That of the plain model.
        network: Converted as Form.EVIDENCE.

    Raises:
        ConversionError: It was not.
    """
    part = network.parts.get(Form.EVIDENCE.value)
    if part is None:
        msg = f"{spec.name}: the converted model has no evidence map: leave evidence out of the spec"
        raise ConversionError(msg)
    named = msgspec.structs.replace(spec, name=f"{spec.name}_evidence")
    return named, replace(network, graph=part.graph, reference=part.reference, parts={})
