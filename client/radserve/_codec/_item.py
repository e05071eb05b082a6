"""An inference that waits for others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from radserve._codec._wire import nbytes, packed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from radserve._codec._call import CallOptions
    from radserve._codec._wire import Packed
    from radserve.contracts import Contract

Key: TypeAlias = tuple[Any, ...]


class Item:
    """An inference that may go into a request together with others.

    Attributes:
        contract: By which it was prepared.
        call: The options of its call.
        avoid: Servers not to be asked.
        key: What items of one request have in common.
        rows: Its place on the batch axis is so long.
        size: Bytes on the wire.
        contents: Of each input tensor.
        is_shared: Whether it was sent together with others.
        since: When it began to wait.
        span: Under which span.
        waiter: Whatever the shell knows it by.
    """

    __slots__ = ("avoid", "call", "contents", "contract", "is_shared", "key", "rows", "since", "size", "span", "waiter")

    def __init__(
        self, contract: Contract, arrays: Mapping[str, NDArray[Any]], call: CallOptions, avoid: frozenset[str]
    ) -> None:
        given = [arrays[tensor.name] for tensor in contract.inputs]
        self.contract = contract
        self.call = call
        self.avoid = avoid
        self.rows = len(given[0])
        self.contents: list[Packed] = [packed(array) for array in given]
        self.size = sum(map(nbytes, self.contents))
        self.key: Key = (contract.sha256, call.priority, avoid, *(array.shape[1:] for array in given))
        self.is_shared = False
        self.since = 0.0
        self.span: Any = None
        self.waiter: Any = None
