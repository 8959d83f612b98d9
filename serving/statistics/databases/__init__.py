"""Where statistics are kept: a SQLite file or PostgreSQL, and the choice between them by a path or a URL."""
