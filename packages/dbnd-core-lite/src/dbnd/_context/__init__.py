"""What is current in the process, and what its plugins contribute."""
