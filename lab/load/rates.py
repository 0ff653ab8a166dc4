"""How fast requests were really sent, beside how fast they were to be sent."""

import numpy as np
from numpy.typing import NDArray

Times = NDArray[np.float64]


def sending_ends_s(due_s: Times, sent_s: Times, ends_s: float, stopped_s: float | None = None) -> float:
    """Return until when there was time to send, 0 if nothing was sent: what rates are counted over.

    n sends span n gaps: from 0 until `ends_s`, where the next one would have been due had there been more; or
    after an interrupt at `stopped_s` until the next one would have been due, or until then if that is later:
    the generator was behind. In any case until the last send at least.
    """
    (which,) = np.nonzero(~np.isnan(sent_s))
    if not len(which):
        return 0.0
    if stopped_s is not None:
        next_s = due_s[which[-1] + 1] if which[-1] + 1 < len(due_s) else ends_s
        ends_s = min(max(next_s, stopped_s), ends_s)
    return max(ends_s, float(np.nanmax(sent_s)))
