"""The pages of many runs: their table, and what compares them."""
