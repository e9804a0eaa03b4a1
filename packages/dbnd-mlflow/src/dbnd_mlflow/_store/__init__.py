"""The composite store: the user's own MLflow store, with what is written to it reported."""
