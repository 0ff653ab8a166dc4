"""Other people's load generators, for comparison: those on this machine, all run and read the same way."""

from lab.load.tools.known import TOOLS, absent, present
from lab.load.tools.tool import Tool, find, run

__all__ = ["TOOLS", "Tool", "absent", "find", "present", "run"]
