"""The curves: small SVG files, the same for the same figures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FOLDER = Path(__file__).with_name("growth")
LINEAR = "linear"
"""A series of this name is a reference, not a measurement."""
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.5,
    "legend.frameon": False,
}
_COLOURS, _MARKERS = ("#0b5394", "#b45f06", "#38761d", "#741b47"), ("o", "s", "^", "D")
_DENSE = 100.0  # of the ends of an axis; above, powers of ten are numbers enough
_METADATA = {"Creator": None, "Date": None, "Format": None, "Type": None}


def draw(name: str, x_label: str, x: Sequence[float], panels: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """Draw panels side by side, all axes logarithmic.

    Args:
        name: Of the file.
        x_label: What grows.
        x: Its values.
        panels: By the label of the vertical axis, the values of each series.

    Returns:
        The picture as Markdown, for results.md.
    """
    FOLDER.mkdir(exist_ok=True)
    with mpl.rc_context(_STYLE | {"svg.hashsalt": name}):
        figure = Figure(figsize=(4.2 * len(panels), 3.0), layout="constrained", facecolor="white")
        for axes, (y_label, series) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
            drawn = 0
            for label, values in series.items():
                if label == LINEAR:
                    axes.plot(x, values, color="#888888", linestyle=":", label=label, linewidth=1)
                else:
                    style = {"color": _COLOURS[drawn], "marker": _MARKERS[drawn], "linewidth": 1.5, "markersize": 4}
                    axes.plot(x, values, label=label, **style)
                    drawn += 1
            axes.set(xscale="log", yscale="log", xlabel=x_label, ylabel=y_label)
            axes.set_xticks(x, [f"{value:g}" for value in x])
            axes.xaxis.set_minor_locator(NullLocator())
            low, high = axes.get_ylim()
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < _DENSE * low else (1,)))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
            axes.yaxis.set_minor_formatter(NullFormatter())
            axes.legend()
        path = FOLDER / f"{name}.svg"
        FigureCanvasSVG(figure).print_svg(path, metadata=_METADATA)  # type: ignore[no-untyped-call]
    return f"![{x_label}](growth/{path.name})"


def linear(x: Sequence[float], values: Sequence[float], *, at: int = 0, power: float = 1.0) -> list[float]:
    """What the values would be if they went with a power of x from one of them on."""
    return [values[at] * (one / x[at]) ** power for one in x]
