"""What the supervisor asks of a running Triton, over gRPC."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from radserve.contracts import Datatype
from radserve.errors import (
    DeadlineExceededError,
    InferenceFailedError,
    ModelNotFoundError,
    ServerError,
    ServerUnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from radserve.contracts import Contract

_DIRECTLY = (
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
)
_ERRORS: dict[str, type[ServerError]] = {
    "DEADLINE_EXCEEDED": DeadlineExceededError,
    "UNAVAILABLE": ServerUnavailableError,
    "NOT_FOUND": ModelNotFoundError,
}


class Control:
    """Triton's model repository and statistics services.

    Args:
        url: ``host:port`` of the server's gRPC service.
        timeout_s: Deadline of each call.
    """

    def __init__(self, url: str, *, timeout_s: float) -> None:
        self._url = url
        self._timeout_s = timeout_s

    @contextmanager
    def _client(self) -> Iterator[Any]:
        # Slow to import. A fresh channel each time: an old one backs off after a restart.
        import tritonclient.grpc as triton  # noqa: PLC0415
        from tritonclient.utils import InferenceServerException  # noqa: PLC0415

        try:
            with triton.InferenceServerClient(self._url, channel_args=_DIRECTLY) as client:
                yield client
        except InferenceServerException as error:
            code = str(error.status()).rpartition(".")[2]
            raise _ERRORS.get(code, InferenceFailedError)(str(error.message()), code=code) from error

    def words_on_zeros(self, contract: Contract) -> str:
        """What the server says when a model fails on zeros; empty if it does not fail."""
        import numpy as np  # noqa: PLC0415 - slow to import
        import tritonclient.grpc as triton  # noqa: PLC0415 - likewise

        inputs = []
        for tensor in contract.inputs:
            shape = [1] * (contract.max_batch_size > 0) + [max(dim, 1) for dim in tensor.dims]
            zeros = np.zeros(shape, tensor.dtype.numpy)
            if tensor.dtype is Datatype.BYTES:
                zeros[...] = b""
            inputs.append(triton.InferInput(tensor.name, shape, tensor.dtype.value))
            inputs[-1].set_data_from_numpy(zeros)
        try:
            with self._client() as client:
                client.infer(contract.name, inputs, client_timeout=self._timeout_s)
        except ServerError as error:
            return str(error)
        return ""

    def steps(self, model: str) -> list[str]:
        """An ensemble's steps; the model itself, if it is none."""
        with self._client() as client:
            config = client.get_model_config(model, client_timeout=self._timeout_s).config
        return [step.model_name for step in config.ensemble_scheduling.step] or [model]

    def executions(self, model: str) -> int:
        """How many requests a model has finished, well or not."""
        with self._client() as client:
            answer = client.get_inference_statistics(model, client_timeout=self._timeout_s)
        return sum(one.inference_stats.success.count + one.inference_stats.fail.count for one in answer.model_stats)

    def unload(self, model: str) -> None:
        """Unload a model, which from now on is not found, and ensembles that use it; what it has in hand goes on."""
        with self._client() as client:
            client.unload_model(model, client_timeout=self._timeout_s)

    def load(self, model: str, *, timeout_s: float) -> None:
        """Load a model, and ensembles that use it; does nothing while it is loaded from the same files.

        Args:
            model: The model.
            timeout_s: Deadline of the loading.
        """
        with self._client() as client:
            client.load_model(model, client_timeout=timeout_s)
