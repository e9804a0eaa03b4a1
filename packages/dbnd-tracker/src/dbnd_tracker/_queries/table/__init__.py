"""The table of runs: its rows, in their order, and what stands in their cells; runs beside each other."""
