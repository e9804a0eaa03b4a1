"""What becomes of runs in time: their points are sealed, and they are deleted."""
