"""Fixtures that any test may use."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from radserve_server import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

REPOSITORY = Path(__file__).parent.parent / "model_repository"


@pytest.fixture
def start_server() -> Iterator[Callable[..., EmbeddedServer]]:
    """A function that starts a server on free ports: ``start_server(repository, **options)``."""
    with ExitStack() as running:

        def start(repository: Path, **options: Any) -> EmbeddedServer:
            return running.enter_context(EmbeddedServer(repository, **options))

        yield start


@pytest.fixture(scope="session")
def reference_server() -> Iterator[EmbeddedServer]:
    """One server of the committed model repository for the whole run; tests only send requests."""
    with EmbeddedServer(REPOSITORY) as server:
        yield server
