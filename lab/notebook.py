"""What a notebook shows its reader: figures with alt text, plain tables, and an answer at the top."""

import base64
import html
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BEFORE_UNIT = re.compile(r"(?<=[\d+]) (?=(?:%|s|ms|µs)(?!\w))")
"""The space in 99.9+ % and 87.2 ms, where no line may break."""

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
        say(f"*Not measured in this run, so there is no figure here: {caption}*")
        return
    from lab.figures import picture, rendered

    if save_as is not None:
        from lab.files import write_whole

        for kind in ("png", "svg"):
            write_whole(save_as.with_suffix(f".{kind}"), rendered(figure, kind))
    kind, content = picture(figure)
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
    return " ".join(f"{title_of(figure)}. Chart of {'; '.join(described)}.".split())


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
            name += f" from {y0:.3g} at {x0:.3g} to {y1:.3g} at {x1:.3g}"
        yield name


def table(frame: "pd.DataFrame", *, caption: str, folded: bool = False) -> None:
    """Show a table of ready-made text and numbers under a caption, without its index.

    A long one may be `folded`: then only its caption is seen, until the reader opens it.
    """
    body = frame.to_html(index=False, border=0, justify="unset", na_rep="–", classes="lab")
    if folded:
        markup = f'<details class="table"><summary>{html.escape(caption)}</summary>{body}</details>'
    else:
        markup = body.replace("<thead>", f"<caption>{html.escape(caption)}</caption><thead>", 1)
    _display_html(_unbroken(markup))


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
    """Leave a text its emphasis, but no HTML and no image: names in it may come from an imported run."""
    return _unbroken(text.replace("<", "&lt;").replace("](", "]\\("))


def _unbroken(text: str) -> str:
    """Keep numbers on the same line as their units."""
    return _BEFORE_UNIT.sub("\N{NO-BREAK SPACE}", text)


def _display_html(markup: str) -> None:
    from IPython.display import HTML, display

    display(HTML(markup))
