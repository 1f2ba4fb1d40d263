"""The life of an exchange, one module a phase; start reading at `lifecycle`. Knows ports, no technology."""
