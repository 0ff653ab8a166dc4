"""What a notebook shows: figures with alt text and caption, tables, answers; nothing taken for markup."""

import base64
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from helpers.html_page import Page
from matplotlib.figure import Figure
from nbconvert.filters import markdown2html

import lab
from lab import units
from lab.figures import canvas, rendered
from lab.notebook import alt_text
from lab.study.estimates import key_of, linked
from lab.units import Fold, Number


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Collect what is displayed."""
    found: list[Any] = []
    monkeypatch.setattr("IPython.display.display", found.append)
    return found


@pytest.fixture
def figure() -> Figure:
    return _draw()


def _draw() -> Figure:
    with canvas('Throughput of "A" & <b>', rows=2, sharex=True) as (figure, (top, bottom)):
        top.plot([1, 2], [3, 4], label="a trial")
        top.plot([1, 2], [4, 5], label="a <median>")
        top.set_ylabel("requests/s")
        top.legend()
        bottom.set_ylabel("efficiency")
        bottom.set_xlabel("workers")
    return figure


def test_a_figure_is_an_image_with_alt_text_and_a_caption(figure: Figure, shown: list[Any]) -> None:
    lab.show(figure, caption="More & <more>")
    (output,) = shown
    page = Page(output.data)
    assert [tag for tag, _ in page.elements] == ["figure", "img", "figcaption"]
    (image,) = page.find("img")
    assert image["alt"] == alt_text(figure)
    assert page.text("figcaption") == "More & <more>"
    assert page.fetched() == []
    kind, _, data = image["src"].partition(",")
    assert kind == "data:image/svg+xml;base64"
    assert Page(base64.b64decode(data, validate=True).decode()).find("svg")


def test_hostile_names_stay_words_and_figures_share_no_ids(shown: list[Any]) -> None:
    hostile = '</text><script>alert(1)</script>"><img src=http://x/ onerror=alert(1)>'
    for _ in range(2):
        with canvas(hostile) as (drawn, (axes,)):
            axes.plot([1, 2], [1, 2], label=hostile)
            axes.set_xlabel(hostile)
            axes.legend()
        lab.show(drawn, caption=hostile)
    page = Page("".join(output.data for output in shown))
    assert [tag for tag, _ in page.elements] == ["figure", "img", "figcaption"] * 2
    assert page.fetched() == []
    assert not any("id" in attributes for _, attributes in page.elements)
    for image in page.find("img"):
        svg = Page(base64.b64decode(image["src"].partition(",")[2]).decode())
        assert svg.find("script") == svg.find("img") == []
        assert all(place.startswith("#") for place in svg.fetched()), "only its own parts"


def test_sentences_have_emphasis_but_no_html_and_no_image(shown: list[Any]) -> None:
    lab.say("**Answer.** <script>alert(1)</script> and ![x](http://x/y.png) take <0.1 %")
    (output,) = shown
    page = Page(markdown2html(output.data))
    assert page.find("strong")
    assert page.find("script") == page.find("img") == []
    assert "<script>alert(1)</script> and ![x](" in page.text("p")


def test_the_alt_text_says_title_axes_and_series(figure: Figure) -> None:
    assert alt_text(figure) == (
        'Throughput of "A" & <b>. Chart of requests/s against workers (a trial from 3 at 1 to 4 at 2;'
        " a <median> from 4 at 1 to 5 at 2); efficiency against workers."
    )


def test_the_alt_text_has_the_words_that_stand_in_the_figure() -> None:
    with canvas("One request took 87 ms") as (figure, (axes,)):
        axes.plot([87], [0], "o")
        axes.annotate("87.4 ms", (87, 0))
        axes.set_yticks([0], ["python"])
        axes.set_xlabel("time, ms")
    assert alt_text(figure) == "One request took 87 ms. Chart of python against time, ms (87.4 ms)."


def test_the_alt_text_names_each_of_many_alike_panels_once() -> None:
    with canvas("Many?", rows=2, columns=2, sharex=True, sharey=True) as (figure, panels):
        for axes, way in zip(panels, ("shared", "least-busy", "threads"), strict=False):
            axes.plot([1, 4000], [2, 0.00003], label="a trial")
            axes.set_title(way)
        panels[3].set_axis_off()
        panels[0].set_ylabel("latency")
        panels[2].set_xlabel("utilisation")
    assert alt_text(figure) == (
        "Many? Chart of shared, least-busy, threads: latency against utilisation"
        " (a trial from 2 at 1 to 0.0000300 at 4,000)."
    )


def test_it_is_kept_as_png_and_svg(figure: Figure, shown: list[Any], tmp_path: Path) -> None:
    place = tmp_path / "figures" / "a-run" / "scaling"
    lab.show(figure, caption="Kept", save_as=place)
    assert sorted(path.name for path in place.parent.iterdir()) == ["scaling.png", "scaling.svg"]
    width, height = struct.unpack(">II", place.with_suffix(".png").read_bytes()[16:24])
    across, up = figure.get_size_inches()
    assert width / height == pytest.approx(across / up, rel=0.01)
    assert Page(place.with_suffix(".svg").read_text()).find("svg")


def test_what_is_drawn_again_is_the_same_file(shown: list[Any], tmp_path: Path) -> None:
    for name in ("one", "two"):
        lab.show(_draw(), caption="Kept", save_as=tmp_path / name)
    for suffix in (".svg", ".png"):
        assert (tmp_path / f"one{suffix}").read_bytes() == (tmp_path / f"two{suffix}").read_bytes()


def test_what_is_kept_is_drawn_once_for_the_page_too(
    figure: Figure, shown: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[str] = []

    def rendered(figure: Figure, kind: str) -> bytes:
        drawn.append(kind)
        return kind.encode() * (50_000 if kind == "svg" else 1)  # so heavy that a picture is lighter

    monkeypatch.setattr("lab.figures.rendered", rendered)
    lab.show(figure, caption="Kept", save_as=tmp_path / "one")
    assert sorted(drawn) == ["png", "svg"]
    assert f"data:image/png;base64,{base64.b64encode(b'png').decode()}" in shown[0].data


def test_without_a_figure_its_place_says_so(shown: list[Any], tmp_path: Path) -> None:
    lab.show(None, caption="The scaling curve.", save_as=tmp_path / "none")
    (output,) = shown
    assert "this run has nothing to draw" in output.data
    assert "The scaling curve." in output.data
    assert list(tmp_path.iterdir()) == []


def test_a_table_has_a_caption_headings_and_text_only(shown: list[Any]) -> None:
    lab.table(pd.DataFrame({"server": ["<one>", None], "rate": ["5.00/s", "–"]}), caption="Rates & <rates>")
    (output,) = shown
    page = Page(output.data)
    assert page.text("caption") == "Rates & <rates>"
    assert page.text("th") == "server rate"
    assert page.text("td") == "<one> 5.00/s – –"


def test_a_long_table_is_folded_under_its_caption(shown: list[Any]) -> None:
    lab.table(pd.DataFrame({"rate": ["5.00/s"]}), caption="Rates & <rates>", folded=True)
    page = Page(shown[0].data)
    assert page.text("summary") == "Rates & <rates>"
    assert page.text("td") == "5.00/s"
    assert page.text("caption") == ""


def test_numbers_stand_right_with_a_unit_in_the_head_and_their_intervals_apart(shown: list[Any]) -> None:
    rates = [
        Number("5.00", "/s", Number("4.00", "/s"), Number("6.00", "/s")),
        Number("9.00", "/s", note="1 block"),
        Number("–"),
    ]
    times = [units.in_seconds(0.1), units.in_seconds(2.0), ""]
    lab.table(
        pd.DataFrame({"server": ["a", "b", "c"], "rate": rates, "time": times, "n": [1, 2, 3]}), caption=""
    )
    page = Page(shown[0].data)
    assert page.text("th") == "server rate, requests/s time n"
    assert [cell.get("class", "") for cell in page.find("th")] == ["", "number", "number", "number"]
    assert page.text("span") == "(4.00 to 6.00) (1 block)"
    assert page.text("td") == "a 5.00 (4.00 to 6.00) 100 ms 1 b 9.00 (1 block) 2.00 s 2 c – 3"


def test_a_wide_table_shows_what_matters_and_folds_the_rest(shown: list[Any]) -> None:
    frame = pd.DataFrame({"server": ["<a>"], "rate": ["5/s"], "lag": ["1 ms"]})
    frame.attrs["main"] = ["server", "rate"]
    lab.table(frame, caption="Rates")
    page = Page(shown[0].data)
    assert page.text("th") == "server rate server rate lag"
    assert page.text("summary") == "all 3 columns"
    frame.attrs["main"] = ["of another frame"]
    lab.table(frame, caption="Rates")
    assert Page(shown[1].data).text("th") == "server rate lag"


def test_a_number_leads_to_its_estimate_and_a_cell_unfolds(shown: list[Any]) -> None:
    frame = pd.DataFrame({"value": [Number("1.8", key="<x>")], "from": [Fold("2 <trials>", "a.b01 & a.b02")]})
    lab.table(frame, caption="")
    page = Page(shown[0].data)
    assert page.find("a") == [{"href": "#estimate-<x>"}]
    assert page.text("summary") == "2 <trials>"
    assert page.text("details") == "2 <trials> a.b01 & a.b02"


def test_a_number_may_be_where_a_link_leads(shown: list[Any]) -> None:
    lab.table(pd.DataFrame({"ratio": [Number("1.8", anchor="<y>")]}), caption="")
    page = Page(shown[0].data)
    assert page.find("span") == [{"id": "estimate-<y>"}]
    assert page.text("td") == "1.8"


def test_a_sentence_links_to_estimates_and_to_nothing_else(shown: list[Any]) -> None:
    own = linked("1.80", "speed-up", workers=2)
    lab.say(f"**Twice {own}** [a](x/y) ![b](#estimate-0123456789) [c](#estimate-01) [d](javascript:x)")
    page = Page(markdown2html(shown[0].data))
    assert page.find("a") == [{"href": f"#estimate-{key_of('speed-up', workers=2)}"}]
    assert page.text("a") == "1.80"
    assert page.find("img") == []
    assert "[a](x/y) ![b]" in page.text("p").replace(" (", "(")


def test_an_answer_takes_the_place_that_was_held_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, str]] = []

    class Handle:
        def update(self, output: Any) -> None:
            calls.append(("update", output.data))

    def display(output: Any, display_id: bool) -> Handle:
        assert display_id
        calls.append(("display", output.data))
        return Handle()

    monkeypatch.setattr("IPython.display.display", display)
    tell = lab.answer()
    tell("**Answer.** Twice.")
    (_, held), (kind, told) = calls
    assert "once it has been measured" in held
    assert (kind, told) == ("update", "**Answer.** Twice.")


def test_a_number_stays_on_the_line_of_its_unit(shown: list[Any], figure: Figure) -> None:
    lab.say("99.9+ % within 87.2 ms; 2 seconds, 3 some, 30 s")
    lab.show(figure, caption="After 5 s")
    lab.table(pd.DataFrame({"time": ["140 µs"]}), caption="100 % of 2 workers")
    said, drawn, listed = (output.data for output in shown)
    assert said == "99.9+\xa0% within 87.2\xa0ms; 2 seconds, 3 some, 30\xa0s"
    assert "After 5\xa0s<" in drawn
    assert "140\xa0µs" in listed
    assert "100\xa0% of 2 workers" in listed


def test_a_reading_is_markdown(shown: list[Any]) -> None:
    lab.say("*As* measured.")
    assert shown[0]._repr_markdown_() == "*As* measured."


def test_figures_depend_on_nobodys_settings(tmp_path: Path) -> None:
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\nfont.family: Nowhere\nbackend: nonsense\n")
    code = (
        "import sys\n"
        "from lab.figures import rendered\n"
        "from test_notebook import _draw\n"
        "sys.stdout.buffer.write(rendered(_draw(), 'svg'))\n"
    )
    theirs = os.environ | {"MPLBACKEND": "nonsense", "MATPLOTLIBRC": str(tmp_path)}
    command = [sys.executable, "-c", code]
    drawn = subprocess.run(command, env=theirs, cwd=Path(__file__).parent, stdout=-1, check=True).stdout
    assert drawn == rendered(_draw(), "svg")
