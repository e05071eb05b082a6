"""Real inputs of the parity gate: read as the SDK reads them, refused without telling a file's name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from support.exports import MAX_TOKENS, image_spec, text_spec, write_spec

from radserve.contracts import PIXELS, Datatype, TensorSpec
from radserve.errors import SpecError
from radserve_export.graphs import TOKEN_IDS
from radserve_export.real_inputs import real_batches
from radserve_export.spec import load_spec
from radserve_export.synthetic import Split, generate
from radserve_export.tokenizer import read_tokenizer

if TYPE_CHECKING:
    from pathlib import Path

    from radserve_export.parity import Batch

PIXELS_OF = (TensorSpec(name=PIXELS, dtype=Datatype.UINT8, dims=(4, 3, 1)),)
TOKENS_OF = (TensorSpec(name=TOKEN_IDS, dtype=Datatype.INT32, dims=(MAX_TOKENS,)),)
FLOATS_OF = (TensorSpec(name="x", dtype=Datatype.FP32, dims=(-1, 2)),)


def batches_of(folder: Path, spec: dict[str, Any], inputs: tuple[TensorSpec, ...]) -> tuple[Batch, ...]:
    loaded = load_spec(write_spec(folder, spec))
    tokenizer = read_tokenizer(folder / "tokenizer.json") if loaded.tokenizer else None
    return real_batches(loaded, folder, inputs, tokenizer)


def write_images(folder: Path, count: int) -> None:
    folder.mkdir()
    for number, sample in enumerate(generate("chest_xray", count, seed=3, split=Split.TEST)):
        assert isinstance(sample.source, bytes)
        (folder / f"{number}.dcm").write_bytes(sample.source)


def tensors_spec(**changes: Any) -> dict[str, Any]:
    return {"name": "plain", "task": "tensors", "model": "x.keras", "parity": {"data": "real.npz"}, **changes}


def test_without_data_and_generator_there_are_none(tmp_path: Path) -> None:
    assert batches_of(tmp_path, image_spec(), PIXELS_OF) == ()


def test_a_folder_of_files_comes_in_batches_that_the_model_takes(tmp_path: Path) -> None:
    write_images(tmp_path / "real", 3)
    spec = image_spec(parity={"data": "real"}, serving={"max_batch_size": 2})
    found = batches_of(tmp_path, spec, PIXELS_OF)
    assert [batch.feeds[PIXELS].shape for batch in found] == [(2, 4, 3, 1), (1, 4, 3, 1)]
    assert all(batch.feeds[PIXELS].dtype == np.uint8 for batch in found)
    assert found[1].where == "batch of files of parity.data, from number 3 on"


def test_a_specs_generator_is_taken_where_no_data_is_named(tmp_path: Path) -> None:
    spec = image_spec(training={"generator": "chest_xray", "samples": 1, "seed": 1})
    (batch,) = batches_of(tmp_path, spec, PIXELS_OF)
    assert batch.feeds[PIXELS].shape == (16, 4, 3, 1)


def test_texts_are_tokenised(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real/a.txt").write_text("no pneumothorax")
    (batch,) = batches_of(tmp_path, text_spec(parity={"data": "real"}), TOKENS_OF)
    assert batch.feeds[TOKEN_IDS].tolist() == [[2, 3, 0, 0, 0, 0]]


def test_arrays_are_taken_by_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "real.npz", x=np.ones((5, 3, 2), np.float32))
    found = batches_of(tmp_path, tensors_spec(serving={"max_batch_size": 4}), FLOATS_OF)
    assert [len(batch.feeds["x"]) for batch in found] == [4, 1]


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        ({"y": np.ones((1, 3, 2), np.float32)}, "no .npz with the arrays x"),
        ({"x": np.ones((1, 3, 2))}, "x must be float32"),
        ({"x": np.ones((1, 3, 4), np.float32)}, r"x must be float32 \[-1, 2\]"),
        ({"x": np.array([{}])}, "ValueError"),
        ({"x": np.ones((0, 3, 2), np.float32)}, "one at least"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path: Path, arrays: dict[str, Any], told: str) -> None:
    np.savez(tmp_path / "real.npz", **arrays)
    with pytest.raises(SpecError, match=told):
        batches_of(tmp_path, tensors_spec(), FLOATS_OF)


def test_a_bare_array_is_no_npz(tmp_path: Path) -> None:
    np.save(tmp_path / "real.npy", np.ones((1, 3, 2), np.float32))
    with pytest.raises(SpecError, match=r"no \.npz with the arrays x"):
        batches_of(tmp_path, tensors_spec(parity={"data": "real.npy"}), FLOATS_OF)


def test_a_file_that_cannot_be_read_is_told_by_its_number(tmp_path: Path) -> None:
    write_images(tmp_path / "real", 1)
    (tmp_path / "real/DOE^JANE.dcm").write_bytes(b"no DICOM")
    with pytest.raises(SpecError, match=r"file 2 of the folder") as caught:
        batches_of(tmp_path, image_spec(parity={"data": "real"}), PIXELS_OF)
    assert "JANE" not in str(caught.value)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    with pytest.raises(SpecError, match="holds no file"):
        batches_of(tmp_path, image_spec(parity={"data": "real"}), PIXELS_OF)
