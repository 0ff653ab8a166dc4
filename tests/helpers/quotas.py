"""Whether a CPU quota can be set on this machine, and which control groups of ours there are."""

import os
from pathlib import Path

import pytest

from lab.cpus import cpu_groups
from lab.errors import LabError
from lab.quota import new_quota


def groups() -> set[Path]:
    """Return the control groups of this package that exist, whoever made them."""
    return {group for parent in cpu_groups() for group in parent.glob("scaling-lab-*-*")}


def _possible() -> tuple[bool, bool]:
    """Return whether a quota can be set here, and whether by a control group of our own."""
    try:
        tried = new_quota(0.5)
    except LabError:
        return False, False
    made = any(f"-{os.getpid()}-" in group.name for group in groups())
    tried.close()
    return True, made


_QUOTA, _GROUP = _possible()
needs_a_quota = pytest.mark.skipif(not _QUOTA, reason="no quota can be set here")
needs_a_group = pytest.mark.skipif(not _GROUP, reason="no control group may be made here")
