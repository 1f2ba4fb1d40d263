CREATE TABLE ledger (
    seq                INTEGER PRIMARY KEY AUTOINCREMENT,
    id                 TEXT    NOT NULL UNIQUE,
    started_us         INTEGER NOT NULL,
    ended_us           INTEGER NOT NULL,
    account            TEXT    NOT NULL,
    api                TEXT    NOT NULL,
    outcome            TEXT    NOT NULL,
    status             INTEGER NOT NULL,
    code               TEXT,
    virtual_key        TEXT,
    route              TEXT,
    provider           TEXT,
    model              TEXT,
    streamed           INTEGER NOT NULL,
    attempts           INTEGER NOT NULL,
    fell_back          INTEGER NOT NULL,
    input_tokens       INTEGER NOT NULL,
    cached_tokens      INTEGER NOT NULL,
    cache_write_tokens INTEGER NOT NULL,
    output_tokens      INTEGER NOT NULL,
    reasoning_tokens   INTEGER NOT NULL,
    estimated          INTEGER NOT NULL,
    cost_nanousd       INTEGER NOT NULL,
    cost_source        TEXT    NOT NULL,
    saved_nanousd      INTEGER NOT NULL,
    baseline_nanousd   INTEGER,
    cache              TEXT    NOT NULL,
    first_event_ms     REAL,
    total_ms           REAL    NOT NULL,
    request_id         TEXT,
    tags               TEXT    NOT NULL
);

-- Pages by time; and spend by window, which it answers without touching the rows.
CREATE INDEX ledger_by_time ON ledger (started_us, id, account, virtual_key, cost_nanousd);
CREATE INDEX ledger_by_account ON ledger (account, started_us, id, cost_nanousd);
CREATE INDEX ledger_by_virtual_key ON ledger (virtual_key, started_us, cost_nanousd) WHERE virtual_key IS NOT NULL;
CREATE INDEX ledger_by_request_id ON ledger (request_id) WHERE request_id IS NOT NULL;

CREATE TABLE rollup (
    account               TEXT    NOT NULL,
    day                   INTEGER NOT NULL,
    dimension             TEXT    NOT NULL,
    value                 TEXT    NOT NULL,
    calls                 INTEGER NOT NULL,
    failed                INTEGER NOT NULL,
    refused               INTEGER NOT NULL,
    cancelled             INTEGER NOT NULL,
    fallbacks             INTEGER NOT NULL,
    cache_lookups         INTEGER NOT NULL,
    cache_hits            INTEGER NOT NULL,
    estimated             INTEGER NOT NULL,
    unpriced              INTEGER NOT NULL,
    input_tokens          INTEGER NOT NULL,
    cached_tokens         INTEGER NOT NULL,
    cache_write_tokens    INTEGER NOT NULL,
    output_tokens         INTEGER NOT NULL,
    reasoning_tokens      INTEGER NOT NULL,
    cost_nanousd          INTEGER NOT NULL,
    saved_nanousd         INTEGER NOT NULL,
    baseline_nanousd      INTEGER NOT NULL,
    baseline_cost_nanousd INTEGER NOT NULL,
    generated_tokens      INTEGER NOT NULL,
    generating_ms         INTEGER NOT NULL,
    first_event           BLOB    NOT NULL,
    total                 BLOB    NOT NULL,
    PRIMARY KEY (account, day, dimension, value)
) WITHOUT ROWID;
