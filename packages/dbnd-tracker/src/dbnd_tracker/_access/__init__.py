"""Who may speak to the tracker, and do what: hosts, callers, their tokens, roles and guesses."""
