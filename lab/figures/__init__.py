"""DataFrames in, matplotlib figures out: the one style, and the figures that several parts draw."""

from lab.figures.over_time import over_time

__all__ = ["over_time"]
