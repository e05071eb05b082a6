"""A public model's contract against its configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from radserve.contracts import CONTRACT_PARAMETER, Contract, parse_contract
from radserve.errors import ContractError
from radserve_export.triton_config import datatype_of

if TYPE_CHECKING:
    from collections.abc import Iterator

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
    line = model.text.keyed("parameters", CONTRACT_PARAMETER, by="key").at("value", "string_value").line
    try:
        contract: Contract = parse_contract(config.parameters[CONTRACT_PARAMETER].string_value)
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
