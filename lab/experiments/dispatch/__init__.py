"""Who should get the next request? Every dispatch and topology, beside its queueing theory."""

from lab.experiments.dispatch.trials import EXPERIMENT, Parameters

__all__ = ["EXPERIMENT", "Parameters"]
