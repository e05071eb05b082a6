"""What a client and its models share: the connection, the default time budget, the calls."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

from radserve import _codec
from radserve._codec import Deadline
from radserve._transport import Transport
from radserve.errors import ClientClosedError, ContractError, InputError, ModelNotFoundError, ServerUnavailableError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from radserve.contracts import Contract
    from radserve.errors import ServerError
    from radserve.options import TLS, Priority


class Session:
    """A transport and how long its calls may take. Made by ``Client``; thread-safe.

    Attributes:
        url: ``host:port`` of the server.
        transport: The connection.
    """

    def __init__(self, url: str, *, tls: TLS | None, insecure: bool, timeout_s: float) -> None:
        self._timeout_s = Deadline(timeout_s).timeout_s
        self.transport = Transport(url, tls=tls, insecure=insecure)
        self.url = url

    def deadline(self, timeout_s: float | None) -> Deadline:
        if self.transport.is_closed:
            msg = "the client was closed: make a new Client"
            raise ClientClosedError(msg)
        return Deadline(self._timeout_s if timeout_s is None else timeout_s)

    def read_contract(self, name: str, deadline: Deadline) -> Contract:
        if not isinstance(name, str) or not name:
            msg = "name the model as the server knows it, for example client.model('chest_xray')"
            raise InputError(msg)
        try:
            config = self.transport.model_config(name, timeout_s=deadline.remaining_s(name))
        except ModelNotFoundError as error:
            raise self.gone(error, deadline) from None
        contract = _codec.read_contract(config)
        if contract is None:
            msg = f"model {name} has no radserve contract: name a public model, see 'radserve models'"
            raise ContractError(msg)
        return contract

    def gone(self, missing: ModelNotFoundError, deadline: Deadline) -> ServerError:
        """Tell a model that is not served from a server that is shutting down and denies all of them."""
        if self.transport.is_ready(timeout_s=deadline.remaining_s(missing.model)):
            return missing
        msg = f"model {missing.model} is being loaded, or the server is shutting down: try again later or elsewhere"
        return ServerUnavailableError(msg, model=missing.model, version=missing.version, code=missing.code)

    def infer(
        self,
        contract: Contract,
        arrays: Mapping[str, NDArray[Any]],
        priority: Priority | None,
        deadline: Deadline,
    ) -> _codec.Answer:
        remaining_s = deadline.remaining_s(contract.name)
        request = _codec.to_request(
            contract, arrays, request_id=uuid.uuid4().hex, priority=priority, queue_timeout_s=remaining_s
        )
        response = self.transport.infer(request, timeout_s=remaining_s)
        batch_size = len(next(iter(arrays.values())))
        return _codec.to_answer(contract, response, batch_size=batch_size, request_id=request.id)
