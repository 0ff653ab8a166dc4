"""Plan trials, measure those not yet on disk, and keep them."""
