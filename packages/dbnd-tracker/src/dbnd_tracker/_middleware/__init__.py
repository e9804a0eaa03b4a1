"""What every request passes before it is answered: access, limits, time."""
