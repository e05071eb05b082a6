"""Tokenises report text: TEXT -> TOKEN_IDS, right-padded with 0, and TOKEN_COUNT.

A longer text fills TOKEN_IDS; TOKEN_COUNT always holds the true count, so that
the caller can tell. A request that fails, fails alone. No text is logged or
repeated in an error.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from tokenizers import Tokenizer


class TritonPythonModel:
    """Triton's python backend calls it."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the tokenizer that lies beside this file."""
        config = json.loads(args["model_config"])
        self._max_tokens = int(config["parameters"]["max_tokens"]["string_value"])
        folder = Path(args["model_repository"]) / args["model_version"]
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request on its own."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:  # noqa: ANN401 - Triton's types exist only inside its stub
        try:
            texts = pb_utils.get_input_tensor_by_name(request, "TEXT").as_numpy()
            ids, counts = self._tokenize([bytes(text).decode("utf-8") for text in texts.reshape(-1)])
        except UnicodeDecodeError:
            return _failed("TEXT is not valid UTF-8", pb_utils.TritonError.INVALID_ARG)
        except Exception as error:  # noqa: BLE001 - whatever one text provokes must not reach its neighbours
            return _failed(f"tokenising failed ({type(error).__name__})", pb_utils.TritonError.INTERNAL)
        return pb_utils.InferenceResponse([pb_utils.Tensor("TOKEN_IDS", ids), pb_utils.Tensor("TOKEN_COUNT", counts)])

    def _tokenize(self, texts: list[str]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        ids = np.zeros((len(texts), self._max_tokens), np.int32)
        counts = np.zeros((len(texts), 1), np.int32)
        for row, encoding in enumerate(self._tokenizer.encode_batch(texts)):
            kept = encoding.ids[: self._max_tokens]
            ids[row, : len(kept)] = kept
            counts[row, 0] = len(encoding.ids)
        return ids, counts


def _failed(message: str, code: int) -> Any:  # noqa: ANN401 - as above
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, code))
