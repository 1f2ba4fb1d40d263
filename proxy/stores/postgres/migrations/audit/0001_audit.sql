CREATE TABLE penstock_audit (
    number     BIGINT PRIMARY KEY,
    at_us      BIGINT NOT NULL,
    actor      TEXT   NOT NULL,
    role       TEXT   NOT NULL,
    act        TEXT   NOT NULL,
    outcome    TEXT   NOT NULL,
    subject    TEXT   NOT NULL,
    changes    TEXT   NOT NULL,
    request_id TEXT,
    peer       TEXT,
    account    TEXT,
    begun      BIGINT,
    previous   TEXT   NOT NULL,
    hash       TEXT   NOT NULL
);

-- The last entry's number and hash, beside the entries; and whose they are. Who adds an entry locks it.
CREATE TABLE penstock_audit_head (
    one          INTEGER PRIMARY KEY CHECK (one = 1),
    installation TEXT    NOT NULL,
    number       BIGINT  NOT NULL,
    hash         TEXT    NOT NULL
);

CREATE INDEX penstock_audit_by_account ON penstock_audit (account, number) WHERE account IS NOT NULL;

CREATE FUNCTION penstock_audit_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit log is only added to';
END;
$$;

CREATE FUNCTION penstock_audit_goes_on() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT 1 FROM penstock_audit_head WHERE NEW.number = number + 1 AND NEW.previous = hash) THEN
        RAISE EXCEPTION 'an entry of the audit log comes behind the last one';
    END IF;
    RETURN NEW;
END;
$$;

CREATE FUNCTION penstock_audit_head_goes_on() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.one <> OLD.one OR NEW.installation <> OLD.installation OR NEW.number <> OLD.number + 1
        OR NOT EXISTS (SELECT 1 FROM penstock_audit WHERE number = NEW.number AND hash = NEW.hash)
    THEN
        RAISE EXCEPTION 'the head of the audit log follows its last entry';
    END IF;
    RETURN NEW;
END;
$$;

CREATE TRIGGER only_added_to BEFORE UPDATE OR DELETE ON penstock_audit
    FOR EACH ROW EXECUTE FUNCTION penstock_audit_refuse();
CREATE TRIGGER not_emptied BEFORE TRUNCATE ON penstock_audit
    FOR EACH STATEMENT EXECUTE FUNCTION penstock_audit_refuse();
CREATE TRIGGER goes_on BEFORE INSERT ON penstock_audit
    FOR EACH ROW EXECUTE FUNCTION penstock_audit_goes_on();
CREATE TRIGGER goes_on BEFORE UPDATE ON penstock_audit_head
    FOR EACH ROW EXECUTE FUNCTION penstock_audit_head_goes_on();
CREATE TRIGGER stays BEFORE DELETE ON penstock_audit_head
    FOR EACH ROW EXECUTE FUNCTION penstock_audit_refuse();
CREATE TRIGGER not_emptied BEFORE TRUNCATE ON penstock_audit_head
    FOR EACH STATEMENT EXECUTE FUNCTION penstock_audit_refuse();
