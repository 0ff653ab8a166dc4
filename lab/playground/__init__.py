"""The playground: a server under load, beside what theory predicts of it; and saved runs as figures."""

from lab.playground.engine import Parameters
from lab.playground.panel import Panel
from lab.playground.saved import Saved

__all__ = ["Panel", "Parameters", "Saved"]
