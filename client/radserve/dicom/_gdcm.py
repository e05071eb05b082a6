"""12-bit JPEG Extended through GDCM, which pydicom's plugin for it refuses.

GDCM dies of some damaged frames and writes to the standard error stream of
others: call this in a process that may die, see ``_isolated``.
"""

from __future__ import annotations

from pydicom.uid import JPEGExtended12Bit


def decode_12_bit(frame: bytes, *, rows: int, columns: int) -> bytes:
    """Decode one monochrome frame of JPEG Extended (process 4).

    Args:
        frame: The codestream.
        rows: Its height.
        columns: Its width.

    Returns:
        Native pixel data, 16 bits allocated, little endian.
    """
    import gdcm  # type: ignore[import-untyped]  # noqa: PLC0415 - of the codecs extra

    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(frame)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((columns, rows, 1))
    image.SetDataElement(element)
    photometric = gdcm.PhotometricInterpretation.GetPIType("MONOCHROME2")
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(photometric))
    syntax = gdcm.TransferSyntax.GetTSType(str.__str__(JPEGExtended12Bit))
    image.SetTransferSyntax(gdcm.TransferSyntax(syntax))
    image.SetPixelFormat(gdcm.PixelFormat(1, 16, 12, 11, 0))
    # GDCM's binding hands bytes out as text.
    decoded: bytes = image.GetBuffer().encode("utf-8", "surrogateescape")
    return decoded
