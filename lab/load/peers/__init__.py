"""Peers, other load generators for comparison: those on this machine, all run and read the same way."""

from lab.load.peers.tools import TOOLS, Tool, absent, find, present, run

__all__ = ["TOOLS", "Tool", "absent", "find", "present", "run"]
