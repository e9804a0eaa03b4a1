"""Who may do what: tokens with roles, and the sessions of browsers and of clients that log in."""
