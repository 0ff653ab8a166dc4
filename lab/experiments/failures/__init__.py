"""What does it cost when workers die, are replaced, or are blocked, under steady load?"""

from lab.experiments.failures.trials import EXPERIMENT, Parameters

__all__ = ["EXPERIMENT", "Parameters"]
