"""One schedule for many generators: each takes every n-th row, so together they are the schedule exactly.

Constant arrivals stay constant. A Poisson process that is dealt out in turn has Erlang gaps at
each generator, and what arrives at the server is still the one Poisson process that was asked for.
"""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Scalar = TypeVar("Scalar", bound=np.generic)


def split(rows: NDArray[Scalar], shares: int) -> list[NDArray[Scalar]]:
    """Deal rows out in turn."""
    return [rows[k::shares] for k in range(shares)]


def merge(parts: Sequence[NDArray[Scalar]]) -> NDArray[Scalar]:
    """Put dealt-out rows back in their order: the exact inverse of `split`."""
    rows = np.empty(sum(map(len, parts)), parts[0].dtype)
    for k, part in enumerate(parts):
        rows[k :: len(parts)] = part
    return rows
