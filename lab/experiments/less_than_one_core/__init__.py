"""Given less than one core, does clustering make a difference? One process and clusters under CPU quotas."""

from lab.experiments.less_than_one_core.trials import EXPERIMENT, Parameters

__all__ = ["EXPERIMENT", "Parameters"]
