"""Results as tables with pictures: for notebooks in HTML, for terminals through ``rich``."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from rich.table import Table

_LARGEST_PICTURE = 256  # rows or columns


@dataclass(frozen=True, kw_only=True)
class View:
    """What is shown of a result, as text and pictures.

    Attributes:
        title: Which result of which model.
        columns: The table's heads.
        rows: Its cells.
        note: What the model may be used for.
        pictures: Caption and ``(rows, columns, 3)`` uint8 of each picture.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str
    pictures: Sequence[tuple[str, NDArray[np.uint8]]] = ()


def as_html(view: View) -> str:
    """A table with the pictures below it; every text is escaped."""
    head = "".join(f"<th>{escape(column)}</th>" for column in view.columns)
    body = "".join(
        "<tr>" + "".join(f'<td style="white-space:pre-wrap">{escape(cell)}</td>' for cell in row) + "</tr>"
        for row in view.rows
    )
    pictures = "".join(
        f'<figure style="display:inline-block"><img alt="{escape(caption)}" src="{_inline(picture)}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
        for caption, picture in view.pictures
    )
    return (
        f"<div><table><caption>{escape(view.title)}</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table>{pictures}<p>AI result, not reviewed. {escape(view.note)}</p></div>"
    )


def as_table(view: View) -> Table:
    """A table of ``rich``; texts are taken as they are, not as its markup."""
    from rich.table import Table  # noqa: PLC0415 - whoever asks has it; base installs need not
    from rich.text import Text  # noqa: PLC0415 - see above

    def shown(text: str) -> Text:  # without what would move a terminal's cursor
        return Text("".join(each if each.isprintable() or each == "\n" else "?" for each in text))

    table = Table(title=shown(view.title), caption=shown(f"AI result, not reviewed. {view.note}".strip()))
    for column in view.columns:
        table.add_column(shown(column))
    for row in view.rows:
        table.add_row(*map(shown, row))
    return table


def _inline(picture: NDArray[np.uint8]) -> str:
    from PIL import Image  # noqa: PLC0415 - slow, and seldom needed

    step = -(-max(picture.shape[:2]) // _LARGEST_PICTURE)
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture[::step, ::step])).save(stream, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"
