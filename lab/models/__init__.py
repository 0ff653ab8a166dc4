"""What theory says, to draw beside what was measured: numbers in, numbers out."""
