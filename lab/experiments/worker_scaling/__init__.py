"""How far does adding workers take us? Highest throughput, and where the rest of the ideal went."""

from lab.experiments.worker_scaling.scaling import EXPERIMENT, Parameters

__all__ = ["EXPERIMENT", "Parameters"]
