"""What is different on another machine? Runs beside each other: their machines, curves and differences."""

from lab.experiments.machines.beside import Parameters

__all__ = ["Parameters"]
