"""A server whose models are not what their contracts say."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from support.echo import write_echo
from support.servers import raw_server

from radserve import Client, RequestRejectedError
from radserve.errors import ServerStartError
from radserve_server import EmbeddedServer

if TYPE_CHECKING:
    from pathlib import Path


def test_an_output_that_was_renamed_is_named_and_keeps_a_server_from_starting(tmp_path: Path) -> None:
    write_echo(tmp_path)
    config = tmp_path / "echo" / "config.pbtxt"
    renamed = config.read_text().replace('{ name: "Y"', '{ name: "Z"').replace('value: "Y"', 'value: "Z"')
    config.write_text(renamed)
    with raw_server(tmp_path) as (_, url), Client(url) as client:
        model = client.model("echo")
        with pytest.raises(RequestRejectedError, match="'Y'"):
            model.infer({"X": np.zeros((1, 4), np.float32)})
    with pytest.raises(ServerStartError, match="'Y'"), EmbeddedServer(tmp_path, verify=False):
        pass
