"""A text model's tokenizer: the file that is served, and the same tokens for the parity gate."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from tokenizers import Tokenizer

from radserve.errors import SpecError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

PADDING_ID = 0


@dataclass(frozen=True, kw_only=True)
class TextTokenizer:
    """A tokenizer.

    Attributes:
        content: ``tokenizer.json`` as it is served: neither truncates nor pads.
        vocabulary: Ids are below it.
    """

    content: bytes
    vocabulary: int

    def id_of(self, token: str) -> int:
        """Id of a token.

        Raises:
            SpecError: The vocabulary has no such token.
        """
        found = Tokenizer.from_str(self.content.decode()).token_to_id(token)
        if found is None:
            msg = f"the tokenizer has no token {token!r}: name one that it was made with"
            raise SpecError(msg)
        return int(found)

    def token_ids(self, texts: Sequence[str], max_tokens: int) -> NDArray[np.int32]:
        """Tokenise as the served step does.

        Args:
            texts: Report texts.
            max_tokens: Where longer ones are cut.

        Returns:
            Ids ``(texts, max_tokens)`` int32, right-padded with 0.
        """
        ids = np.full((len(texts), max_tokens), PADDING_ID, np.int32)
        for row, encoding in enumerate(Tokenizer.from_str(self.content.decode()).encode_batch(list(texts))):
            kept = encoding.ids[:max_tokens]
            ids[row, : len(kept)] = kept
        return ids

    def texts(self, ids: NDArray[np.int32]) -> list[str]:
        """Detokenise as the served step does.

        Args:
            ids: Ids ``(texts, tokens)``, right-padded with 0.
        """
        tokenizer = Tokenizer.from_str(self.content.decode())
        found: list[str] = tokenizer.decode_batch(
            [row[row != PADDING_ID].tolist() for row in ids], skip_special_tokens=False
        )
        return found


def read_tokenizer(path: Path) -> TextTokenizer:
    """Read a ``tokenizer.json``, and switch off its truncation and padding.

    Args:
        path: A file of the ``tokenizers`` library.

    Raises:
        SpecError: It cannot be read, or the id 0, which pads, is a real token's.
    """
    try:
        return parse_tokenizer(path.read_bytes(), str(path))
    except OSError as error:
        msg = f"cannot read the tokenizer {path}: {error.strerror}"
        raise SpecError(msg) from error


def parse_tokenizer(given: bytes, name: str) -> TextTokenizer:
    """As ``read_tokenizer``, of a file's content.

    Args:
        given: The content.
        name: What to call it in messages.

    Raises:
        SpecError: As ``read_tokenizer``.
    """
    try:
        described = json.loads(given)
        described["truncation"] = described["padding"] = None
        content = json.dumps(described, ensure_ascii=False, indent=1).encode() + b"\n"
        tokenizer = Tokenizer.from_str(content.decode())
    # The library raises bare Exception on a file that is none of its own.
    except Exception as error:
        msg = f"{name} is not a tokenizer.json of the tokenizers library: {error}"
        raise SpecError(msg) from error
    padding = tokenizer.id_to_token(PADDING_ID) or ""
    if "pad" not in padding.lower():
        msg = f"{name}: token {PADDING_ID} must be the padding token (such as [PAD]), and is {padding!r}"
        raise SpecError(msg)
    return TextTokenizer(content=content, vocabulary=max(tokenizer.get_vocab().values()) + 1)
