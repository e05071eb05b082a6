"""Turns generated ids into text: GENERATED_IDS, right-padded with 0, -> GENERATED_TEXT.

A request that fails, fails alone. No text is logged or repeated in an error.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from tokenizers import Tokenizer


class TritonPythonModel:
    """Triton's python backend calls it."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the tokenizer that lies beside this file."""
        folder = Path(args["model_repository"]) / args["model_version"]
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request on its own."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:  # noqa: ANN401 - Triton's types exist only inside its stub
        try:
            ids = pb_utils.get_input_tensor_by_name(request, "GENERATED_IDS").as_numpy()
            texts = self._tokenizer.decode_batch([row[row != 0].tolist() for row in ids], skip_special_tokens=False)
            encoded = np.array([[text.encode()] for text in texts], np.object_)
        except Exception as error:  # noqa: BLE001 - whatever one request provokes must not reach its neighbours
            message = f"detokenising failed ({type(error).__name__})"
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, pb_utils.TritonError.INTERNAL))
        return pb_utils.InferenceResponse([pb_utils.Tensor("GENERATED_TEXT", encoded)])
