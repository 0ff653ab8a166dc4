"""Read a page of HTML as a browser would: its elements, its text, and what it would fetch from elsewhere."""

import re
from html.parser import HTMLParser

_FETCHED = ("src", "href", "srcset", "poster", "data", "action", "xlink:href")


class Page(HTMLParser):
    """The elements of a page as (tag, attributes), and its text with the ids or tags that enclose it."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.markup = markup
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[tuple[str, tuple[str, ...]]] = []
        self._open: list[tuple[str, str]] = []
        self.feed(markup)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        self.elements.append((tag, attributes))
        self._open.append((tag, attributes.get("id") or tag))

    def handle_endtag(self, tag: str) -> None:
        while tag in (name for name, _ in self._open) and self._open.pop()[0] != tag:
            pass  # an element that needs no end, such as img

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append((data, tuple(name for _, name in self._open)))

    def find(self, tag: str) -> list[dict[str, str]]:
        """Return the attributes of every element of that tag."""
        return [attributes for name, attributes in self.elements if name == tag]

    def text(self, within: str = "") -> str:
        """Return the text, or what stands within elements of that id or tag, with single spaces."""
        parts = [text for text, around in self.texts if not within or within in around]
        return " ".join(" ".join(parts).split())

    def fetched(self) -> list[str]:
        """Return whatever a browser would fetch to show the page, which should be nothing."""
        values = [
            value
            for tag, attributes in self.elements
            for name, value in attributes.items()
            if name in _FETCHED and not (tag == "a" and name == "href" and value.startswith("#"))
        ]
        styles = [text for text, around in self.texts if "style" in around]
        values += [
            url for style in styles for url in re.findall(r"url\(\s*['\"]?([^'\")]*)|@import.*", style)
        ]
        return [value[:80] for value in values if not value.startswith("data:")]


def unlinked(text: str) -> str:
    """Return a text in Markdown without its links to estimates: only what they say."""
    return re.sub(r"\[([^]]*)\]\(#estimate-[0-9a-f]{10}\)", r"\1", text)
