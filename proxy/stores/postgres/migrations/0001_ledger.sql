CREATE TABLE penstock_ledger (
    seq                BIGINT  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id                 TEXT    COLLATE "C" NOT NULL UNIQUE,
    started_us         BIGINT  NOT NULL,
    ended_us           BIGINT  NOT NULL,
    account            TEXT    NOT NULL,
    api                TEXT    NOT NULL,
    outcome            TEXT    NOT NULL,
    status             BIGINT  NOT NULL,
    code               TEXT,
    virtual_key        TEXT,
    route              TEXT,
    provider           TEXT,
    model              TEXT,
    streamed           BOOLEAN NOT NULL,
    attempts           BIGINT  NOT NULL,
    fell_back          BOOLEAN NOT NULL,
    input_tokens       BIGINT  NOT NULL,
    cached_tokens      BIGINT  NOT NULL,
    cache_write_tokens BIGINT  NOT NULL,
    output_tokens      BIGINT  NOT NULL,
    reasoning_tokens   BIGINT  NOT NULL,
    estimated          BOOLEAN NOT NULL,
    cost_nanousd       BIGINT  NOT NULL,
    cost_source        TEXT    NOT NULL,
    saved_nanousd      BIGINT  NOT NULL,
    baseline_nanousd   BIGINT,
    cache              TEXT    NOT NULL,
    first_event_ms     DOUBLE PRECISION,
    total_ms           DOUBLE PRECISION NOT NULL,
    request_id         TEXT,
    tags               TEXT    NOT NULL
);

-- Pages by time; and spend by window, which it answers without touching the rows.
CREATE INDEX penstock_ledger_by_time ON penstock_ledger (started_us, id, account, virtual_key, cost_nanousd);
CREATE INDEX penstock_ledger_by_account ON penstock_ledger (account, started_us, id, cost_nanousd);
CREATE INDEX penstock_ledger_by_virtual_key ON penstock_ledger (virtual_key, started_us, cost_nanousd) WHERE virtual_key IS NOT NULL;
CREATE INDEX penstock_ledger_by_request_id ON penstock_ledger (request_id) WHERE request_id IS NOT NULL;

CREATE TABLE penstock_rollup (
    account               TEXT    NOT NULL,
    day                   BIGINT  NOT NULL,
    dimension             TEXT    NOT NULL,
    value                 TEXT    NOT NULL,
    calls                 BIGINT  NOT NULL,
    failed                BIGINT  NOT NULL,
    refused               BIGINT  NOT NULL,
    cancelled             BIGINT  NOT NULL,
    fallbacks             BIGINT  NOT NULL,
    cache_lookups         BIGINT  NOT NULL,
    cache_hits            BIGINT  NOT NULL,
    estimated             BIGINT  NOT NULL,
    unpriced              BIGINT  NOT NULL,
    input_tokens          BIGINT  NOT NULL,
    cached_tokens         BIGINT  NOT NULL,
    cache_write_tokens    BIGINT  NOT NULL,
    output_tokens         BIGINT  NOT NULL,
    reasoning_tokens      BIGINT  NOT NULL,
    cost_nanousd          BIGINT  NOT NULL,
    saved_nanousd         BIGINT  NOT NULL,
    baseline_nanousd      BIGINT  NOT NULL,
    baseline_cost_nanousd BIGINT  NOT NULL,
    generated_tokens      BIGINT  NOT NULL,
    generating_ms         BIGINT  NOT NULL,
    first_event           BYTEA   NOT NULL,
    total                 BYTEA   NOT NULL,
    PRIMARY KEY (account, day, dimension, value)
) WITH (fillfactor = 70);  -- room on its page for the next version of a row: the day's are updated all day
