-- No secret is in here: `digest` is an HMAC under a pepper that is kept elsewhere. Times are Unix seconds.
CREATE TABLE virtual_key (
    id         TEXT    NOT NULL PRIMARY KEY,
    account    TEXT    NOT NULL,
    kid        TEXT    NOT NULL,
    digest     BLOB    NOT NULL,
    old_kid    TEXT,
    old_digest BLOB,
    old_until  INTEGER,
    last       TEXT    NOT NULL,
    created_at INTEGER NOT NULL,
    revoked_at INTEGER,
    settings   TEXT    NOT NULL,
    revision   INTEGER NOT NULL UNIQUE
) STRICT, WITHOUT ROWID;

CREATE INDEX virtual_key_by_time ON virtual_key (created_at, id);
CREATE INDEX virtual_key_by_account ON virtual_key (account, created_at, id);

-- One row: how many changes there have been.
CREATE TABLE virtual_key_revision (one INTEGER NOT NULL PRIMARY KEY CHECK (one = 1), revision INTEGER NOT NULL) STRICT;
INSERT INTO virtual_key_revision (one, revision) VALUES (1, 0);
