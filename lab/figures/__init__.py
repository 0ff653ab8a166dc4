"""DataFrames in, matplotlib figures out, one style: a function per figure."""

from lab.figures.dispatch import dispatch_evenness, dispatch_latency
from lab.figures.hot_loop import loop_times
from lab.figures.instrument import send_lag, stall
from lab.figures.over_time import over_time
from lab.figures.overload import latency_over_time
from lab.figures.peer_tools import peer_tools
from lab.figures.rate_sweep import rate_sweep
from lab.figures.timeline import Span, timeline
from lab.figures.worker_scaling import worker_scaling

__all__ = [
    "Span",
    "dispatch_evenness",
    "dispatch_latency",
    "latency_over_time",
    "loop_times",
    "over_time",
    "peer_tools",
    "rate_sweep",
    "send_lag",
    "stall",
    "timeline",
    "worker_scaling",
]
