"""What every request passes besides access: limits of its body, time and number, and counters."""
