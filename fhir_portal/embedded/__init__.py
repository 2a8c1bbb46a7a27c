"""The embedded store: SQLite, one file, for a laptop, a demo or a small practice."""
