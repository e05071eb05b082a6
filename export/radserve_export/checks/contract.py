"""A public model's contract against its configuration and its labels, and against that of its evidence maps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from radserve.contracts import CONTRACT_PARAMETER, PROBABILITIES, Contract, parse_contract
from radserve.errors import ContractError
from radserve_export.evidence import SUFFIX
from radserve_export.triton_config import datatype_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from radserve_export.checks.model import Problem, ServedModel


def contract_problems(name: str, model: ServedModel) -> Iterator[Problem]:
    """What a contract promises otherwise than the configuration around it.

    Args:
        name: The model's name.
        model: A model; without a contract there is nothing wrong.
    """
    config = model.config
    if CONTRACT_PARAMETER not in config.parameters:
        return
    line = _line(model)
    try:
        contract = _contract(model)
    except ContractError as error:
        yield line, str(error)
        return
    if contract.name != name:
        yield line, f"the contract is that of {contract.name}"
    if contract.version not in model.served():
        yield line, f"the contract is of version {contract.version}, which is not served"
    if contract.max_batch_size != config.max_batch_size:
        yield line, "the contract has another max_batch_size"
    for kind, described, configured in (
        ("inputs", contract.inputs, config.input),
        ("outputs", contract.outputs, config.output),
    ):
        if {(tensor.name, tensor.dtype, tensor.dims) for tensor in described} != {
            (tensor.name, datatype_of(tensor.data_type), tuple(tensor.dims)) for tensor in configured
        }:
            yield line, f"the contract has other {kind}"
    yield from _label_problems(model, contract)


def _label_problems(model: ServedModel, contract: Contract) -> Iterator[Problem]:
    """Triton names probabilities by the label file, the SDK by the contract."""
    promised = [label.name for label in contract.labels]
    for output in model.config.output:
        lines = model.labels.get(output.label_filename, ())
        if output.name != PROBABILITIES or len(lines) != len(promised):
            continue  # that is found elsewhere
        for number, (line, name) in enumerate(zip(lines, promised, strict=True), start=1):
            if line != name:
                where = f"line {number} of {output.label_filename} is {line}"
                yield _line(model), f"{where}, but that label is {name} in the contract"


def companion_problems(models: Mapping[str, ServedModel]) -> Iterator[tuple[str, Problem]]:
    """Evidence maps of another network than the plain model's.

    Args:
        models: By name.

    Yields:
        The model with the maps, and what is wrong there.
    """
    for name, model in models.items():
        maps = models.get(f"{name}{SUFFIX}")
        if maps is None:
            continue
        try:
            plain, explaining = _contract(model), _contract(maps)
        except ContractError:
            continue  # absent, or found elsewhere
        if explaining.evidence is not None and explaining.model_sha256 != plain.model_sha256:
            message = f"explain another network than {name} has: roll one of the two back, or export both again"
            yield f"{name}{SUFFIX}", (_line(maps), f"its evidence maps {message}")


def has_priorities(model: ServedModel) -> bool:
    """Whether a model has a contract by which callers may say how urgent they are."""
    try:
        return _contract(model).priorities is not False
    except ContractError:
        return False  # absent, or found elsewhere


def _contract(model: ServedModel) -> Contract:
    if CONTRACT_PARAMETER not in model.config.parameters:
        msg = "the model has no contract"
        raise ContractError(msg)
    return parse_contract(model.config.parameters[CONTRACT_PARAMETER].string_value)


def _line(model: ServedModel) -> int:
    return model.text.keyed("parameters", CONTRACT_PARAMETER, by="key").at("value", "string_value").line
