"""Runnable examples of databand."""

__version__ = "0.1.0"
