-- No secret is in here: `digest` is an HMAC under a pepper that is kept elsewhere. Times are Unix seconds.
CREATE TABLE penstock_virtual_key (
    id         TEXT   COLLATE "C" NOT NULL PRIMARY KEY,
    account    TEXT   NOT NULL,
    kid        TEXT   NOT NULL,
    digest     BYTEA  NOT NULL,
    old_kid    TEXT,
    old_digest BYTEA,
    old_until  BIGINT,
    last       TEXT   NOT NULL,
    created_at BIGINT NOT NULL,
    revoked_at BIGINT,
    settings   TEXT   NOT NULL,
    revision   BIGINT NOT NULL UNIQUE
);

CREATE INDEX penstock_virtual_key_by_time ON penstock_virtual_key (created_at, id);
CREATE INDEX penstock_virtual_key_by_account ON penstock_virtual_key (account, created_at, id);

-- One row: how many changes there have been. Whoever changes a key holds it until the change is committed, so that changes are
-- seen in the order of their revisions.
CREATE TABLE penstock_virtual_key_revision (one BIGINT NOT NULL PRIMARY KEY CHECK (one = 1), revision BIGINT NOT NULL);
INSERT INTO penstock_virtual_key_revision (one, revision) VALUES (1, 0);
