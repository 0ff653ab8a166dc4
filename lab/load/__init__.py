"""Offer load on a schedule, and record what became of every request."""

from lab.load.attack import attack
from lab.load.progress import Progress
from lab.load.result import Interrupted, Result

__all__ = ["Interrupted", "Progress", "Result", "attack"]
