"""Runnable examples of databand."""

__version__ = "2.0.0"
