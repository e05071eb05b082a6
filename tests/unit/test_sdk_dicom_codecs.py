"""Which decoder reads which transfer syntax, and what is told where there is none."""

from __future__ import annotations

import re
from importlib.metadata import metadata, requires

import numpy as np
import pytest
from packaging.requirements import Requirement
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import MPEG2MPML, JPEGLossless, JPEGLosslessSV1, JPEGLSTransferSyntaxes
from support.datasets import TEST_FILES, make

from radserve.dicom import read_image
from radserve.dicom._codestream import JPEG_2000
from radserve.errors import UnsupportedTransferSyntaxError, installing


@pytest.mark.parametrize(
    "name",
    [
        "MR_small_RLE.dcm",
        "MR_small_bigendian.dcm",
        "MR_small_expb.dcm",
        "MR_small_implicit.dcm",
        "MR_small_jp2klossless.dcm",
        "MR_small_jpeg_ls_lossless.dcm",
        "MR_small_padded.dcm",
    ],
)
def test_the_same_image_in_other_transfer_syntaxes_has_the_same_values(name: str) -> None:
    np.testing.assert_array_equal(read_image(TEST_FILES / name).values, read_image(TEST_FILES / "MR_small.dcm").values)


def test_a_transfer_syntax_without_decoder_is_told() -> None:
    dataset = make()
    dataset.file_meta.TransferSyntaxUID = MPEG2MPML
    with pytest.raises(UnsupportedTransferSyntaxError, match="MPEG2"):
        read_image(dataset)


@pytest.mark.parametrize(
    "name",
    [
        "MR_small_jpeg_ls_lossless.dcm",
        "GDCMJ2K_TextGBR.dcm",
        "examples_jpeg2k.dcm",
        "JPGExtended.dcm",
        "SC_rgb_jpeg_gdcm.dcm",
    ],
)
def test_a_missing_decoder_names_the_extra_to_install(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Without the extra, Pillow is there: it must not be tried, for it cannot decode all of them.
    for syntax in (*JPEG_2000, *JPEGLSTransferSyntaxes, JPEGLosslessSV1, JPEGLossless):
        decoder = get_decoder(syntax)
        pillow = {plugin: function for plugin, function in decoder._available.items() if plugin == "pillow"}
        monkeypatch.setattr(decoder, "_available", pillow)
    with pytest.raises(UnsupportedTransferSyntaxError, match=re.escape(installing("codecs"))):
        read_image(TEST_FILES / name)


def test_nothing_of_the_codecs_extra_is_under_the_gpl() -> None:
    needed = {Requirement(line) for line in requires("radserve") or () if "codecs" in line}
    left, seen = {requirement.name for requirement in needed if "extra" in str(requirement.marker)}, set[str]()
    assert left >= {"python-gdcm", "pylibjpeg-openjpeg", "pyjpegls"}
    while left:
        name = left.pop()
        seen.add(name)
        package = metadata(name)
        terms = [
            term for field in ("License", "License-Expression", "Classifier") for term in package.get_all(field, [])
        ]
        licences = " ".join(term for term in terms if "::" not in term or term.startswith("License"))
        assert re.search("MIT|BSD|Apache", licences), name
        assert not re.search("GPL|GNU", licences.partition("\n")[0]), name
        further = [Requirement(line) for line in requires(name) or ()]
        left |= {each.name for each in further if not each.marker or each.marker.evaluate({"extra": ""})} - seen
    assert "pylibjpeg-libjpeg" not in seen
