"""Examples of tracking."""
