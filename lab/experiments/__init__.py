"""One module per notebook: what the reader may set, the conditions that follow, what the data says."""
