"""One module per notebook: what the reader may set, the conditions that follow, and what the data says."""
