"""What does it cost when workers die, are replaced, come and go, or are blocked, while clients ask on?"""

from lab.experiments.failures.trials import EXPERIMENT, Parameters

__all__ = ["EXPERIMENT", "Parameters"]
