"""What every benchmark shares."""

import pytest


@pytest.fixture(autouse=True)
def figures_on_lines_of_their_own() -> None:
    """End pytest's line of progress before a benchmark prints."""
    print()
