"""Reading: the SQL behind the read API, the page and the terminal."""
