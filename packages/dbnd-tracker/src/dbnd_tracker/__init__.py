"""The embedded databand tracker: the HTTP API that clients speak, its database, its web page and its commands."""

__version__ = "2.0.0"
