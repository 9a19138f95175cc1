-- +goose Up
-- VMs that are not TRUSTED by themselves, in the order of lists.
CREATE INDEX results_doubtful ON results (name, machine, host, state) WHERE state <> 'TRUSTED' AND machine <> host;

-- Requests with an Idempotency-Key, each written with what it made.
CREATE TABLE repeats (
    id          TEXT PRIMARY KEY,          -- SHA-256 of who asked and the key
    digest      TEXT NOT NULL,             -- of the request
    nonce       TEXT NOT NULL,             -- of the challenge that it made
    created     BIGINT NOT NULL,
    until       BIGINT NOT NULL            -- then the key is free again
);
CREATE INDEX repeats_until ON repeats (until);

-- +goose Down
DROP TABLE repeats;
DROP INDEX results_doubtful;
