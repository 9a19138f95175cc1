-- +goose Up
CREATE TABLE hosts (
    id          TEXT PRIMARY KEY,          -- api.HostID of ek
    name        TEXT NOT NULL,             -- what the host calls itself
    client      TEXT NOT NULL,             -- common name of its client certificate, '' on a unix socket
    ek          BYTEA NOT NULL,            -- TPMT_PUBLIC
    ek_cert     BYTEA NOT NULL,            -- DER, or empty
    ak          BYTEA NOT NULL,            -- TPMT_PUBLIC, proven by activation
    ak_name     TEXT NOT NULL,             -- hexadecimal
    how         TEXT NOT NULL,             -- how the EK was approved: 'certificate', 'operator' or ''
    software    TEXT NOT NULL,             -- JSON
    first_seen  BIGINT NOT NULL,           -- Unix milliseconds, as all times here
    last_seen   BIGINT NOT NULL
);
CREATE UNIQUE INDEX hosts_client ON hosts (client) WHERE client <> '';

-- Which VMs a host says it runs: a way to find a VM's host, proof of nothing.
CREATE TABLE claims (
    uuid        TEXT NOT NULL,
    host        TEXT NOT NULL,
    name        TEXT NOT NULL,
    PRIMARY KEY (uuid, host)
);

-- Every vTPM that an approved host linked: its keys, the VM it belongs to, where it ran last.
CREATE TABLE vtpms (
    ek_name     TEXT PRIMARY KEY,
    uuid        TEXT NOT NULL UNIQUE,
    ak_name     TEXT NOT NULL,             -- proven by activation; '' while only HYPA was used
    host        TEXT NOT NULL,             -- '' when the host said that the VM left
    first_seen  BIGINT NOT NULL,
    last_seen   BIGINT NOT NULL
);

CREATE TABLE challenges (
    nonce       TEXT PRIMARY KEY,          -- hexadecimal
    host        TEXT NOT NULL,
    challenge   BYTEA NOT NULL,            -- its encoding
    not_after   BIGINT NOT NULL,
    taken       BIGINT NOT NULL            -- when the answer came; 0: not yet
);
CREATE INDEX challenges_not_after ON challenges (not_after);

-- How far each machine's measurements were replayed.
CREATE TABLE machines (
    machine     TEXT PRIMARY KEY,          -- VM UUID or host ID
    ek_name     TEXT NOT NULL,
    boot_id     TEXT NOT NULL,
    entries     BIGINT NOT NULL,           -- of the IMA log
    revision    BIGINT NOT NULL,           -- counts the writes of this row
    state       BYTEA NOT NULL             -- the appraiser's own, JSON
);

CREATE TABLE ima (
    machine       TEXT NOT NULL,
    boot_id       TEXT NOT NULL,
    first         BIGINT NOT NULL,         -- index of the first entry in data
    entries       BIGINT NOT NULL,
    template_hash BIGINT NOT NULL,         -- TPM_ALG_ID
    data          BYTEA NOT NULL,
    PRIMARY KEY (machine, boot_id, first)
);

CREATE TABLE reports (
    id          TEXT PRIMARY KEY,          -- the nonce in hexadecimal
    host        TEXT NOT NULL,
    created     BIGINT NOT NULL,
    report      BYTEA NOT NULL,            -- JSON
    evidence    BYTEA                      -- encoded, without the log entries that are in ima; NULL: none came
);
CREATE INDEX reports_host ON reports (host, created);

CREATE TABLE report_machines (
    report      TEXT NOT NULL REFERENCES reports (id) ON DELETE CASCADE,
    machine     TEXT NOT NULL,
    boot_id     TEXT NOT NULL,             -- that the report's evidence is about
    PRIMARY KEY (report, machine)
);
CREATE INDEX report_machines_machine ON report_machines (machine, boot_id);

-- The newest result of each machine on each host.
CREATE TABLE results (
    machine     TEXT NOT NULL,
    host        TEXT NOT NULL,
    report      TEXT NOT NULL,
    created     BIGINT NOT NULL,
    result      BYTEA NOT NULL,            -- JSON
    PRIMARY KEY (machine, host)
);

CREATE TABLE rims (
    name        TEXT PRIMARY KEY,
    sha256      TEXT NOT NULL,
    files       BIGINT NOT NULL,
    modified    BIGINT NOT NULL,
    data        BYTEA NOT NULL
);

CREATE TABLE assignments (
    machine     TEXT NOT NULL,
    rim         TEXT NOT NULL REFERENCES rims (name),
    PRIMARY KEY (machine, rim)
);

-- +goose Down
DROP TABLE assignments;
DROP TABLE rims;
DROP TABLE results;
DROP TABLE report_machines;
DROP TABLE reports;
DROP TABLE ima;
DROP TABLE machines;
DROP TABLE challenges;
DROP TABLE vtpms;
DROP TABLE claims;
DROP TABLE hosts;
