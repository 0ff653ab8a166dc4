"""The playground in JupyterLab, as a reader uses it; whichever way it ends, no process is left."""

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.browser import AXE
from helpers.clients import until
from helpers.jupyterlab import PATIENCE_S, JupyterLab, Notebook, jupyterlab
from playwright.sync_api import Browser, Locator, Page, expect

pytestmark = pytest.mark.timeout(300)

WORK = "a hundredth"
"""Loops so short that several kinds of machine can be dragged to 200 requests/s."""


@pytest.fixture
def lab(tmp_path: Path, browser: Browser) -> Iterator[JupyterLab]:
    with jupyterlab(tmp_path) as lab:
        yield lab


class Playground:
    """The panel in an open notebook."""

    def __init__(self, notebook: Notebook) -> None:
        self.notebook, self.page = notebook, notebook.page
        self.live = self.page.locator(".playground")
        self.said = self.live.locator(".said")

    def press(self, name: str) -> None:
        self.page.get_by_role("button", name=name, exact=True).click()

    def start(self) -> None:
        self.press("Start")
        expect(self.page.locator(".playground.running")).to_be_visible()
        expect(self.tile("p99")).not_to_have_text("–")

    def tile(self, name: str) -> Locator:
        one = self.live.locator(".tile", has=self.page.locator("dt", has_text=re.compile(f"^{name}$")))
        return one.locator(".value")


def serious(page: Page) -> list[str]:
    """Return what axe-core finds serious in the panel."""
    if not AXE.exists():
        return []
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate("axe.run('.jp-OutputArea-output .widget-vbox').then((result) => result.violations)")
    return [one["id"] for one in found if one["impact"] in ("serious", "critical")]


def no_process(lab: JupyterLab) -> None:
    until(lambda: not lab.others(), PATIENCE_S)


def test_the_playground(lab: JupyterLab, browser: Browser) -> None:
    expect.set_options(timeout=1000 * PATIENCE_S)
    page = browser.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    notebook = lab.open(page, "playground.ipynb")
    notebook.run_all()
    assert notebook.errors() == []
    playground = Playground(notebook)
    expect(playground.said).to_have_text("Stopped. Press Start, then drag the rate.")
    assert lab.others() == []

    page.get_by_label("work", exact=True).select_option(WORK)
    page.get_by_label("workers", exact=True).fill("99999")
    playground.press("Start")
    expect(playground.said).to_contain_text("must be at most")
    page.get_by_label("workers", exact=True).fill("2")
    playground.start()
    assert len(lab.others()) == 4  # supervisor, two workers, generator

    throughput = playground.tile("throughput")
    slider = page.get_by_role("slider").first
    slider.focus()
    while float(slider.get_attribute("aria-valuetext") or slider.get_attribute("aria-valuenow") or 0) < 2.3:
        slider.press("PageUp")
    expect(throughput).to_have_text(re.compile(r"^(1\d\d|2\d\d)/s$"))

    assert serious(page) == []

    playground.press("Kill a worker")
    expect(playground.live.locator(".workers .about", has_text="restarts 1").first).to_be_visible()
    expect(playground.live.locator(".workers li")).to_have_count(2)
    playground.press("Stop")
    expect(playground.said).to_contain_text("Stopped. Of ")
    no_process(lab)

    playground.start()
    page.evaluate("jupyterapp.commands.execute('notebook:interrupt-kernel')")
    expect(playground.said).to_contain_text("Stopped. Of ")
    no_process(lab)

    playground.start()
    notebook.restart()
    no_process(lab)

    notebook.run_all()
    playground.start()
    (kernel,) = lab.kernels()
    os.kill(kernel, signal.SIGKILL)
    no_process(lab)
    expect(playground.said).to_contain_text("is the kernel alive?")
    assert complaints == []
    page.close()

    page = browser.new_page()
    notebook = lab.open(page, "playground.ipynb")
    notebook.run_all()
    Playground(notebook).start()
    page.close()  # and long before a page that is only hidden would be given up
    no_process(lab)
