-- Credentials of providers, sealed: see proxy/core/envelope.py. What opens them is never here.
CREATE TABLE penstock_secret (
    name       TEXT   NOT NULL PRIMARY KEY,
    version    BIGINT NOT NULL,
    key_id     TEXT   NOT NULL,
    sealed     BYTEA  NOT NULL,
    created_us BIGINT NOT NULL
);
-- One row: how often the table above was changed. A row's version is the change that wrote it, so none comes twice.
CREATE TABLE penstock_secret_change (
    one    BIGINT NOT NULL PRIMARY KEY CHECK (one = 1),
    change BIGINT NOT NULL
);
INSERT INTO penstock_secret_change (one, change) VALUES (1, 0);
