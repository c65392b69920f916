"""What came of runs, read from their directories."""
