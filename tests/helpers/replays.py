"""Replays, and widgets as anywidget renders them, in a browser: their pages, and where requests are."""

from pathlib import Path

from helpers.browser import Reader
from playwright.sync_api import Page

TEMPLATES = Path(__file__).parents[2] / "lab/report/templates"

PLACES = ("coming", "waiting", "working", "done")
"""Where a request may be."""

_MODEL = """
class Model {
  constructor(values) { Object.assign(this, { values, heard: [], sent: [] }); }
  get(name) { return this.values[name]; }
  on(event, then) { this.heard.push([event, then]); }
  off(event, then) { this.heard = this.heard.filter((one) => one[0] !== event || one[1] !== then); }
  send(message) { this.sent.push(message); }
  set(name, value) {
    this.values[name] = value;
    for (const [event, then] of this.heard) if (event === `change:${name}`) then();
  }
}
"""
"""What anywidget gives to a widget."""


def page_of(folder: Path, body: str, css: Path = TEMPLATES / "replay.css") -> Path:
    """Write a page with this body."""
    page = folder / "page.html"
    page.write_text(
        f'<!DOCTYPE html><html lang="en"><head><title>Replay</title><meta charset="utf-8">'
        f"<style>{css.read_text()}</style></head><body><main>{body}</main></body></html>"
    )
    return page


def widget_in(reader: Reader, folder: Path, script: Path) -> Page:
    """Open a page in which `shown(values)` renders the widget of a script with a `model` of these values.

    `end()` is what rendering returned: it cleans up.
    """
    text = script.read_text().replace("export default ", "const widget = ")
    body = f"""<div id="here"></div><script type="module">{text}{_MODEL}
      window.shown = (values) => {{
        window.model = new Model(values);
        window.end = widget.render({{ model, el: document.getElementById("here") }});
      }};</script>"""
    page = reader.open(page_of(folder, body, script.with_suffix(".css")))
    page.wait_for_function("window.shown !== undefined")
    return page


def counts(page: Page) -> list[list[int]]:
    """Return how many requests each scene has in each of `PLACES`."""
    found = page.locator(".scene").evaluate_all(
        "(scenes, places) => scenes.map(({ dataset }) => places.map((place) => Number(dataset[place])))",
        PLACES,
    )
    return [list(each) for each in found]


def time_s(page: Page) -> float:
    """Return the time that is shown."""
    return float(page.locator(".replay").get_attribute("data-t") or "nan")
