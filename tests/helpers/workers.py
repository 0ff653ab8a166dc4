"""What is done to workers, and what they do to themselves."""

import os
import signal
from collections.abc import Callable

from lab.servers import Server

Sabotage = Callable[[str], None]

DIES = "import os; os.write(2, b'no luck today\\n'); os._exit(3)"
DIES_ONCE = f"import os; os.truncate(os.environ['PYTHONPATH'] + '/code', 0); {DIES}"
HANGS = "import time; time.sleep(600)"


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def replaced(server: Server, pid: int, count: int = 1) -> bool:
    workers = server.workers
    return pid not in workers and len(workers) == count
