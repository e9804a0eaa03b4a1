"""What clients of the original tracker ask for, apart from our own API."""
