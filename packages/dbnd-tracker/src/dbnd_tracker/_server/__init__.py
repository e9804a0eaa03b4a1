"""The server: the application, its processes and connections, and what they tell of themselves."""
