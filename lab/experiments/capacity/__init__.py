"""How many workers and machines does a rate need? Predicted, checked here, and planned."""

from lab.experiments.capacity.case import EXPERIMENT, Parameters

__all__ = ["EXPERIMENT", "Parameters"]
