"""Offer load on a schedule, and record what became of every request."""

from lab.load.attack import Interrupted, Progress, Result, attack

__all__ = ["Interrupted", "Progress", "Result", "attack"]
