"""What is tracked: runs, task runs and points, and their forms on the wire."""
