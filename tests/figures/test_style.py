"""The one style: titles that fit, colours that grey and any eye keep apart, labels apart, light pictures."""

from itertools import combinations, pairwise
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from helpers.drawn_labels import overlaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb

from lab.figures import (
    BAD,
    DARK_TO_LIGHT,
    MOST_BYTES,
    SLO,
    beside,
    canvas,
    picture,
    plain_log_ticks,
    rendered,
    server_look,
    title_of,
)
from lab.figures import SERVERS as LOOKS

TITLE = "What it says"


def test_looks_differ_in_marker_and_line_and_grow_lighter() -> None:
    assert len({look.marker for look in DARK_TO_LIGHT}) == len(DARK_TO_LIGHT)
    assert len({look.line for look in DARK_TO_LIGHT}) == len(DARK_TO_LIGHT)
    greys = [float(np.dot(to_rgb(look.color), (0.299, 0.587, 0.114))) for look in DARK_TO_LIGHT]
    assert all(darker < lighter for darker, lighter in pairwise(greys))


@pytest.mark.parametrize("words", [1, 3, 6, 9, 12, 30])
def test_a_title_fits_its_figure_and_loses_no_word(words: int) -> None:
    said = " ".join(["Workers"] * words)
    with canvas(said) as (figure, _):
        (title,) = figure.texts
        assert title.get_window_extent(FigureCanvasAgg(figure).get_renderer()).x1 <= figure.bbox.x1
    assert title.get_text().split() == said.split()
    assert title_of(figure) == said


def test_a_title_of_two_lines_breaks_where_its_sentence_does() -> None:
    with canvas("1 to 2 workers: 1.88 times the throughput; 2 to 4: 1.02 times") as (figure, _):
        first, _, second = figure.get_suptitle().partition("\n")
    assert (first[-1], second) == (";", "2 to 4: 1.02 times")


def _lightness(color: str) -> float:
    """CIE L* of a colour: what is left of it in grey."""
    red, green, blue = _linear(color)
    luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    return float(116 * np.cbrt(luminance) - 16)


def _linear(color: str) -> Any:
    parts = np.array(to_rgb(color))
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)


_DEUTERANOPIA = np.array([[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]])
"""Machado, Oliveira and Fernandes (2009), of linear RGB: what an eye without green cones sees."""


def _without_green_cones(color: str) -> Any:
    seen = np.clip(_DEUTERANOPIA @ _linear(color), 0, 1)
    return np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize("palette", [LOOKS, dict(enumerate(DARK_TO_LIGHT))], ids=["servers", "others"])
def test_colours_are_told_apart_in_grey_and_without_green_cones(palette: dict[Any, Any]) -> None:
    colors = [look.color for look in palette.values()]
    for one, other in combinations(colors, 2):
        assert abs(_lightness(one) - _lightness(other)) >= 6, (one, other)
        assert np.linalg.norm(_without_green_cones(one) - _without_green_cones(other)) >= 0.1, (one, other)


def test_an_objective_looks_like_no_server_and_no_failure() -> None:
    for color in [BAD, *(look.color for look in LOOKS.values())]:
        assert np.linalg.norm(np.array(to_rgb(color)) - to_rgb(SLO["color"])) >= 0.2


@pytest.mark.parametrize(
    ("name", "look"),
    [
        ("one process", "one process"),
        ("2 workers, shared", "shared"),
        ("round-robin (kept)", "round-robin"),
        ("least-busy, bound 2", "least-busy"),
        ("threads, numba", "threads"),
    ],
)
def test_a_server_has_one_look_under_all_its_names(name: str, look: str) -> None:
    assert server_look(name) is LOOKS[look]


def test_labels_beside_lines_that_end_together_are_moved_apart() -> None:
    with canvas(TITLE) as (figure, (axes,)):
        axes.plot([0, 1], [0, 1])
        beside(axes, [(1.0, 0.5, "one", "k"), (1.0, 0.5, "two", "k"), (1.0, 0.501, "three", "k")])
    assert overlaps(figure) == []


@pytest.mark.parametrize("most", [None, 4])
@pytest.mark.parametrize("ends", [(0.5, 60), (0.004, 0.06), (0.011, 0.019), (0.82, 1.2), (0.97, 1.02)])
def test_a_logarithmic_axis_has_two_ticks_or_more_and_they_lie_apart(
    most: int | None, ends: tuple[float, float]
) -> None:
    with canvas(TITLE) as (figure, (axes,)):
        axes.plot(ends, [0, 1])
        axes.set_xscale("log")
        axes.set_xlim(ends)
        plain_log_ticks(axes.xaxis, most=most)
    FigureCanvasAgg(figure).draw()
    ticks = [tick.label1 for tick in axes.xaxis.get_major_ticks() if ends[0] <= tick.get_loc() <= ends[1]]
    assert len(ticks) >= 2
    boxes = [tick.get_window_extent() for tick in ticks]
    assert all(one.x1 < other.x0 for one, other in pairwise(boxes))


def test_many_marks_become_a_picture_and_few_stay_lines_and_words() -> None:
    for marks, kind in ((20, "image/svg+xml"), (20_000, "image/png")):
        with canvas(TITLE) as (figure, (axes,)):
            axes.plot(np.arange(marks), np.random.default_rng(0).random(marks), ".", label="5 < 6 & 7")
            axes.legend()
        found, content = picture(figure)
        assert (found, len(content) <= MOST_BYTES) == (kind, True)


def test_words_in_an_svg_stay_words_and_numbers_in_them_are_not_rounded() -> None:
    with canvas("<b>3.14159</b> & more") as (figure, (axes,)):
        axes.set_xlabel("2.71828 $x_1$")
    svg = rendered(figure, "svg").decode()
    root = ElementTree.fromstring(svg)  # noqa: S314 - our own
    words = [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"<b>3.14159</b> & more", "2.71828 $x_1$"} <= set(words)
    assert "<b>" not in svg


def test_a_figure_that_fails_half_way_is_forgotten_too() -> None:
    with pytest.raises(KeyError), canvas(TITLE):
        raise KeyError
