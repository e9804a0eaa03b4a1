"""The language of conditions on runs, and of columns and orders of their tables."""
