"""DataFrames in, matplotlib figures out: the one style, and the figures that several parts draw."""
