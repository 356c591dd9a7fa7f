"""What stored results are made of: one file for each kind of measurement."""
