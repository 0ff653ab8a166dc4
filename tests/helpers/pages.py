"""The project's pages in Markdown, taken apart: blocks of code, spans of code, links, anchors, tables."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Page:
    """One page; `prose` is its text without its blocks of code."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.relative_to(ROOT).as_posix()

    @property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @property
    def prose(self) -> str:
        return _FENCE.sub("", self.text)

    def blocks(self, language: str) -> list[str]:
        """Return the blocks of code in this language."""
        return [body for kind, body in _FENCE.findall(self.text) if kind == language]

    def spans(self) -> list[str]:
        """Return what stands in the text as code, on one line each."""
        return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", self.prose)]

    def links(self) -> list[tuple[bool, str, str]]:
        """Return the links: whether it is a picture, its text, where it leads."""
        return [(bang == "!", text, to) for bang, text, to in _LINK.findall(self.prose)]

    def anchors(self) -> set[str]:
        """Return the anchors that GitHub gives to headings."""
        headings = re.findall(r"^#+ (.+)$", self.prose, re.MULTILINE)
        return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}

    def rows(self, head: str) -> list[list[str]]:
        """Return the cells of the tables whose first heading is `head`, without heads."""
        found, inside = [], False
        for line in self.prose.splitlines():
            cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []
            inside = bool(cells) and (inside or cells[0] == head)
            if inside and cells[0] not in (head, "---"):
                found.append(cells)
        return found


DOCS = [Page(path) for path in sorted((ROOT / "docs").glob("*.md"))]
README, CONTRIBUTING, CHANGELOG = (
    Page(ROOT / f"{name}.md") for name in ("README", "CONTRIBUTING", "CHANGELOG")
)
PAGES = [README, CONTRIBUTING, CHANGELOG, *DOCS]
