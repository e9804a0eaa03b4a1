"""The points of metrics in the database: fresh ones as rows, older ones sealed into segments."""
