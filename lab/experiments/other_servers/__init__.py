"""How do the servers that people deploy compare? Node's, Python's and balancers beside ours."""

from lab.experiments.other_servers.trials import EXPERIMENT, Parameters

__all__ = ["EXPERIMENT", "Parameters"]
