"""Ask a running server whether its public models really answer."""

from __future__ import annotations

from radserve.contracts import CONTRACT_PARAMETER, Datatype, parse_contract
from radserve.errors import ModelNotFoundError
from radserve_server.control import Control


def public_models(url: str, *, timeout_s: float) -> list[str]:
    """Names of the ready models that carry a contract.

    Args:
        url: ``host:port`` of the server's gRPC service.
        timeout_s: Deadline of each call.

    Raises:
        ServerError: The server does not answer.
    """
    control = Control(url, timeout_s=timeout_s)
    return [model for model in control.ready_models() if control.parameter(model, CONTRACT_PARAMETER)]


def check(url: str, model: str, *, timeout_s: float) -> None:
    """Make one real inference with a model.

    Args:
        url: ``host:port`` of the server's gRPC service.
        model: The public model's name.
        timeout_s: Deadline.

    Raises:
        ServerError: It did not answer.
        ContractError: Its contract cannot be read.
    """
    import numpy as np  # noqa: PLC0415 - slow, and not needed to show help
    import tritonclient.grpc as triton  # noqa: PLC0415 - likewise

    control = Control(url, timeout_s=timeout_s)
    text = control.parameter(model, CONTRACT_PARAMETER)
    if text is None:
        msg = f"model {model} carries no contract"
        raise ModelNotFoundError(msg, model=model)
    contract = parse_contract(text)
    inputs = []
    for tensor in contract.inputs:
        shape = [1] * (contract.max_batch_size > 0) + [max(dim, 1) for dim in tensor.dims]
        array = np.zeros(shape, tensor.dtype.numpy)
        if tensor.dtype is Datatype.BYTES:
            array[...] = b""
        inputs.append(triton.InferInput(tensor.name, shape, tensor.dtype.value))
        inputs[-1].set_data_from_numpy(array)
    with control._client() as client:  # noqa: SLF001 - until the SDK's client is here
        client.infer(model, inputs, client_timeout=timeout_s)
