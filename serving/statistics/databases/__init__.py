"""Where statistics are kept: a SQLite file or PostgreSQL, both a `Database`.

`open_database` chooses between them by a path or a URL. Imports no other room.
"""
