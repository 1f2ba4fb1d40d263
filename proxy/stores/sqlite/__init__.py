"""SQLite: the embedded default. Several processes of one machine may share a file; a network file system may not hold it."""
