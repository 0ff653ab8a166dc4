"""What a notebook shows its reader: figures with alt text, plain tables, and an answer at the top."""

import base64
import html
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING

from lab.units import ANCHOR, Fold, Number, digits

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BEFORE_UNIT = re.compile(r"(?<=[\d+]) (?=(?:%|s|ms|µs)(?!\w))")
"""The space in 99.9+ % and 87.2 ms, where no line may break."""

_FOREIGN = re.compile(rf"\]\((?!#{ANCHOR}[0-9a-f]{{10}}\))")
"""The middle of a link that does not lead to an estimate."""

_PIXELS_PER_INCH = 110
"""At which a figure is shown where there is room for it."""

_MOST_TOLD = 12
"""Series and words of a panel that an alt text repeats."""


def show(figure: "Figure | None", *, caption: str, save_as: Path | None = None) -> None:
    """Show a figure with its caption and alt text; with `save_as`, also write it there as .svg and .png.

    Figure and caption go into one HTML output, because notebook image outputs lose their alt text on export.
    Without a figure, it says so instead.
    """
    if figure is None:
        say(f"*No figure, as this run has nothing to draw in it: {caption}*")
        return
    from lab.figures import picture, rendered

    files: dict[str, bytes] = {}
    if save_as is not None:
        from lab.files import write_whole

        for kind in ("png", "svg"):
            files[kind] = rendered(figure, kind)
            write_whole(save_as.with_suffix(f".{kind}"), files[kind])
    kind, content = picture(figure, files)
    width, height = (round(_PIXELS_PER_INCH * inches) for inches in figure.get_size_inches())
    _display_html(
        f'<figure><img src="data:{kind};base64,{base64.b64encode(content).decode()}"'
        f' alt="{html.escape(alt_text(figure))}" width="{width}" height="{height}"'
        ' style="max-width:100%;height:auto">'
        f"<figcaption>{_unbroken(html.escape(caption))}</figcaption></figure>"
    )


def alt_text(figure: "Figure") -> str:
    """Describe a figure for readers who cannot see it: its finding, what is drawn, and the numbers in it.

    The title is the finding. Of each panel follow its axes, its series with their first and last value, and
    the words that stand in it. Panels that draw the same are told together; a label that panels share counts
    for all.
    """
    from lab.figures import title_of

    across = next((axes.get_xlabel() for axes in reversed(figure.axes) if axes.get_xlabel()), "")
    panels: dict[str, list[str]] = {}
    for axes in filter(lambda axes: axes.axison, figure.axes):
        alike = [axes, *axes.get_shared_y_axes().get_siblings(axes)]
        up = next((one.get_ylabel() for one in alike if one.get_ylabel()), "") or _rows(alike)
        drawn = f"{up} against {axes.get_xlabel() or across}"
        words = [text.get_text() for text in axes.texts if any(map(str.isalnum, text.get_text()))]
        told = list(dict.fromkeys([*_series(axes), *words]))[:_MOST_TOLD]
        title = axes.get_title("left") or axes.get_title()
        panels.setdefault(f"{drawn} ({'; '.join(told)})" if told else drawn, []).append(title)
    described = [
        f"{', '.join(filter(None, titles))}: {drawn}" if any(titles) else drawn
        for drawn, titles in panels.items()
    ]
    finding = title_of(figure)
    stop = "" if finding.endswith(("?", ".")) else "."
    return " ".join(f"{finding}{stop} Chart of {'; '.join(described)}.".split())


def _rows(alike: Sequence["Axes"]) -> str:
    """Name the rows of a chart whose vertical axis has no label."""
    ticks = (tick.get_text() for one in alike for tick in one.get_yticklabels())
    return ", ".join(dict.fromkeys(filter(None, ticks))) or "rows"


def _series(axes: "Axes") -> Iterator[str]:
    """Name each series, with its first and its last value if it is a line of numbers."""
    for handle, name in zip(*axes.get_legend_handles_labels(), strict=True):
        line = getattr(handle, "lines", [handle])[0]  # of error bars, the line through the middles
        data = line.get_xydata() if hasattr(line, "get_xydata") and line.get_linestyle() != "None" else []
        known = [(float(x), float(y)) for x, y in data if x == x and y == y]  # not those that are nan
        if len(known) > 1:
            (x0, y0), (x1, y1) = known[0], known[-1]
            name += f" from {_plain(y0)} at {_plain(x0)} to {_plain(y1)} at {_plain(x1)}"
        yield name


def _plain(value: float) -> str:
    """Write a number for who hears it: 3, 87.4, 4,000."""
    text = f"{value:.3g}"
    return digits(value) if "e" in text else text


