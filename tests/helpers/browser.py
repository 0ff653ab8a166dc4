"""A real browser that can reach no host: what a reader of a page sees, and what the page tried to fetch."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Route, sync_playwright

AXE = Path(__file__).parents[2] / "node_modules/axe-core/axe.min.js"


@dataclass
class Reader:
    """A page in the browser, the requests it tried to make of any host, and the errors on its console."""

    page: Page
    requests: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def open(self, path: Path, width: int = 1280, height: int = 800) -> Page:
        """Open a file in a window of that size, in pixels, and return its page once it has loaded."""
        self.page.set_viewport_size({"width": width, "height": height})
        self.page.goto(path.as_uri())
        return self.page

    def violations(self) -> list[str]:
        """Return what axe-core finds serious or critical in the page as shown now; skip without axe-core."""
        if not AXE.exists():
            pytest.skip("axe-core is not installed: make node_modules/.ready")
        self.page.evaluate(AXE.read_text(encoding="utf-8"))
        found: list[dict[str, Any]] = self.page.evaluate("axe.run().then((result) => result.violations)")
        return [
            f"{one['id']}: {node['html'][:200]} {node['failureSummary']}"
            for one in found
            if one["impact"] in ("serious", "critical")
            for node in one["nodes"]
        ]

    def decide(self, route: Route) -> None:
        """Let files through, and nothing else."""
        if route.request.url.startswith("file:"):
            route.continue_()
        else:
            self.requests.append(route.request.url)
            route.abort()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Start the system's chromium, for the tests of one module; skip them where there is none."""
    if (chromium := shutil.which("chromium")) is None:
        pytest.skip("there is no chromium here")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        browser.new_page().close()  # its helper processes have started: each test ends what it starts
        yield browser
        browser.close()


@pytest.fixture
def reader(browser: Browser) -> Iterator[Reader]:
    """Give a test a fresh page that is cut off from every host."""
    context = browser.new_context(reduced_motion="reduce")
    reader = Reader(context.new_page())
    context.route("**/*", reader.decide)
    reader.page.on("console", lambda said: reader.errors.append(said.text) if said.type == "error" else None)
    reader.page.on("pageerror", lambda error: reader.errors.append(str(error)))
    yield reader
    context.close()
