"""Plan trials, measure those that are not on disk yet, and keep them."""
