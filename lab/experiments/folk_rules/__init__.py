"""Do the rules that people give each other about workers hold here? Each is measured, and has a verdict."""

from lab.experiments.folk_rules.rules import EXPERIMENT, Parameters

__all__ = ["EXPERIMENT", "Parameters"]
