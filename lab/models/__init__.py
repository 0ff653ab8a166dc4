"""What theory predicts, to draw beside what was measured: numbers in, numbers out."""
