-- Credentials of providers, sealed: see proxy/core/envelope.py. What opens them is never here.
CREATE TABLE secret (
    name       TEXT    NOT NULL PRIMARY KEY,
    version    INTEGER NOT NULL,
    key_id     TEXT    NOT NULL,
    sealed     BLOB    NOT NULL,
    created_us INTEGER NOT NULL
) WITHOUT ROWID;
-- One row: how often the table above was changed. A row's version is the change that wrote it, so none comes twice.
CREATE TABLE secret_change (
    one    INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    change INTEGER NOT NULL
);
INSERT INTO secret_change (one, change) VALUES (1, 0);
