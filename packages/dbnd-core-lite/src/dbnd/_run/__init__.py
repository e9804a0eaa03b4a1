"""Running: contexts, runs, tasks and what is logged in them."""
