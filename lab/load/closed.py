"""A closed loop, to show its fault: it waits for answers, and is silent while a server stalls."""

import http.client
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from lab.durations import seconds
from lab.errors import LabError
from lab.load.outcomes import Outcome

if TYPE_CHECKING:
    import pandas as pd


def closed_loop(
    url: str, *, rate: float, duration: float | str, timeout: float | str = 30.0
) -> "pd.DataFrame":
    """Ask one thing after another at up to `rate` per second, and return request records as `attack` does.

    A request that could not leave on time is due when it leaves: that is how a closed loop forgets those that
    should have been sent meanwhile (coordinated omission, as Tene calls it). For comparison, not for
    measuring. Raises LabError if the server cannot be asked.
    """
    import numpy as np

    from lab.load.records import to_frame

    rows, timeout_s, duration_s = [], seconds(timeout), seconds(duration)
    start_s, sent_s = time.monotonic(), 0.0
    while sent_s < duration_s:
        outcome, status, size = _ask(url, timeout_s)
        end_s = time.monotonic() - start_s
        rows.append((sent_s, end_s, outcome, status, size))
        time.sleep(max(0.0, sent_s + 1 / rate - end_s))
        sent_s = time.monotonic() - start_s
    sent, end, outcomes, statuses, sizes = (np.array(column) for column in zip(*rows, strict=True))
    unknown = {"service_s": np.full(len(rows), np.nan), "worker": np.zeros(len(rows), np.int32)}
    known = {"sent_s": sent, "end_s": end, "outcome": outcomes, "status": statuses, "bytes_in": sizes}
    return to_frame(sent, known | unknown)


def _ask(url: str, timeout_s: float) -> tuple[Outcome, int, int]:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=timeout_s)
    try:
        connection.request("GET", parts.path or "/", headers={"Connection": "close"})
        answer = connection.getresponse()
        size = len(answer.read())
    except TimeoutError:
        return Outcome.TIMEOUT, 0, 0
    except (OSError, http.client.HTTPException) as error:
        raise LabError(f"cannot ask {url}: {error}; is the server running?") from None
    finally:
        connection.close()
    return (Outcome.OK if 200 <= answer.status < 400 else Outcome.HTTP_ERROR), answer.status, size
