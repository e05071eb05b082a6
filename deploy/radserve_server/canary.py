"""Ask a server whether its public models really answer."""

from __future__ import annotations

from radserve_server.control import Control
from radserve_server.guarded import one_line


def public_models(url: str, *, timeout_s: float) -> list[str]:
    """Names of the ready models that carry a contract.

    Args:
        url: ``host:port`` of the server's gRPC service.
        timeout_s: Time budget.

    Raises:
        ServerError: The server does not answer.
        ContractError: A contract cannot be read.
    """
    from radserve import Client  # noqa: PLC0415 - gRPC is slow to import

    with Client(url, insecure=True) as client:  # no patient's data is sent
        return [model.name for model in client.models(timeout_s=timeout_s)]


def check(url: str, model: str, *, timeout_s: float) -> None:
    """Make one real inference with a model.

    Args:
        url: ``host:port`` of the server's gRPC service.
        model: The public model's name.
        timeout_s: Time budget.

    Raises:
        ServerError: It did not answer as its contract says.
        ContractError: Its contract cannot be read.
    """
    from radserve import Client, InferenceFailedError  # noqa: PLC0415 - gRPC is slow to import

    with Client(url, insecure=True) as client:
        try:
            client.health(model, timeout_s=timeout_s)
        except InferenceFailedError as error:
            # The SDK never repeats a model's words, which could quote a patient; of zeros they may be told.
            words = Control(url, timeout_s=timeout_s).words_on_zeros(client.model(model).contract)
            if not words:
                raise
            raise InferenceFailedError(one_line(words), model=model, code=error.code) from error
