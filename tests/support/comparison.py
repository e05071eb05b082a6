"""A converted network against Keras, on batches whose rows differ."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from radserve_export.graphs.checked import Chain, all_nodes, signature
from radserve_export.network import Conversion, Form

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from radserve_export.network import Network

BOUND = 1e-5  # of the largest absolute value that the model gives
NAMED = Conversion(form=Form.NAMED)


def operators(network: Network) -> Counter[str]:
    return Counter(node.op_type for node in all_nodes(network.graph.graph.node))


def random_feeds(network: Network, rows: int, free: int = 5) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(0)
    feeds = {}
    for tensor in signature(network.graph)[0]:
        shape = (rows, *(free if dim < 0 else dim for dim in tensor.dims))
        if tensor.dtype.numpy.kind in "iu":
            feeds[tensor.name] = rng.integers(0, 9, shape).astype(tensor.dtype.numpy)
        else:
            feeds[tensor.name] = rng.normal(size=shape).astype(tensor.dtype.numpy)
    return feeds


def assert_equal(network: Network, *, rows: tuple[int, ...] = (1, 3), bound: float = BOUND) -> None:
    """ONNX Runtime against Keras, on batches whose rows differ."""
    chain = Chain([network.graph])
    for count in rows:
        feeds = random_feeds(network, count)
        got, want = chain(feeds), network.reference(feeds)
        assert set(got) == set(want)
        for name, value in want.items():
            assert got[name].shape == value.shape
            largest = np.abs(value).max()
            assert np.isfinite(largest)
            assert largest > 1e-3, "an output of zeros shows nothing"
            assert count == 1 or np.ptp(value, axis=0).max() > 1e-3 * largest, "rows must differ"
            assert np.abs(got[name] - value).max() <= bound * largest, name
