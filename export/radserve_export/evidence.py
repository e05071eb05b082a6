"""The second public model of an image classifier: the same answers, and where it looked.

A step computes all its outputs, so the plain model must not have the map among them.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from radserve.contracts import CONTRACT_PARAMETER, EVIDENCE, PROBABILITIES, parse_contract
from radserve.contracts.manifest import MANIFEST, read_manifest, version_folders
from radserve.errors import ContractError, ConversionError, RepositoryError
from radserve_export.graphs import NETWORK_INPUT, NETWORK_OUTPUT
from radserve_export.graphs.checked import Chain
from radserve_export.graphs.evidence import EXPLAINED, most_probable
from radserve_export.graphs.postprocess import postprocess_reference
from radserve_export.graphs.preprocess import preprocess_reference
from radserve_export.network import Form
from radserve_export.parity import Batch
from radserve_export.repository import newest_version
from radserve_export.versions import read_version

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from radserve_export.network import Arrays, Network
    from radserve_export.parity import Stage
    from radserve_export.spec import Spec

SUFFIX = "_evidence"


def public_models(spec: Spec, network: Network) -> tuple[Spec, ...]:
    """The specs of what a spec publishes: the plain model, then the one with evidence maps if it is asked for.

    Args:
        spec: As its author wrote it.
        network: Converted as the spec asks.

    Returns:
        Specs whose ``evidence`` says whether the model itself has maps.

    Raises:
        ConversionError: Maps are asked for, and the network has none.
    """
    if not spec.evidence:
        return (spec,)
    if Form.EVIDENCE.value not in network.parts:
        msg = f"{spec.name}: the converted model has no evidence map: leave evidence out of the spec"
        raise ConversionError(msg)
    plain = msgspec.structs.replace(spec, evidence=False)
    return plain, msgspec.structs.replace(spec, name=f"{spec.name}{SUFFIX}")


def explained_stages(stages: Sequence[Stage], spec: Spec, network: Network) -> list[Stage]:
    """What the parity gate compares of a model with evidence maps.

    The network alone explains each label in turn; all graphs together the label
    that a caller finds on top of their probabilities.

    Args:
        stages: Those of the same model without maps: the network, then all graphs.
        spec: The spec.
        network: The converted network.
    """
    alone, served = stages
    part = network.parts[Form.EVIDENCE.value]

    def in_turn(feeds: Arrays) -> Arrays:
        labels = np.eye(len(spec.labels), dtype=np.float32)
        return {**feeds, EXPLAINED: labels[np.arange(len(feeds[NETWORK_INPUT])) % len(labels)]}

    def on_top(feeds: Arrays) -> dict[str, NDArray[np.generic]]:
        (pixels,) = feeds.values()
        taken = preprocess_reference(pixels, spec.network_input)
        chosen = most_probable(served.exported(feeds)[PROBABILITIES])
        answer = part.reference({NETWORK_INPUT: taken, EXPLAINED: chosen})
        output = np.asarray(answer[NETWORK_OUTPUT], np.float32)
        return {**postprocess_reference(output, spec), EVIDENCE: answer[EVIDENCE]}

    return [
        alone._replace(
            outputs=(*alone.outputs, EVIDENCE),
            make=lambda *how: in_turn(alone.make(*how)),
            exported=Chain([part.graph]),
            reference=part.reference,
            real=tuple(Batch(where, in_turn(feeds)) for where, feeds in alone.real),
        ),
        served._replace(reference=on_top),
    ]


def check_companions(spec: Spec, repository: Path) -> None:
    """Let no model take the place of another kind, and leave no evidence maps behind that explain another network.

    Args:
        spec: As its author wrote it.
        repository: The model repository.

    Raises:
        RepositoryError: What is published there already forbids it; the message says what to do.
    """
    maps = f"{spec.name}{SUFFIX}"
    if has_maps(repository, spec.name):
        owner = spec.name.removesuffix(SUFFIX)
        msg = f"{repository}: {spec.name} is the model with the evidence maps of {owner}: choose another name"
        raise RepositoryError(msg)
    companion = has_maps(repository, maps)
    if spec.evidence and companion is False:
        msg = (
            f"{repository}: {maps} is another model, but evidence maps need that name:"
            " choose another name, or leave evidence out of the spec"
        )
        raise RepositoryError(msg)
    if companion and not spec.evidence:
        msg = (
            f"{repository}: {maps} would go on to explain the network that {spec.name} has now: say evidence: true;"
            f" or, to give the maps up, delete {', '.join(_models(repository / maps))} there and export again:"
            f" 'radserve publish {spec.name}' then takes them off the servers"
        )
        raise RepositoryError(msg)


def has_maps(repository: Path, name: str) -> bool | None:
    """Whether the newest version of a public model gives evidence maps; None where there is none that can be read."""
    newest = newest_version(repository, name)
    if not newest:
        return None
    try:
        config = read_version(repository, name, newest).configs[name]
        return parse_contract(config.parameters[CONTRACT_PARAMETER].string_value).evidence is not None
    except (RepositoryError, ContractError, KeyError):
        return None


def _models(model: Path) -> list[str]:
    """The folders that a public model's versions consist of."""
    found: dict[str, None] = {}
    for folder in version_folders(model):
        with suppress(OSError, ValueError):
            found |= dict.fromkeys(read_manifest(folder / MANIFEST).models)
    return [name for name in found if (model.parent / name).exists()]
