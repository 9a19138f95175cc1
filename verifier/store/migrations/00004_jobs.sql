-- +goose Up
-- The parts of a job that replicas share. n is -1 for the one that makes the others.
CREATE TABLE job_chunks (
    job         TEXT NOT NULL,
    n           BIGINT NOT NULL,
    machines    BIGINT NOT NULL,           -- that were judged
    finished    BIGINT NOT NULL,           -- 0: not yet
    PRIMARY KEY (job, n)
);
CREATE INDEX results_own ON results (host) WHERE machine = host;
CREATE INDEX results_outdated ON results (host) WHERE outdated > generation;

-- +goose Down
DROP INDEX results_outdated;
DROP INDEX results_own;
DROP TABLE job_chunks;
