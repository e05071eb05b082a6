"""The commands ``radserve publish`` and ``radserve rollback``.

Whatever is slow to import is imported inside: the command line loads this
module to show its help.
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from radserve_export.commands import one_line_errors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from radserve_export.live import Access

_SECRET = "RADSERVE_PROTOCOL_SECRET"  # noqa: S105 - the variable's name
_Repository = Annotated[Path, typer.Option(help="Folder of the model repository.")]
_Urls = Annotated[list[str], typer.Option("--url", metavar="HOST:PORT", help="Triton's gRPC service; repeatable.")]
_NoUrls = Annotated[
    list[str] | None,
    typer.Option("--url", metavar="HOST:PORT", help="A server that is to load it at once; repeatable."),
]
_Ca = Annotated[str | None, typer.Option("--tls-ca", metavar="FILE", help="Encrypt; trust these authorities (PEM).")]
_Certificate = Annotated[str | None, typer.Option("--tls-cert", metavar="FILE", help="The client's certificate (PEM).")]
_Key = Annotated[str | None, typer.Option("--tls-key", metavar="FILE", help="The client's private key (PEM).")]
_Insecure = Annotated[bool, typer.Option("--insecure", help="Allow plain text to another machine.")]
_Protocol = Annotated[
    str | None,
    typer.Option(
        "--protocol-key",
        metavar="KEY",
        help=f"Key of the server's --grpc-restricted-protocol; its secret is read from ${_SECRET}.",
    ),
]
_Timeout = Annotated[float, typer.Option(metavar="SECONDS", min=0.001, help="Longest wait for a model to load.")]


def publish(
    models: Annotated[
        list[str] | None, typer.Argument(metavar="[MODEL]...", help="Public models; default: all.")
    ] = None,
    *,
    url: _Urls,
    repository: _Repository = Path("model_repository"),
    tls_ca: _Ca = None,
    tls_cert: _Certificate = None,
    tls_key: _Key = None,
    insecure: _Insecure = False,
    protocol_key: _Protocol = None,
    timeout: _Timeout = 120.0,
) -> None:
    """Let running servers load what lies in their repository, without losing a request.

    The servers run in explicit mode, as those of 'radserve serve' do, and read the repository's files.

    Example: radserve publish --url localhost:8001 chest_xray
    """
    with one_line_errors() as messages:
        from radserve_export.rollback import published_models  # noqa: PLC0415 - slow

        access = _access(tls_ca, tls_cert, tls_key, protocol_key, insecure=insecure, timeout=timeout)
        _verify(repository)
        _publish_to_all(url, repository, models or published_models(repository), access, messages)


def rollback(
    model: Annotated[str, typer.Argument(help="A public model.")],
    *,
    to: Annotated[int | None, typer.Option(min=1, metavar="VERSION", help="Default: the one before.")] = None,
    repository: _Repository = Path("model_repository"),
    url: _NoUrls = None,
    tls_ca: _Ca = None,
    tls_cert: _Certificate = None,
    tls_key: _Key = None,
    insecure: _Insecure = False,
    protocol_key: _Protocol = None,
    timeout: _Timeout = 120.0,
) -> None:
    """Publish an older version's content again, as a new version.

    Example: radserve rollback chest_xray --to 3 --url localhost:8001
    """
    with one_line_errors() as messages:
        from radserve_export.rollback import rollback as run  # noqa: PLC0415 - slow

        access = _access(tls_ca, tls_cert, tls_key, protocol_key, insecure=insecure, timeout=timeout)
        done = run(repository, model, to=to)
        typer.echo(f"{model}: version {done.version} has the content of version {done.restored}, not {done.replaced}'s")
        _report_evidence(repository, model, url or [], messages)
        if url:
            _publish_to_all(url, repository, [model], access, messages)
        else:
            typer.echo(f"running servers go on with version {done.replaced} until: radserve publish {model} --url ...")


def _report_evidence(repository: Path, model: str, urls: Sequence[str], messages: Console) -> None:
    """A model and its evidence maps are rolled back one by one: whoever rolls back one must know."""
    from radserve_export.rollback import left_behind  # noqa: PLC0415 - slow

    found = left_behind(repository, model)
    if found is None:
        return
    todo = f"export {found.plain} again with evidence: {found.name} has no version of this network"
    if found.fitting is not None:
        options = [option for url in urls for option in ("--url", url)]
        command = ["rollback", found.name, "--to", str(found.fitting), "--repository", str(repository), *options]
        todo = f"roll {found.name} back, too: radserve {shlex.join(command)}"
    messages.print(
        f"radserve: the evidence maps of {found.plain} now explain another network than {found.plain} has: {todo}",
        style="yellow",
        markup=False,
    )


def _access(
    tls_ca: str | None,
    tls_cert: str | None,
    tls_key: str | None,
    protocol_key: str | None,
    *,
    insecure: bool,
    timeout: float,
) -> Access:
    from radserve.errors import InputError  # noqa: PLC0415 - with the rest
    from radserve_export.live import Access  # noqa: PLC0415 - slow

    secret = os.environ.get(_SECRET)
    if protocol_key is not None and not secret:
        msg = f"--protocol-key needs its secret in the environment variable {_SECRET}"
        raise InputError(msg)
    if (tls_cert is None) != (tls_key is None) or (tls_cert is not None and tls_ca is None):
        msg = "mutual TLS needs --tls-ca, --tls-cert and --tls-key"
        raise InputError(msg)
    return Access(
        tls_ca=tls_ca,
        tls_certificate=tls_cert,
        tls_key=tls_key,
        insecure=insecure,
        protocol_key=protocol_key,
        protocol_secret=secret,
        timeout_s=timeout,
    )


def _verify(repository: Path) -> None:
    """No server shall load what is not as it was published."""
    from radserve.contracts.manifest import verify_repository  # noqa: PLC0415 - with the rest
    from radserve.errors import RepositoryError  # noqa: PLC0415 - with the rest

    differences = verify_repository(repository, served_only=True) if repository.is_dir() else []
    if differences:
        msg = (
            f"{repository} is not as it was published: {differences[0]}: restore it from a copy; or, without one, stop"
            " the servers, delete the public model and its steps there, and export it again"
        )
        raise RepositoryError(msg)


def _publish_to_all(
    urls: Sequence[str], repository: Path, models: Sequence[str], access: Access, messages: Console
) -> None:
    """One server after the other; one that fails keeps what it has, and does not keep the others from it."""
    done = [_publish_to_one(url, repository, models, access, messages) for url in urls]
    if not all(done):
        raise typer.Exit(1)


def _publish_to_one(url: str, repository: Path, models: Sequence[str], access: Access, messages: Console) -> bool:
    from radserve.errors import ServerError  # noqa: PLC0415 - with the rest
    from radserve_export.live import publish_to  # noqa: PLC0415 - slow

    def tell(line: str) -> None:
        messages.print(f"radserve: {line}", style="yellow", markup=False)

    try:
        served = [f"{model} version {publish_to(url, repository, model, access, tell)}" for model in models]
    except ServerError as error:
        messages.print(f"radserve: {error}", style="red", markup=False)
        return False
    typer.echo(f"{url} serves {', '.join(served) or 'no public model'}")
    return True
