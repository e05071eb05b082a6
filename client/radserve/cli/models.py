"""``radserve models``: what a server serves."""

from __future__ import annotations

import json as jsonlib
from typing import TYPE_CHECKING, Any

import typer
from rich.text import Text

from radserve.cli._options import (
    Config,
    Insecure,
    Json,
    Timeout,
    TlsCa,
    TlsCert,
    TlsKey,
    Url,
    connect,
    documented,
    filled_table,
    wide_console,
)
from radserve.contracts import EVIDENCE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from radserve.contracts import Contract, TensorSpec

_COLUMNS = ("model", "version", "task", "accepts", "labels", "description")


@documented
def models(
    *,
    url: Url = None,
    json: Json = False,
    timeout: Timeout = None,
    insecure: Insecure = False,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    config: Config = None,
) -> None:
    """List the public models of a server, and what each accepts.

    Example: radserve models --url localhost:8001
    """
    with connect(
        url,
        timeout=timeout,
        insecure=insecure,
        tls_ca=tls_ca,
        tls_cert=tls_cert,
        tls_key=tls_key,
        config=config,
    ) as client:
        contracts = [model.contract for model in client.models()]
    if json:
        for contract in contracts:
            typer.echo(jsonlib.dumps(_plain(contract), ensure_ascii=False))
        return
    rows = [
        [
            Text(contract.name),
            str(contract.version),
            contract.task.value,
            Text(f"{_accepts(contract)}{_at_once(contract)}"),
            Text(", ".join(label.name for label in contract.labels)),
            Text(f"{contract.description}{' (with an evidence map)' if _has_evidence(contract) else ''}"),
        ]
        for contract in contracts
    ]
    console = wide_console()
    console.print(filled_table(_COLUMNS, rows))
    for contract in contracts:
        if contract.intended_use:
            console.print(f"{contract.name}: {contract.intended_use}", markup=False)


def _accepts(contract: Contract) -> str:
    modalities = getattr(contract.input, "modalities", None)
    if modalities:
        return ", ".join(modalities)
    languages = getattr(contract.input, "languages", None)
    if languages:
        return f"text: {', '.join(languages)}"
    shapes = [", ".join(map(str, _shape(contract, tensor))) for tensor in contract.inputs]
    return ", ".join(
        f"{tensor.name} {tensor.dtype.value} [{shape}]" for tensor, shape in zip(contract.inputs, shapes, strict=True)
    )


def _at_once(contract: Contract) -> str:
    """What of the modalities one answer is about."""
    if not getattr(contract.input, "modalities", None):
        return ""
    return " (a study)" if _is_of_studies(contract) else " (one file)"


def _is_of_studies(contract: Contract) -> bool:
    return getattr(contract.input, "study", None) is not None


def _has_evidence(contract: Contract) -> bool:
    return any(tensor.name == EVIDENCE for tensor in contract.outputs)


def _shape(contract: Contract, tensor: TensorSpec) -> list[str | int]:
    """The whole shape that ``infer`` takes or gives, in the words of its errors."""
    batch: list[str | int] = ["batch"] if contract.max_batch_size else []
    return batch + ["any" if dim < 0 else dim for dim in tensor.dims]


def _tensors(contract: Contract, tensors: Sequence[TensorSpec]) -> list[dict[str, Any]]:
    return [
        {"name": tensor.name, "datatype": tensor.dtype.value, "shape": _shape(contract, tensor)} for tensor in tensors
    ]


def _plain(contract: Contract) -> dict[str, Any]:
    return {
        "model": contract.name,
        "version": contract.version,
        "task": contract.task.value,
        "accepts": _accepts(contract),
        "study": _is_of_studies(contract),
        "evidence": _has_evidence(contract),
        "inputs": _tensors(contract, contract.inputs),
        "outputs": _tensors(contract, contract.outputs),
        "max_batch_size": contract.max_batch_size,
        "labels": [label.name for label in contract.labels],
        "description": contract.description,
        "intended_use": contract.intended_use,
        "model_sha256": contract.model_sha256,
        "contract_sha256": contract.sha256,
    }
