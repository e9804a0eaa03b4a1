"""An SQLite file, which may be deleted, renamed, replaced or written over while it is open.

SQLite then goes on with what it has open, and nobody finds what is written. Its log (``-wal``) and its index
(``-shm``) are found by name, so that those of the old file must be gone before the new one is opened, and those of the
new one must stay when the old one is closed. SQLite itself sees to neither. What is written over a file in place (see
``log``) is given a file of its own under the name, which makes it a replaced file like any other.
"""
