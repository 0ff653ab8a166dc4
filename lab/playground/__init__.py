"""The playground: a server under load to play with, live beside what theory predicts; and figures of saved runs."""

from lab.playground.engine import Parameters
from lab.playground.panel import Panel

__all__ = ["Panel", "Parameters"]
