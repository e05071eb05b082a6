"""Pictures as SVG inside a page: no colours, fonts or addresses of their own."""

from __future__ import annotations

import io
import re
import warnings
from contextlib import contextmanager
from html import escape
from typing import TYPE_CHECKING, Any

from radserve.errors import MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Stand-ins, which the page's style gives a colour: one for light, one for dark, one for print.
INK, FAINT, SHADE = "#010101", "#020202", "#030303"
SERIES = ("#040404", "#050505", "#060606", "#070707", "#080808")
_VARIABLES = {
    INK: "var(--ink)",
    FAINT: "var(--faint)",
    SHADE: "var(--shade)",
    **{colour: f"var(--series-{number})" for number, colour in enumerate(SERIES, 1)},
}
_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",  # text stays text: sharp, searchable, in the page's font
    "text.parse_math": False,  # names are names, whatever signs they hold
    "font.size": 10,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.edgecolor": FAINT,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.formatter.useoffset": False,
    "grid.color": FAINT,
    "grid.linewidth": 0.5,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.handlelength": 2.2,
    "lines.linewidth": 1.8,
    "lines.markersize": 4,
}
_METADATA = {"Creator": None, "Date": None, "Format": None, "Type": None}


class Picture:
    """One picture being drawn; ``svg`` is it once the context is left.

    Attributes:
        figure: To draw in.
        svg: An ``svg`` element, with its title and description for those who do not see it.
    """

    def __init__(self, figure: Figure) -> None:
        self.figure = figure
        self.svg = ""

    def axes(self, rows: int = 1, *, heights: tuple[float, ...] = (1,)) -> list[Axes]:
        """Axes below each other, which share the horizontal one."""
        made = self.figure.subplots(rows, 1, sharex=True, squeeze=False, height_ratios=heights)
        return [row[0] for row in made]


def require_matplotlib() -> ModuleType:
    """Matplotlib, which the pictures need.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        import matplotlib as mpl  # noqa: PLC0415 - of an extra
    except ImportError:
        extra = "loadtest"
        raise MissingExtraError(extra, "the report's pictures") from None
    return mpl


@contextmanager
def picture(key: str, title: str, description: str, *, height: float = 3.0) -> Iterator[Picture]:
    """Draw a picture in this context.

    Args:
        key: Unlike that of any other picture of the page.
        title: What it shows, in a few words.
        description: What is to be seen in it, for those who do not see it.
        height: In inches, of 6.4 inches of width.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    mpl = require_matplotlib()
    from matplotlib.backends.backend_svg import FigureCanvasSVG  # noqa: PLC0415 - of an extra
    from matplotlib.figure import Figure  # noqa: PLC0415 - of an extra

    with mpl.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the browser has it
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE | {"svg.hashsalt": key})
        made = Picture(Figure(figsize=(6.4, height), layout="constrained"))
        yield made
        FigureCanvasSVG(made.figure).print_svg(text := io.StringIO(), metadata=_METADATA)  # type: ignore[no-untyped-call]
    made.svg = _in_a_page(text.getvalue(), key, title, description)


def _in_a_page(svg: str, key: str, title: str, description: str) -> str:
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{key}-", svg)
    svg = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", svg)
    head, body = svg.split(">", 1)
    box = re.search(r'viewBox="[^"]*"', head)
    for colour, variable in _VARIABLES.items():
        body = body.replace(colour, variable)
    return (
        f'<svg {box[0] if box else ""} role="img" aria-labelledby="{key}-title {key}-description">'
        f'<title id="{key}-title">{escape(title)}</title>'
        f'<desc id="{key}-description">{escape(description)}</desc>{body}'
    )
