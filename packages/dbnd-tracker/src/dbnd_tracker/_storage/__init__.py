"""The database: its tables, how they are written, deleted from, migrated and backed up."""
