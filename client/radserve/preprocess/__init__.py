"""From modality values to the wire: the same steps in training, parity checks and serving.

NumPy only. Images: VOI LUT or window to [0, 1], inversion of MONOCHROME1,
resize, rounding to the wire's integers. Waveforms: lead order, resampling,
rounding to the wire's integers.
"""

from radserve.preprocess._image import image_to_wire
from radserve.preprocess._resample import resample
from radserve.preprocess._resize import resize
from radserve.preprocess._scope import check_scope
from radserve.preprocess._waveform import waveform_to_wire
from radserve.preprocess._window import apply_window

__all__ = ["apply_window", "check_scope", "image_to_wire", "resample", "resize", "waveform_to_wire"]
