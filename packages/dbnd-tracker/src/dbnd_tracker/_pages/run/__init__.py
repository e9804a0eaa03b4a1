"""The page of a run, or of one of its task runs."""
