"""Can the load generator be believed, and up to which rate?"""

from lab.experiments.instrument.trials import Parameters

__all__ = ["Parameters"]
