"""How dbnd speaks: to terminals, and to notebooks."""
