"""PostgreSQL, by asyncpg: the extra `postgres`."""
