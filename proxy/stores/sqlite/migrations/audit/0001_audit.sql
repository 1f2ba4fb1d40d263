CREATE TABLE audit (
    number     INTEGER PRIMARY KEY,
    at_us      INTEGER NOT NULL,
    actor      TEXT    NOT NULL,
    role       TEXT    NOT NULL,
    act        TEXT    NOT NULL,
    outcome    TEXT    NOT NULL,
    subject    TEXT    NOT NULL,
    changes    TEXT    NOT NULL,
    request_id TEXT,
    peer       TEXT,
    account    TEXT,
    begun      INTEGER,
    previous   TEXT    NOT NULL,
    hash       TEXT    NOT NULL
);

-- The last entry's number and hash, beside the entries; and whose they are.
CREATE TABLE audit_head (
    one          INTEGER PRIMARY KEY CHECK (one = 1),
    installation TEXT    NOT NULL,
    number       INTEGER NOT NULL,
    hash         TEXT    NOT NULL
);

CREATE INDEX audit_by_account ON audit (account, number) WHERE account IS NOT NULL;

CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit
BEGIN
    SELECT raise(ABORT, 'the audit log is only added to');
END;

CREATE TRIGGER audit_is_not_shortened BEFORE DELETE ON audit
BEGIN
    SELECT raise(ABORT, 'the audit log is only added to');
END;

-- INSERT OR REPLACE would delete a row without the trigger above.
CREATE TRIGGER audit_goes_on BEFORE INSERT ON audit
WHEN NOT EXISTS (SELECT 1 FROM audit_head WHERE NEW.number = number + 1 AND NEW.previous = hash)
BEGIN
    SELECT raise(ABORT, 'an entry of the audit log comes behind the last one');
END;

CREATE TRIGGER audit_head_goes_on BEFORE UPDATE ON audit_head
WHEN NEW.one <> OLD.one OR NEW.installation <> OLD.installation OR NEW.number <> OLD.number + 1
    OR NOT EXISTS (SELECT 1 FROM audit WHERE audit.number = NEW.number AND audit.hash = NEW.hash)
BEGIN
    SELECT raise(ABORT, 'the head of the audit log follows its last entry');
END;

CREATE TRIGGER audit_head_stays BEFORE DELETE ON audit_head
BEGIN
    SELECT raise(ABORT, 'the head of the audit log stays');
END;

CREATE TRIGGER audit_has_one_head BEFORE INSERT ON audit_head
WHEN EXISTS (SELECT 1 FROM audit_head) OR EXISTS (SELECT 1 FROM audit)
BEGIN
    SELECT raise(ABORT, 'the audit log has its head');
END;
