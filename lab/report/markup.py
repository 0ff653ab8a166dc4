"""What nbconvert makes of a notebook, made fit for a page: headings, tables that fold, light pictures."""

import base64
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from bs4 import BeautifulSoup, Tag
from PIL import Image

MOST_BYTES = 60_000
"""Of a picture; in base64 it is a third longer."""
_COLOURS = (64, 32)
_SHRINK = 0.8

_ROWS, _FOLDED_FROM = 8, 12
"""How many rows of a long table are seen at first, and how many make it long."""
_CHARACTERS, _CELL = 96, 30
"""How many characters of a row are seen at first, and how many of a cell stand on one line."""

_COLOURED = {"k", "kn", "kc", "ow", "s1", "s2", "sa", "sd", "mi", "mf", "c1"}
"""The kinds of code that page.css gives a colour; the others need no element."""

_NUMBER = re.compile(
    r"[<>±~+\-\N{MINUS SIGN}]?\d[\d,.+]*(e[+-]?\d+)?"
    r"([\s\N{NO-BREAK SPACE}]?(%|s|ms|µs|ns|/s|GiB|MiB|KiB|times|×))?"
)
_INTERVAL = re.compile(r"(?<=\S)(\s*\([^()]*\d[^()]* to [^()]*\d[^()]*\))")
_NONE = ("", "–")
"""What a table shows where there is no number."""


@dataclass(frozen=True)
class Heading:
    """A heading of an article, as its contents list it."""

    id: str
    text: str


def tidied(html: str, prefix: str) -> tuple[str, list[Heading]]:
    """Return the HTML of a notebook made fit for a page, and its headings of the first rank.

    Headings move one rank down, below the page's own, and get ids that begin with `prefix`. Wide tables and
    figures scroll in a box of their own, long tables fold, numbers stand to the right. Pictures become small.
    """
    soup = BeautifulSoup(html, "html.parser")
    for style in soup.find_all("style"):
        style.decompose()  # for JupyterLab: the page has its own
    headings = _ranked(soup, prefix)
    for number, table in enumerate(soup.find_all("table")):
        _fitted(soup, table, f"{prefix}-table-{number}")
    for span in soup.select(".highlight span"):
        if _COLOURED.isdisjoint(span.get_attribute_list("class")):
            span.unwrap()
    for image in soup.find_all("img"):
        _lightened(image)
        _boxed(soup, image, "Figure")
    return str(soup), headings


def _ranked(soup: BeautifulSoup, prefix: str) -> list[Heading]:
    first: list[Heading] = []
    taken: set[str] = set()
    for number, heading in enumerate(soup.find_all(re.compile("^h[1-5]$"))):
        text, rank = heading.get_text(), int(heading.name[1]) + 1
        name = f"{prefix}-{re.sub(r'[^a-z0-9]+', '-', text.lower()).strip('-')}"
        heading.name, heading["id"] = f"h{rank}", f"{name}-{number}" if name in taken else name
        taken.add(str(heading["id"]))
        if rank == 3:
            first.append(Heading(str(heading["id"]), text))
    return first


def _boxed(soup: BeautifulSoup, element: Tag, label: str) -> Tag:
    """Put an element into a box that scrolls sideways, by keyboard too."""
    box = soup.new_tag(
        "div", attrs={"class": "scroll", "tabindex": "0", "role": "group", "aria-label": label}
    )
    element.wrap(box)
    return box


def _fitted(soup: BeautifulSoup, table: Tag, name: str) -> None:
    """Align a table's numbers, let it scroll, and fold what of it is long or wide."""
    caption = table.find("caption")
    label = caption.get_text() if caption else "Table"
    rows = [row.find_all(["th", "td"]) for row in table.find_all("tr")]
    body = [row for row in rows if row and row[-1].name == "td"]
    head = rows[0] if rows and rows[0] not in body else []
    for at in range(max(map(len, body), default=0)):
        _aligned([row[at] for row in body if at < len(row)], head[at] if at < len(head) else None)
    for cell in head:
        if not cell.get_text(strip=True):
            cell.name = "td"
            cell.attrs.pop("scope", None)
    box = _boxed(soup, table, f"Table: {label}")
    if box.find_parent("details"):
        return  # it is one click away as it is
    hidden = _beyond(rows)
    if len(body) < _FOLDED_FROM and not hidden:
        return
    rest = []
    if len(body) >= _FOLDED_FROM:
        rest.append(f"{len(body)} rows")
        for row in body[_ROWS:]:
            _marked(row[0].parent, "more")
    if hidden:
        rest.append(f"{max(map(len, rows))} columns")
        for row in rows:
            for cell in row[-hidden:]:
                _marked(cell, "more")
    _foldable(soup, box, name, " and ".join(rest))


