"""Options that the commands which call a server share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Column, Table

from radserve.options import TLS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rich.text import Text

__all__ = ["Insecure", "Json", "Timeout", "TlsCa", "Url", "filled_table", "tls_from", "wide_console"]

Url = Annotated[str, typer.Option("--url", metavar="HOST:PORT", help="Triton's gRPC service.")]
Timeout = Annotated[float, typer.Option("--timeout", metavar="SECONDS", min=0.001, help="Longest wait for an answer.")]
Insecure = Annotated[
    bool, typer.Option("--insecure", help="Send patient data readable to another host: trusted networks only.")
]
TlsCa = Annotated[
    str | None,
    typer.Option("--tls-ca", metavar="FILE", help="Encrypt; trust the certificate authorities in this PEM file."),
]
Json = Annotated[bool, typer.Option("--json", help="JSON lines instead of a table.")]


_WIDTH = 200


def tls_from(root_certificates: str | Path | None) -> TLS | None:
    """Encryption, where a certificate authority is named.

    Raises:
        InputError: The file cannot be read.
    """
    return None if root_certificates is None else TLS.from_files(root_certificates)


def wide_console() -> Console:
    """Standard output for tables; as wide as they like where it is no terminal."""
    console = Console()
    return console if console.is_terminal else Console(width=_WIDTH)


def filled_table(names: Sequence[str], rows: Sequence[Sequence[str | Text]]) -> Table:
    """A table without the columns that no row fills; the first one always stays."""
    kept = [place for place in range(len(names)) if not place or any(str(row[place]) for row in rows)]
    table = Table(*(Column(names[place], overflow="fold") for place in kept))
    for row in rows:
        table.add_row(*(row[place] for place in kept))
    return table
