"""Parts of an HTML page that needs nothing else: no script, no font, no address. All text is escaped."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from radserve.loadtest._words import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from radserve.loadtest._figures import Estimate

NONE = "\N{EN DASH}"
MS = 1e3
_WHOLE = 1000  # from here on nobody reads the digits behind the point

_LIGHT = """
--page: #fff; --ink: #1b1f24; --quiet: #57606a; --faint: #c3c9d0; --shade: #edf0f3; --good: #1a6b32; --fair: #8a5300;
--bad: #a3131c;
--series-1: #2166ac; --series-2: #c9570c; --series-3: #2c7d46; --series-4: #80489c; --series-5: #8b949e;
"""
_DARK = """
--page: #14171b; --ink: #e4e8ec; --quiet: #a2abb5; --faint: #444b54; --shade: #23282e; --good: #75cf8d; --fair: #e3b05c;
--bad: #ff8f8a;
--series-1: #6aaef2; --series-2: #f09a57; --series-3: #6cc287; --series-4: #cb9ae0; --series-5: #79828c;
"""
_STYLE = f"""
:root {{ color-scheme: light dark; {_LIGHT} }}
@media (prefers-color-scheme: dark) {{ :root {{ {_DARK} }} }}
@media print {{ :root {{ color-scheme: light; {_LIGHT} }} }}
* {{ box-sizing: border-box; }}
body {{ background: var(--page); color: var(--ink); font: 15px/1.5 system-ui, sans-serif;
  max-width: 74rem; margin: 0 auto; padding: 1.5rem; }}
h1 {{ font-size: 1.6rem; margin: 0 0 .8rem; overflow-wrap: anywhere; }}
h2 {{ font-size: 1.25rem; margin: 2.4rem 0 .4rem; border-top: 1px solid var(--faint); padding-top: 1.2rem; }}
h3 {{ font-size: 1rem; margin: 1.6rem 0 .3rem; overflow-wrap: anywhere; }}
p, ul {{ margin: .4rem 0; max-width: 60rem; overflow-wrap: anywhere; }}
dl {{ display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1.2rem; margin: 0; }}
dt {{ color: var(--quiet); }}
dd {{ margin: 0; overflow-wrap: anywhere; }}
.verdict {{ font-weight: 600; }} .good {{ color: var(--good); }} .fair {{ color: var(--fair); }}
.bad {{ color: var(--bad); }}
.quiet {{ color: var(--quiet); font-size: .85em; }}
.beside {{ display: grid; grid-template-columns: minmax(0, 3fr) minmax(0, 2fr); gap: 1.5rem; align-items: start; }}
figure {{ margin: 0; max-width: 46rem; }}
svg {{ display: block; width: 100%; height: auto; }}
svg text {{ font-family: system-ui, sans-serif; }}
.scroll {{ overflow: auto; max-height: 26rem; }}
table {{ border-collapse: collapse; width: 100%; font-size: .87rem; font-variant-numeric: tabular-nums; }}
caption {{ text-align: left; color: var(--quiet); padding: .2rem 0; }}
th, td {{ padding: .22rem .55rem; text-align: right; border-bottom: 1px solid var(--faint); vertical-align: top; }}
th {{ font-weight: 600; vertical-align: bottom; }}
th:first-child, td:first-child, .left {{ text-align: left; overflow-wrap: break-word; }}
td:nth-child(2).left {{ white-space: nowrap; }}
td .quiet {{ display: block; white-space: nowrap; }}
footer {{ margin-top: 2.4rem; border-top: 1px solid var(--faint); padding-top: .8rem; }}
@media (max-width: 52rem) {{ .beside {{ grid-template-columns: minmax(0, 1fr); }} body {{ padding: .8rem; }} }}
@media print {{ body {{ padding: 0; max-width: none; font-size: 9.5pt; }}
  .scroll {{ max-height: none; overflow: visible; }}
  figure, h2, h3, tr {{ break-inside: avoid; }} h2, h3 {{ break-after: avoid; }} th, td {{ padding: .15rem .3rem; }} }}
"""


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def html(text: str) -> Html:
    """Text as HTML, escaped unless it is HTML already."""
    return text if isinstance(text, Html) else Html(escape(printable(text)))


def element(name: str, *contents: str, of: str = "") -> Html:
    """An element of a class."""
    attribute = f' class="{of}"' if of else ""
    return Html(f"<{name}{attribute}>{''.join(html(content) for content in contents)}</{name}>")


def number(value: float | None, scale: float = 1.0, form: str = ".4g") -> Html:
    """A number: as the report has it for programs, for readers scaled, and rounded unless it counts something."""
    if value is None:
        return html(NONE)
    if isinstance(value, int):
        shown = f"{value:,d}"
    else:
        scaled = value * scale
        shown = f"{scaled:,.0f}" if abs(scaled) >= _WHOLE else f"{scaled:{form}}"
    return Html(f'<data value="{value!r}">{shown}</data>')


def interval(estimate: Estimate | None, scale: float = 1.0) -> Html:
    """A figure, and below it its interval."""
    if estimate is None:
        return html(NONE)
    ends = f"{number(estimate.low, scale)} to {number(estimate.high, scale)}"
    has_one = estimate.low is not None or estimate.high is not None
    return Html(number(estimate.value, scale) + (element("span", Html(ends), of="quiet") if has_one else ""))


def table(caption: str, heads: Sequence[str], rows: Iterable[Sequence[str]], *, left: Sequence[int] = ()) -> Html:
    """A table that scrolls where it is large.

    Args:
        caption: What it tells.
        heads: Of the columns, with their units.
        rows: Cells.
        left: Columns of text beside the first one.
    """

    def line(cells: Sequence[str], name: str) -> Html:
        scope = ' scope="col"' if name == "th" else ""
        kinds = (' class="left"' if place in left else "" for place in range(len(cells)))
        made = (f"<{name}{scope}{kind}>{html(cell)}</{name}>" for kind, cell in zip(kinds, cells, strict=True))
        return Html(f"<tr>{''.join(made)}</tr>")

    body = Html("".join(line(row, "td") for row in rows))
    inner = element("caption", caption) + element("thead", line(heads, "th")) + element("tbody", body)
    return Html(f'<div class="scroll" tabindex="0">{element("table", Html(inner))}</div>')


def beside(picture: str, *tables: str) -> Html:
    """A picture, and beside it the tables with its numbers."""
    return element("div", element("figure", Html(picture)), element("div", *tables), of="beside")


def page(title: str, *contents: str) -> str:
    """The whole document, which may load nothing."""
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html(title)}</title><style>{_STYLE}</style></head>\n"
        f"<body>{''.join(html(content) for content in contents)}</body></html>\n"
    )
