"""TensorFlow and Keras, imported without their start-up chatter and without a GPU.

TensorFlow writes to file descriptor 2 while it is imported, before any of its
settings can stop it; what it wrote is shown again if the import fails.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from contextlib import contextmanager
from typing import TYPE_CHECKING

from radserve.errors import MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Iterator

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")


@contextmanager
def _stderr_held_back() -> Iterator[None]:
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except Exception:
            held.seek(0)
            os.write(kept, held.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


try:
    with _stderr_held_back():
        import keras
        import tensorflow as tf
        import tf2onnx
except ImportError as error:
    what = f"reading Keras models ({error.name})"
    raise MissingExtraError("export", what) from error  # noqa: EM101 - the extra's name, not a message

# cuDNN's recurrent operators cannot be converted: the models are traced as a CPU runs them.
tf.config.set_visible_devices([], "GPU")
tf.get_logger().setLevel(logging.ERROR)
# The converter logs what it cannot convert and goes on; the graph checks report it, by layer.
logging.getLogger("tf2onnx").setLevel(logging.CRITICAL)

__all__ = ["keras", "tf", "tf2onnx"]
