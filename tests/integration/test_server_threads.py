from __future__ import annotations

from pathlib import Path

from support.repositories import write_add_one

from radserve_server import EmbeddedServer

INSTANCES = 8
EACH = 8  # threads: the python backend's own, and its pool, which is 32 by default


def threads_with(repository: Path, instances: int) -> int:
    write_add_one(repository, instances=instances)
    with EmbeddedServer(repository, supervise=False) as server:
        return sum(1 for _ in Path(f"/proc/{server.pid}/task").iterdir())


def test_an_instance_more_costs_the_server_few_threads(tmp_path: Path) -> None:
    one, many = (threads_with(tmp_path / str(count), count) for count in (1, INSTANCES))
    assert many - one < EACH * (INSTANCES - 1)
