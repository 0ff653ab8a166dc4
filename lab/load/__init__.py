"""Offer load on a schedule, and record what became of every request."""

from lab.load.attack import Interrupted, Result, attack
from lab.load.progress import Progress

__all__ = ["Interrupted", "Progress", "Result", "attack"]