def table(frame: "pd.DataFrame", *, caption: str, folded: bool = False) -> None:
    """Show a table under a caption, without its index: cells of text, numbers, `units.Number` or `Fold`.

    A long one may be `folded`: then only its caption is seen, until the reader opens it. A wide one may name
    its main columns in `frame.attrs["main"]`: then all are seen once the reader opens what is below those.
    """
    columns = [_column(str(name), list(cells)) for name, cells in frame.items()]
    first = [column for column in columns if column.name in frame.attrs.get("main", ())] or columns
    head = "" if folded else f"<caption>{html.escape(caption)}</caption>"
    markup = _grid(first, head)
    if len(first) < len(columns):
        markup += _folded(f"all {len(columns)} columns", _grid(columns))
    if folded:
        markup = _folded(caption, markup)
    _display_html(_unbroken(f"<style>{_LOOK}</style>{markup}"))


_LOOK = (
    "table.lab.lab th,table.lab.lab td{text-align:left;vertical-align:top}"
    "table.lab.lab .number{text-align:right;font-variant-numeric:tabular-nums}"
    "table.lab .interval{color:var(--quiet,var(--jp-ui-font-color2,#616e7c))}"
    "table.lab caption{text-align:left}"
)
"""For JupyterLab, too, which aligns all cells to the right, by three names, and has themes of its own."""


@dataclass(frozen=True)
class _Column:
    name: str
    head: str
    cells: Sequence[str]
    is_number: bool


def _column(name: str, values: Sequence[object]) -> _Column:
    """Write a column; if all of its numbers have one unit, that stands in the head alone."""
    numbers = [value for value in values if isinstance(value, Number)]
    found = {unit for number in numbers for unit in number.units}
    (unit,) = found if len(found) == 1 else [""]
    written = {"/s": "requests/s"}.get(unit, unit)
    cells = [_cell(value, bare=bool(unit)) for value in values]
    known = [value for value in values if not _is_missing(value)]
    told = sum(isinstance(value, Number | Real) and not isinstance(value, bool) for value in known)
    return _Column(name, f"{name}, {written}" if written else name, cells, 0 < told >= len(known) / 2)


def _is_missing(value: object) -> bool:
    """Say whether there is nothing to show: an empty text, None, nan, or what pandas calls missing."""
    return value is None or str(value) in ("", "nan", "NaT", "<NA>")


def _cell(value: object, *, bare: bool) -> str:
    if isinstance(value, Number):
        return _number(value, bare=bare)
    if isinstance(value, Fold):
        return _folded(value.words, html.escape(value.text))
    if value != "" and _is_missing(value):
        return "–"
    return html.escape(f"{value:.6g}" if isinstance(value, float) else str(value))


def _number(number: Number, *, bare: bool) -> str:
    alone = replace(number, low=None, high=None, note="")
    markup = html.escape(number.digits if bare else str(alone))
    if number.key:
        markup = f'<a href="#{ANCHOR}{html.escape(number.key)}">{markup}</a>'
    if number.anchor:
        markup = f'<span id="{ANCHOR}{html.escape(number.anchor)}">{markup}</span>'
    spread = number.spread_in(bare=bare)
    if not number.note:
        spread = spread.replace(" ", "\N{NO-BREAK SPACE}")
    return f'{markup} <span class="interval">({html.escape(spread)})</span>' if spread else markup


def _grid(columns: Sequence[_Column], head: str = "") -> str:
    """Write columns as a table."""
    of = [' class="number"' if column.is_number else "" for column in columns]
    heads = "".join(
        f'<th scope="col"{kind}>{html.escape(column.head)}</th>'
        for kind, column in zip(of, columns, strict=True)
    )
    rows = zip(*(column.cells for column in columns), strict=True)
    body = "".join(
        f"<tr>{''.join(f'<td{kind}>{cell}</td>' for kind, cell in zip(of, row, strict=True))}</tr>"
        for row in rows
    )
    return f'<table class="lab">{head}<thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>'


def _folded(words: str, markup: str) -> str:
    return f'<details class="table"><summary>{html.escape(words)}</summary>{markup}</details>'


def answer() -> Callable[[str], None]:
    """Reserve a place for the answer here, and return the function that fills it."""
    from IPython.display import Markdown, display

    handle = display(Markdown("*The answer appears here once it has been measured.*"), display_id=True)

    def fill(text: str) -> None:
        handle.update(Markdown(_without_markup(text)))

    return fill


def say(text: str) -> None:
    """Show sentences, in Markdown, computed from what was measured."""
    from IPython.display import Markdown, display

    display(Markdown(_without_markup(text)))


def _without_markup(text: str) -> str:
    """Leave a text its emphasis and links to estimates, but no HTML, image or link to elsewhere.

    Names in it may come from an imported run.
    """
    plain = text.replace("<", "&lt;").replace("![", "!\\[")
    return _unbroken(_FOREIGN.sub(r"]\\(", plain))


def _unbroken(text: str) -> str:
    """Keep numbers on the same line as their units."""
    return _BEFORE_UNIT.sub("\N{NO-BREAK SPACE}", text)


def _display_html(markup: str) -> None:
    from IPython.display import HTML, display

    display(HTML(markup))
