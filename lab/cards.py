"""How an object shows itself: a title and its facts, as lines of text and as a small table in a notebook."""

import html
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lab.errors import one_line

_MOST_LISTED = 12


@dataclass(frozen=True)
class Card:
    """What is shown of an object. Names may come from elsewhere: they are escaped, whatever they hold."""

    title: str
    facts: Mapping[str, object]

    def __str__(self) -> str:
        facts = {one_line(name): one_line(value) for name, value in self.facts.items()}
        width = max(map(len, facts), default=0)
        lines = [f"  {name:<{width}}  {value}" for name, value in facts.items()]
        return "\n".join([one_line(self.title), *lines])

    @property
    def markup(self) -> str:
        """The card as HTML, without colours of its own: it takes those of a light or dark page."""
        rows = "".join(
            f'<tr><th scope="row" style="text-align:left;vertical-align:top">{_escaped(name)}</th>'
            f'<td style="text-align:left;white-space:normal">{_escaped(value)}</td></tr>'
            for name, value in self.facts.items()
        )
        caption = f'<caption style="text-align:left;font-weight:600">{_escaped(self.title)}</caption>'
        return f'<table class="lab-card" style="margin:0">{caption}{rows}</table>'


def _escaped(value: object) -> str:
    return html.escape(one_line(value))


def listed(values: Any, most: int = _MOST_LISTED) -> str:
    """Write values with commas, but no more than `most` of them; a dash for none."""
    known = [str(value) for value in values]
    rest = f" and {len(known) - most} more" if len(known) > most else ""
    return f"{', '.join(known[:most]) or '–'}{rest}"


class Shown(ABC):
    """An object that shows its card where it is the value of a notebook's cell; doing so never fails."""

    @abstractmethod
    def _card(self) -> Card:
        """Return what is shown."""

    def _shown(self) -> Card:
        try:
            return self._card()
        except Exception as error:  # what is only looked at must not break the cell
            return Card(type(self).__name__, {"cannot be shown": error})

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        card = self._shown()
        return {"text/plain": str(card), "text/html": card.markup}
