"""Plain requests to a server, without the SDK."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Tensors = dict[str, NDArray[Any]]


def infer(
    client: triton.InferenceServerClient, model: str, tensors: Tensors, outputs: Sequence[str] | None = None
) -> Tensors:
    inputs = []
    for name, array in tensors.items():
        inputs.append(triton.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype)))
        inputs[-1].set_data_from_numpy(array)
    requested = None if outputs is None else [triton.InferRequestedOutput(name) for name in outputs]
    answer = client.infer(model, inputs, outputs=requested, client_timeout=30)
    values: Tensors = {one.name: answer.as_numpy(one.name) for one in answer.get_response().outputs}
    return values


def infer_together(
    client: triton.InferenceServerClient, model: str, requests: Sequence[Tensors]
) -> list[Tensors | Exception]:
    """Send requests at the same time, so that the server batches them; errors are returned."""

    def one(tensors: Tensors) -> Tensors | Exception:
        try:
            return infer(client, model, tensors)
        except InferenceServerException as error:
            refused: Exception = error
            return refused

    with ThreadPoolExecutor(len(requests)) as threads:
        return list(threads.map(one, requests))


def add_one(url: str, model: str = "add_one") -> list[float]:
    """The answer of ``support.repositories.write_add_one``'s model to zeros."""
    with triton.InferenceServerClient(url) as client:
        answer = infer(client, model, {"X": np.zeros((1, 4), np.float32)})
    return [float(value) for value in answer["Y"][0]]