def _foldable(soup: BeautifulSoup, box: Tag, name: str, rest: str) -> None:
    """Give a table a switch, before it, that shows what is folded; it works without a script."""
    fold = box.wrap(soup.new_tag("div", attrs={"class": "fold"}))
    switch = soup.new_tag("input", attrs={"type": "checkbox", "id": name})
    label = soup.new_tag("label", attrs={"for": name})
    for kind, text in (("unfold", f"Show all {rest}"), ("refold", "Show less")):
        part = soup.new_tag("span", attrs={"class": kind})
        part.string = text
        label.append(part)
    fold.extend([switch, label])


def _marked(element: Tag | None, name: str) -> None:
    if element is not None:
        names = dict.fromkeys([*filter(None, element.get_attribute_list("class")), name])
        element["class"] = " ".join(names)


def _beyond(rows: Sequence[Sequence[Tag]]) -> int:
    """Return how many of the last columns do not fit beside the others; none if it is but one."""
    columns = max(map(len, rows), default=0)
    widths = [
        max(min(_CELL, len(row[at].get_text())) for row in rows if at < len(row)) for at in range(columns)
    ]
    seen = sum(sum(widths[: at + 1]) <= _CHARACTERS for at in range(columns))
    return columns - seen if seen > 1 and columns - seen > 1 else 0


def _aligned(cells: Sequence[Tag], head: Tag | None) -> None:
    """Set a column of numbers to the right, and what is an interval in a quieter tone."""
    for cell in cells:
        if cell.string and len(parts := _INTERVAL.split(str(cell.string))) > 1:
            cell.clear()
            for at, part in enumerate(parts):
                cell.append(_quiet(part) if at % 2 else part)
    texts = [re.sub(r"\s*\(.*\)$", "", cell.get_text(strip=True), flags=re.DOTALL) for cell in cells]
    told = [text for text in texts if text not in _NONE]
    if told and all(_NUMBER.fullmatch(text) for text in told):
        for cell in (*cells, *([head] if head else [])):
            _marked(cell, "number")


def _quiet(interval: str) -> Tag:
    span = Tag(name="span", attrs={"class": "interval"})
    span.string = interval
    return span


def _lightened(image: Tag) -> None:
    """Embed a PNG as a smaller picture of the same size on the page; leave any other as it is."""
    head, _, content = str(image.get("src", "")).partition("base64,")
    if not image.get("alt"):
        image["alt"] = "A figure without a description"
    if head != "data:image/png;":
        return
    try:
        image["src"] = (
            f"data:image/webp;base64,{base64.b64encode(_small(base64.b64decode(content))).decode()}"
        )
    except (OSError, ValueError):
        return  # not a picture: the browser shows its text instead


def _small(png: bytes) -> bytes:
    """Return a picture in at most `MOST_BYTES`, with fewer colours, and smaller if that is not enough."""
    with Image.open(io.BytesIO(png)) as opened:
        paper = Image.new("RGBA", opened.size, "white")
        picture = Image.alpha_composite(paper, opened.convert("RGBA")).convert("RGB")
    while True:
        for colours in _COLOURS:
            buffer = io.BytesIO()
            _with_few(picture, colours).save(buffer, "WEBP", lossless=True, method=2, quality=30)
            if buffer.tell() <= MOST_BYTES:
                return buffer.getvalue()
        shrink = min(_SHRINK, math.sqrt(MOST_BYTES / buffer.tell()))
        picture = picture.resize((round(shrink * picture.width), round(shrink * picture.height)))


def _with_few(picture: Image.Image, colours: int) -> Image.Image:
    """Return a picture in so many colours; that of its corner, the paper, stays what it is."""
    few = picture.quantize(colours, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    palette, paper = few.getpalette() or [], few.tobytes()[0]
    palette[3 * paper : 3 * paper + 3] = picture.crop((0, 0, 1, 1)).tobytes()
    few.putpalette(palette)
    return few.convert("RGB")
