"""The ``radserve`` command.

Its sub-commands are found by entry points, so that the SDK imports neither
the exporter nor the server, and works without them.
"""

from __future__ import annotations

import errno
import sys
from functools import wraps
from importlib import metadata
from typing import TYPE_CHECKING, Any, NoReturn

from radserve.errors import MissingExtraError, RadserveError, installing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import typer

_GROUP = "radserve.commands"
_FAILED = 1
_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit: 0 done, 1 failed, 2 wrong usage, 130 interrupted.

    Args:
        arguments: Without the program's name; None takes the process's.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        app = _application(given)
        app(args=given, prog_name="radserve")
    except MissingExtraError as error:
        _stop(str(error), _FAILED)
    except KeyboardInterrupt:
        _stop("interrupted", _INTERRUPTED)
    sys.exit(0)


def _application(given: Sequence[str]) -> typer.Typer:
    try:
        import typer  # noqa: PLC0415 - an extra, which the SDK works without
    except ImportError:
        extra = "cli"
        raise MissingExtraError(extra, "the radserve command") from None
    app = typer.Typer(name="radserve", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

    def tell_version(asked: bool) -> None:  # noqa: FBT001 - typer's signature of an option's callback
        if asked:
            print(f"radserve {metadata.version('radserve')}")  # noqa: T201 - asked for
            raise typer.Exit

    @app.callback()
    def root(
        *,
        version: bool = typer.Option(
            False,  # noqa: FBT003 - the default
            "--version",
            callback=tell_version,
            is_eager=True,
            help="Show the version and exit.",
        ),
    ) -> None:
        """Serve trained Keras models to hospital systems through NVIDIA Triton.

        Exit status: 0 done, 1 failed, 2 wrong usage, 130 interrupted.
        """

    points = {point.name: point for point in metadata.entry_points(group=_GROUP)}
    named = next((argument for argument in given if not argument.startswith("-")), None)
    # Only the command that is asked for is imported; the others may need what is not installed.
    chosen = [points[named]] if named in points else [points[name] for name in sorted(points)]
    for point in chosen:
        _add(app, point)
    if not chosen:
        _stop("no commands are installed: pip install --force-reinstall . in a checkout of radserve", _FAILED)
    return app


def _add(app: typer.Typer, point: metadata.EntryPoint) -> None:
    """Add a command; one that cannot be imported says so when it is called, and breaks no other."""
    try:
        command = point.load()
    except Exception as error:  # noqa: BLE001 - another distribution's code
        reason = str(error) if isinstance(error, RadserveError) else f"{type(error).__name__}: {error}"
        missing = getattr(error, "name", None) if isinstance(error, ModuleNotFoundError) else None
        if missing:
            reason = f"{missing} is not installed: {installing('all')}"

        def command() -> None:
            _stop(f"the command {point.name} is not available ({reason})", _FAILED)

        # Help is markup, where [extra] would be a style.
        command.__doc__ = f"Not available: {reason}".replace("[", r"\[")
        settings = {"ignore_unknown_options": True, "allow_extra_args": True}
        app.command(point.name, context_settings=settings)(command)
    else:
        app.command(point.name)(_reporting(command))


def _reporting(command: Callable[..., Any]) -> Callable[..., Any]:
    """Turn radserve's errors, and those of files, into one line and exit status 1, and Ctrl-C into 130."""

    @wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - whatever the command takes and gives
        try:
            return command(*args, **kwargs)
        except RadserveError as error:
            _stop(str(error), _FAILED)
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise  # whoever reads has seen enough: the framework ends without a word
            _stop(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}", _FAILED)
        except KeyboardInterrupt:
            _stop("interrupted", _INTERRUPTED)

    return run


def _stop(message: str, status: int) -> NoReturn:
    line = " ".join(message.split())
    print(f"radserve: {line}", file=sys.stderr)  # noqa: T201 - the command's one line
    sys.exit(status)
