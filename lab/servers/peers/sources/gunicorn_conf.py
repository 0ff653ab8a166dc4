"""Gunicorn's settings that its command line lacks."""

import os
from pathlib import Path

control_socket_disable = True  # all servers of a user would share one path


def post_worker_init(worker: object) -> None:
    """Tell the starter that this worker is about to accept."""
    (Path(os.environ["SCALING_LAB_WORKERS"]) / str(os.getpid())).touch()
