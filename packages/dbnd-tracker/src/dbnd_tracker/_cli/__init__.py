"""The tracker's commands."""
