"""Answers that differ from one that was checked in nothing but their id and their contents."""

from __future__ import annotations

from typing import TypeAlias

from google.protobuf.message import DecodeError
from tritonclient.grpc import service_pb2

from radserve._codec._field import delimited
from radserve._codec._plain import Plain

Layout: TypeAlias = "list[tuple[str, tuple[int, ...]]]"

_ID = service_pb2.ModelInferResponse.ID_FIELD_NUMBER
_CONTENTS = service_pb2.ModelInferResponse.RAW_OUTPUT_CONTENTS_FIELD_NUMBER
_MOST, _LONGEST = 64, 2**16


class _Alike(Plain, frozen=True, kw_only=True):
    """What answers of one batch size have in common.

    Attributes:
        before: What stands before the id.
        middles: What may stand between the id and the contents, where Triton writes a map, in any order.
        layout: Name and shape of each output.
        heads: What stands before the contents of each.
        sizes: Bytes of the contents of each.
        tail: Bytes of all contents, and of what stands before each.
    """

    before: bytes
    middles: set[bytes]
    layout: Layout
    heads: list[bytes]
    sizes: list[int]
    tail: int


class Seen:
    """The answers of one contract that were checked.

    A message is a row of fields, each after its number and length. One that has, byte for byte, what
    another one has that was taken apart and compared with the contract, but for an id and contents of
    the same lengths, is made of the same fields: it need not be taken apart again. That holds where what
    stands between these two is a message by itself that has neither: of a field that comes twice, a later
    one would count, and what looks like contents could lie within another field.
    """

    __slots__ = ("_alike",)

    def __init__(self) -> None:
        self._alike: dict[tuple[int, int], _Alike] = {}

    def contents(self, message: bytes, batch_size: int, request_id: str) -> tuple[Layout, list[bytes]] | None:
        """The outputs of an answer to this request; None where no answer like it was seen."""
        alike = self._alike.get((batch_size, len(request_id)))
        if alike is None or not message.startswith(alike.before):
            return None
        begin = len(alike.before)
        end, place = begin + len(request_id), len(message) - alike.tail
        if message[begin:end] != request_id.encode() or message[end:place] not in alike.middles:
            return None
        contents = []
        for head, size in zip(alike.heads, alike.sizes, strict=True):
            if not message.startswith(head, place):
                return None
            place += len(head)
            contents.append(message[place : place + size])
            place += size
        return alike.layout, contents

    def remember(self, message: bytes, response: service_pb2.ModelInferResponse, batch_size: int) -> None:
        """Keep what an answer that was checked is like.

        Args:
            message: The answer.
            response: The same, taken apart.
            batch_size: Items in its request.
        """
        contents = list(response.raw_output_contents)
        heads = [delimited(_CONTENTS, len(content)) for content in contents]
        tail = b"".join(piece for pair in zip(heads, contents, strict=True) for piece in pair)
        own = service_pb2.ModelInferResponse(model_name=response.model_name, model_version=response.model_version)
        before = own.SerializeToString() + delimited(_ID, len(response.id))
        end = len(before) + len(response.id)
        if not message.startswith(before + response.id.encode()) or not message.endswith(tail):
            return  # written in another order: taken apart each time
        middle = message[end : len(message) - len(tail)]
        if len(middle) > _LONGEST or not _is_between(middle):
            return
        layout = [(output.name, tuple(output.shape)) for output in response.outputs]
        key = batch_size, len(response.id)
        known = self._alike.get(key)
        if known is not None and known.layout == layout and len(known.middles) < _MOST:
            known.middles.add(middle)
        elif len(self._alike) < _MOST:
            self._alike[key] = _Alike(
                before=before,
                middles={middle},
                layout=layout,
                heads=heads,
                sizes=[len(content) for content in contents],
                tail=len(tail),
            )


def _is_between(middle: bytes) -> bool:
    """Whether this is a message by itself, without what stands before and behind it."""
    try:
        found = service_pb2.ModelInferResponse.FromString(middle)
    except DecodeError:
        return False
    return not (found.model_name or found.model_version or found.id or found.raw_output_contents)
