"""What stands where in a figure that was drawn."""

from collections.abc import Iterator
from itertools import combinations, pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def overlaps(figure: Figure) -> list[tuple[str, str]]:
    """Return the pairs of labels in a figure that cover each other by more than a sliver."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    texts = [text for axes in figure.axes for text in axes.texts if text.get_text()]
    boxes = [(text.get_text(), text.get_window_extent(canvas.get_renderer())) for text in texts]
    return [
        (one, other)
        for (one, a), (other, b) in combinations(boxes, 2)
        if min(a.x1, b.x1) - max(a.x0, b.x0) > 2 and min(a.y1, b.y1) - max(a.y0, b.y0) > 2
    ]


def hidden(figure: Figure) -> list[str]:
    """Return the words, of labels and legends, that stand over a point or a bar of what is drawn."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    found = []
    for axes in figure.axes:
        boxes = [(text.get_text(), text.get_window_extent()) for text in axes.texts if text.get_text()]
        if legend := axes.get_legend():
            words = ", ".join(text.get_text() for text in legend.get_texts())
            boxes.append((words, legend.get_window_extent()))
        marks = np.concatenate([axes.transData.transform(points) for points in _marks(axes)])
        found += [words for words, box in boxes if any(box.contains(x, y) for x, y in marks)]
    return found


def _marks(axes: Axes) -> Iterator[np.ndarray]:
    """Yield points along all lines and bars of the data."""
    yield np.empty((0, 2))
    drawn = [line.get_xydata() for line in axes.get_lines() if line.get_transform() == axes.transData]
    bars = [segment for bars in axes.collections for segment in getattr(bars, "get_segments", list)()]
    for points in map(np.asarray, [*drawn, *bars]):
        for one, other in pairwise(points):
            yield np.linspace(one, other, 50)
        yield points.reshape(-1, 2)
