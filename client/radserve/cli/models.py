"""``radserve models``: what a server serves."""

from __future__ import annotations

import json as jsonlib
from typing import TYPE_CHECKING, Any

import typer
from rich.text import Text

from radserve.cli._options import Insecure, Json, Timeout, TlsCa, Url, filled_table, tls_from, wide_console
from radserve.client import Client

if TYPE_CHECKING:
    from radserve.contracts import Contract

_COLUMNS = ("model", "version", "task", "accepts", "labels", "description")


def models(
    *,
    url: Url,
    json: Json = False,
    timeout: Timeout = 30.0,
    insecure: Insecure = False,
    tls_ca: TlsCa = None,
) -> None:
    """List the public models of a server, and what each accepts.

    Example: radserve models --url localhost:8001
    """
    with Client(url, tls=tls_from(tls_ca), insecure=insecure, timeout_s=timeout) as client:
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
            Text(_accepts(contract)),
            Text(", ".join(label.name for label in contract.labels)),
            Text(contract.description),
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
    return ", ".join(f"{tensor.name} {tensor.dtype.value} {list(tensor.dims)}" for tensor in contract.inputs)


def _plain(contract: Contract) -> dict[str, Any]:
    return {
        "model": contract.name,
        "version": contract.version,
        "task": contract.task.value,
        "accepts": _accepts(contract),
        "labels": [label.name for label in contract.labels],
        "description": contract.description,
        "intended_use": contract.intended_use,
        "model_sha256": contract.model_sha256,
        "contract_sha256": contract.sha256,
    }
