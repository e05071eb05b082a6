from __future__ import annotations

import importlib
import json
import sys
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from support.exports import MAX_TOKENS, WORDS, write_tokenizer

from radserve.errors import SpecError
from radserve_export.tokenizer import read_tokenizer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

LONG = "no pneumothorax no effusion no effusion large large"


def test_truncation_and_padding_are_switched_off_in_the_file(tmp_path: Path) -> None:
    write_tokenizer(tmp_path / "t.json")
    tokenizer = read_tokenizer(tmp_path / "t.json")
    served = json.loads(tokenizer.content)
    assert served["truncation"] is None
    assert served["padding"] is None
    assert tokenizer.vocabulary == len(WORDS)
    np.testing.assert_array_equal(
        tokenizer.token_ids(["no effusion", LONG, ""], 4), [[2, 5, 0, 0], [2, 3, 2, 5], [0, 0, 0, 0]]
    )


@pytest.mark.parametrize("content", ["", "{", '{"version": "1.0"}', "[]", "\udcff"])
def test_what_is_no_tokenizer_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "t.json"
    path.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(SpecError, match=r"t\.json is not a tokenizer\.json"):
        read_tokenizer(path)


def test_a_missing_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"absent\.json: No such file"):
        read_tokenizer(tmp_path / "absent.json")


def test_token_0_must_be_padding(tmp_path: Path) -> None:
    write_tokenizer(tmp_path / "t.json", ("no", "[UNK]"))
    with pytest.raises(SpecError, match="token 0 must be the padding token"):
        read_tokenizer(tmp_path / "t.json")


class _TritonError:
    INVALID_ARG, INTERNAL = 3, 2

    def __init__(self, message: str, code: int) -> None:
        self.message, self.code = message, code


@pytest.fixture
def step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[list[Any]], list[Any]]]:
    """The served step, with a stand-in for what exists only inside Triton's stub."""
    utils = ModuleType("triton_python_backend_utils")
    vars(utils).update(
        get_input_tensor_by_name=lambda request, name: SimpleNamespace(as_numpy=lambda: request[name]),
        Tensor=lambda name, array: (name, array),
        InferenceResponse=lambda tensors=(), error=None: SimpleNamespace(tensors=dict(tensors), error=error),
        TritonError=_TritonError,
    )
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", utils)
    write_tokenizer(tmp_path / "t.json")
    (tmp_path / "1").mkdir()
    (tmp_path / "1/tokenizer.json").write_bytes(read_tokenizer(tmp_path / "t.json").content)
    module = importlib.import_module("radserve_export.steps.tokenize.model")
    model = module.TritonPythonModel()
    config = {"parameters": {"max_tokens": {"string_value": str(MAX_TOKENS)}}}
    model.initialize({"model_config": json.dumps(config), "model_repository": str(tmp_path), "model_version": "1"})
    yield lambda requests: model.execute([{"TEXT": np.array(request, object)} for request in requests])
    del sys.modules["radserve_export.steps.tokenize.model"]


def test_each_text_gets_its_ids_and_its_true_count(step: Callable[[list[Any]], list[Any]]) -> None:
    (answer,) = step([[[b"no effusion"], [LONG.encode()], [b""]]])
    ids, counts = answer.tensors["TOKEN_IDS"], answer.tensors["TOKEN_COUNT"]
    assert ids.dtype == counts.dtype == np.int32
    np.testing.assert_array_equal(ids, [[2, 5, 0, 0, 0, 0], [2, 3, 2, 5, 2, 5], [0] * MAX_TOKENS])
    np.testing.assert_array_equal(counts, [[2], [8], [0]])


def test_a_request_that_fails_fails_alone_and_repeats_no_text(step: Callable[[list[Any]], list[Any]]) -> None:
    good, bad, strange, after = step([[[b"large"]], [[b"secret \xff"]], [[None]], [[b"no"]]])
    assert good.error is None
    assert after.tensors["TOKEN_COUNT"].tolist() == [[1]]
    assert (bad.error.message, bad.error.code) == ("TEXT is not valid UTF-8", _TritonError.INVALID_ARG)
    assert (strange.error.message, strange.error.code) == ("tokenising failed (TypeError)", _TritonError.INTERNAL)


def test_an_unknown_word_stays_visible_in_a_generated_text(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    write_tokenizer(path)
    described = json.loads(path.read_text())
    described["added_tokens"] = [
        {"id": number, "content": WORDS[number], "special": True, "single_word": False, "lstrip": False}
        | {"rstrip": False, "normalized": False}
        for number in (0, 1)
    ]
    path.write_text(json.dumps(described))
    assert read_tokenizer(path).texts(np.array([[2, 1, 3, 0]], np.int32)) == ["no [UNK] pneumothorax"]
