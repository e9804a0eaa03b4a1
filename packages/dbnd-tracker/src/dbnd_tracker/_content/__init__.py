"""What artifacts and logs hold: opening it, and making tables, HTML and screens of it."""
