"""What is done to a database in time: points are sealed and archived, runs deleted, and all of it copied."""
