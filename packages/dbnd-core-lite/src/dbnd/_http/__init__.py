"""HTTP to a tracker, by a client that nothing in the process patches."""
