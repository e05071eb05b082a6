"""What a model of ``task: tensors`` answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Tensors(Mapping[str, NDArray[Any]]):
    """Arrays by tensor name, batch axis in front, read-only; and what gave them.

    Attributes:
        model: The model's public name.
        version: The version that answered.
        request_id: The id sent with the request, for the server's log.
        arrays: By tensor name; ``tensors["Y"]`` is the same as ``tensors.arrays["Y"]``.
    """

    model: str
    version: int
    request_id: str
    arrays: Mapping[str, NDArray[Any]]

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.arrays)

    def __len__(self) -> int:
        return len(self.arrays)

    def __repr__(self) -> str:
        told = ", ".join(f"{name} {array.dtype} {array.shape}" for name, array in self.arrays.items())
        return f"<Tensors of {self.model} {self.version}: {told}>"
