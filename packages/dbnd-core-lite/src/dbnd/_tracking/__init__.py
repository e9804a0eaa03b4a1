"""The tracking client: it keeps events, and delivers them in the background."""
