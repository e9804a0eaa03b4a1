"""Durable writes to the user's own MLflow store: kept in a journal while it is away, or always."""
