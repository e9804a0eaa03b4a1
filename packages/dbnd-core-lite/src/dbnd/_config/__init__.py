"""The configuration: its layers, its sections, and where each value came from."""
