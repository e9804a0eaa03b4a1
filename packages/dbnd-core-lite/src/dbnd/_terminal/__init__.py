"""What ``dbnd`` shows on a terminal: the live block of a run, its summary, and the text that both are made of."""
