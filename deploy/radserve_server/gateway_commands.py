"""The command ``radserve gateway``.

Whatever is slow to import is imported inside: the command line loads this
module to show its help.
"""

from __future__ import annotations

from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer


class Place(str, Enum):
    """Where a gateway runs."""

    COMPOSE = "compose"
    KUBERNETES = "kubernetes"


def gateway(
    place: Annotated[Place, typer.Argument(help="Where it is to run.")],
    *,
    output: Annotated[Path, typer.Option(help="Folder for Envoy's files.")],
    repository: Annotated[Path, typer.Option(help="Model repository that the replicas serve.")] = Path(
        "model_repository"
    ),
    canary: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Which public model tells whether a replica answers.")
    ] = None,
    client_certificates: Annotated[
        bool, typer.Option(help="Whether clients must show a certificate; else tokens are a must.")
    ] = True,
    operator: Annotated[
        list[str] | None, typer.Option(metavar="SUBJECT", help="Certificates of operators; repeatable.")
    ] = None,
    issuer: Annotated[str | None, typer.Option(help="Ask for tokens of this identity provider.")] = None,
    audience: Annotated[str, typer.Option(help="Whom the tokens must be for.")] = "radserve",
    jwks: Annotated[str | None, typer.Option(help="Where its keys are: an https address, or a file.")] = None,
    requests_per_s: Annotated[int, typer.Option(min=1, help="Of one client, lasting; twice as many at once.")] = 500,
    collector: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Send spans to this OpenTelemetry collector, by OTLP over gRPC."),
    ] = None,
    max_requests: Annotated[
        int, typer.Option(min=1, help="In flight at the replicas together; more are refused at once.")
    ] = 1024,
    max_request_mib: Annotated[int, typer.Option(min=1, help="Largest message.")] = 64,
) -> None:
    """Write Envoy's configuration for deploy/compose.yaml or deploy/kubernetes.

    Example: radserve gateway kubernetes --output deploy/kubernetes/base/envoy
    """
    from radserve.errors import InputError  # noqa: PLC0415 - with the rest
    from radserve_server import gateway as gateways  # noqa: PLC0415 - with the rest

    if (issuer is None) != (jwks is None):
        msg = "--issuer and --jwks belong together"
        raise InputError(msg)
    make = gateways.compose if place is Place.COMPOSE else gateways.kubernetes
    asked = gateways.canary_of(repository, canary)
    made = make(asked)
    made = replace(
        made,
        mutual_tls=client_certificates,
        tokens=gateways.Tokens(issuer=issuer, audience=audience, jwks=jwks) if issuer and jwks else None,
        operators=tuple(operator or made.operators),
        requests_per_s=requests_per_s,
        burst=2 * requests_per_s,
        max_requests=max_requests,
        max_request_bytes=max_request_mib * 2**20,
        collector=_address(collector) if collector else None,
    )
    gateways.write(made, output)
    typer.echo(f"{output}: {', '.join(sorted(gateways.render(made)))}")
    if not asked.lasts:
        warning = f"the canary asks {asked.model}: render the gateway anew before a release that changes its inputs"
        typer.echo(warning, err=True)


def _address(given: str) -> tuple[str, int]:
    from radserve.errors import InputError  # noqa: PLC0415 - with the rest

    host, _, port = given.rpartition(":")
    if not host or not port.isdecimal():
        msg = f"--collector {given}: give HOST:PORT of OTLP over gRPC, for example collector:4317"
        raise InputError(msg)
    return host, int(port)


if __name__ == "__main__":
    typer.run(gateway)
