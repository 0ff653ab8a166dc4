"""Our own application under gunicorn, with aiohttp's worker: `gunicorn article_aiohttp:app`."""

import os

from lab.hotloop import ITERATIONS, kernel
from lab.streams import log_without_waiting
from lab.web import blocking, create_app

log_without_waiting()  # as our own workers do
app = create_app(
    blocking(
        kernel(os.environ.get("SCALING_LAB_KERNEL", "python")),
        int(os.environ.get("SCALING_LAB_ITERATIONS", ITERATIONS)),
    )
)
