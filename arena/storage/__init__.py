"""The SQLite store of battles and votes, the only place with SQL; knows no server and no page."""
