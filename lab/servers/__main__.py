"""`python -m lab.servers worker|supervisor ARGUMENTS`: how `spawn` starts processes.

A `__main__` module is the one kind that multiprocessing does not import again in each process of a pool.
"""

import sys
from importlib import import_module

role, arguments = sys.argv[1:]
import_module(f"lab.servers.{role}").main(arguments)
