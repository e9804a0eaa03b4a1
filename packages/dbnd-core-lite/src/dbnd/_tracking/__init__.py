"""The durable tracking client: journal, sender, transports and the wire calls."""
