"""The SQLite store: the only place where SQL is written."""
