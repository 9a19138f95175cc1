-- +goose Up
-- The Verifier as a service (docs/adr/0004-verifier-service.md). Times are Unix milliseconds, 0 for "not yet".

-- Numbers that grow, given out inside the transaction that uses them: events come in the order of their IDs.
CREATE TABLE counters (
    name        TEXT PRIMARY KEY,          -- 'event', 'audit', 'alert', 'generation'
    value       BIGINT NOT NULL
);
INSERT INTO counters (name, value) VALUES ('event', 0), ('audit', 0), ('alert', 0), ('generation', 1);

-- A challenge: made → delivered → taken (its evidence is stored, owner appraises it until lease) → its report is there.
DROP TABLE challenges;
CREATE TABLE challenges (
    nonce       TEXT PRIMARY KEY,          -- hexadecimal
    host        TEXT NOT NULL,
    challenge   BYTEA NOT NULL,            -- its encoding
    asked_by    TEXT NOT NULL,             -- who asked; 'host' for its own schedule
    known       BYTEA NOT NULL,            -- CBOR: each machine's record when it was made, and which VMs are expected
    created     BIGINT NOT NULL,
    not_after   BIGINT NOT NULL,
    delivered   BIGINT NOT NULL,           -- a poll took it
    taken       BIGINT NOT NULL,           -- the answer came: the nonce is spent
    owner       TEXT NOT NULL,             -- replica that appraises
    lease       BIGINT NOT NULL,           -- until when it is the owner's
    secrets     BYTEA NOT NULL,            -- JSON: SHA-256 of the credentials' contents by VM, while keys are proven
    done        BIGINT NOT NULL            -- the report is committed, or the challenge is void
);
CREATE INDEX challenges_open ON challenges (done, not_after);
CREATE INDEX challenges_host ON challenges (host, delivered) WHERE done = 0;

-- Evidence as it came, without the log entries that are in ima and the boot logs that are in boot_logs. The key is the challenge's nonce, and the report's ID.
CREATE TABLE evidence (
    report      TEXT PRIMARY KEY,
    received    BIGINT NOT NULL,
    data        BYTEA NOT NULL
);
INSERT INTO evidence (report, received, data) SELECT id, created, evidence FROM reports WHERE evidence IS NOT NULL;
ALTER TABLE reports DROP COLUMN evidence;
ALTER TABLE reports ADD COLUMN scheme BIGINT NOT NULL DEFAULT 0;
CREATE INDEX reports_created ON reports (created);

-- TCG event logs that were found in order and do not come again in the same boot. Machines that boot alike share one.
CREATE TABLE boot_data (
    sha256      TEXT PRIMARY KEY,          -- of data
    data        BYTEA NOT NULL
);
CREATE TABLE boot_logs (
    machine     TEXT NOT NULL,
    boot_id     TEXT NOT NULL,
    sha256      TEXT NOT NULL REFERENCES boot_data (sha256),
    PRIMARY KEY (machine, boot_id)
);
CREATE INDEX boot_logs_sha256 ON boot_logs (sha256);

-- Which machines a report is about, with the verdict on each and the boot that its evidence is about: JSON.
ALTER TABLE reports ADD COLUMN about BYTEA;

-- What hosts found in credentials for VMs' keys: the replica that appraises waits for it.
CREATE TABLE activations (
    nonce       TEXT PRIMARY KEY,
    items       BYTEA NOT NULL,            -- CBOR
    at          BIGINT NOT NULL
);

-- Hosts that have been given a credential and have not opened it yet.
CREATE TABLE hellos (
    client      TEXT NOT NULL,
    host        TEXT NOT NULL,
    data        BYTEA NOT NULL,            -- JSON: the host and its VMs
    secret      TEXT NOT NULL,             -- SHA-256 of the credential's content
    until       BIGINT NOT NULL,
    PRIMARY KEY (client, host)
);

CREATE TABLE enrol_tokens (
    id          TEXT PRIMARY KEY,
    name        TEXT NOT NULL,             -- of the host that it is for; '' any
    secret      TEXT NOT NULL UNIQUE,      -- SHA-256
    created     BIGINT NOT NULL,
    expires     BIGINT NOT NULL,
    used_by     TEXT NOT NULL              -- host ID; '' not yet
);

CREATE TABLE replicas (
    id          TEXT PRIMARY KEY,
    host        TEXT NOT NULL,
    version     TEXT NOT NULL,
    started     BIGINT NOT NULL,
    seen        BIGINT NOT NULL,
    hosts       BIGINT NOT NULL            -- connected to it
);

-- Which hosts were heard, where and when. A replica writes all of its own at once, every few seconds.
CREATE TABLE presence (
    host        TEXT PRIMARY KEY,
    replica     TEXT NOT NULL,
    instance    TEXT NOT NULL,             -- of the hostd that is there
    seen        BIGINT NOT NULL
);

-- Versioned documents: reference values and policies.
CREATE TABLE documents (
    kind        TEXT NOT NULL,             -- 'rim', 'policy'
    name        TEXT NOT NULL,
    active      BIGINT NOT NULL,           -- version; 0 none
    modified    BIGINT NOT NULL,
    PRIMARY KEY (kind, name)
);
CREATE TABLE doc_versions (
    kind        TEXT NOT NULL,
    name        TEXT NOT NULL,
    version     BIGINT NOT NULL,
    sha256      TEXT NOT NULL,
    size        BIGINT NOT NULL,
    files       BIGINT NOT NULL,
    author      TEXT NOT NULL,
    note        TEXT NOT NULL,
    created     BIGINT NOT NULL,
    activated   BIGINT NOT NULL,           -- last time
    data        BYTEA NOT NULL,
    PRIMARY KEY (kind, name, version)
);
CREATE INDEX doc_versions_sha256 ON doc_versions (sha256);
INSERT INTO documents (kind, name, active, modified) SELECT 'rim', name, 1, modified FROM rims;
INSERT INTO doc_versions (kind, name, version, sha256, size, files, author, note, created, activated, data)
    SELECT 'rim', name, 1, sha256, LENGTH(data), files, '', '', modified, modified, data FROM rims;

CREATE TABLE machine_rims (
    machine     TEXT NOT NULL,
    rim         TEXT NOT NULL,
    PRIMARY KEY (machine, rim)
);
CREATE INDEX machine_rims_rim ON machine_rims (rim);
INSERT INTO machine_rims (machine, rim) SELECT machine, rim FROM assignments;
DROP TABLE assignments;
DROP TABLE rims;

-- What operators have said about a machine besides its reference values.
CREATE TABLE settings (
    machine     TEXT PRIMARY KEY,
    policy      TEXT NOT NULL,             -- '' the default one
    tenant      TEXT NOT NULL
);
CREATE INDEX settings_policy ON settings (policy);
CREATE INDEX settings_tenant ON settings (tenant);

-- The newest result of each machine on each host; a host's own has host = machine. Lists read the columns, details the JSON.
-- A VM that a host says it runs and that was never attested is there too, PENDING and with an empty result.
ALTER TABLE results ADD COLUMN name TEXT NOT NULL DEFAULT '';
ALTER TABLE results ADD COLUMN tenant TEXT NOT NULL DEFAULT '';       -- settings.tenant, for lists
ALTER TABLE results ADD COLUMN state TEXT NOT NULL DEFAULT 'PENDING';
ALTER TABLE results ADD COLUMN reason TEXT NOT NULL DEFAULT '';       -- code of the first reason
ALTER TABLE results ADD COLUMN at BIGINT NOT NULL DEFAULT 0;           -- appraise.Result.Time; created is when it was committed
ALTER TABLE results ADD COLUMN expires BIGINT NOT NULL DEFAULT 0;
ALTER TABLE results ADD COLUMN since BIGINT NOT NULL DEFAULT 0;       -- when state and reasons last changed
ALTER TABLE results ADD COLUMN digest TEXT NOT NULL DEFAULT '';       -- of state and reasons: another one is a change
ALTER TABLE results ADD COLUMN generation BIGINT NOT NULL DEFAULT 0;  -- counter 'generation' before its reference values were read
ALTER TABLE results ADD COLUMN outdated BIGINT NOT NULL DEFAULT 0;    -- generation of a change that concerns it: outdated if > generation
ALTER TABLE results ADD COLUMN behind BIGINT NOT NULL DEFAULT 0;       -- 1 if outdated > generation, which no index and no statistics could tell
ALTER TABLE results ADD COLUMN lapsed BIGINT NOT NULL DEFAULT 0;      -- its expiry was told as an event
CREATE INDEX results_host ON results (host);
CREATE INDEX results_vms ON results (name, machine, host) WHERE machine <> host;
CREATE INDEX results_tenant ON results (tenant, name, machine, host) WHERE machine <> host;
CREATE INDEX results_other ON results (host) WHERE state <> 'TRUSTED';
CREATE INDEX results_lapsed ON results (host) WHERE lapsed <> 0;
CREATE INDEX results_outdated ON results (host) WHERE behind <> 0;
CREATE INDEX results_reason ON results (reason) WHERE reason <> '';
CREATE INDEX results_own ON results (host) WHERE machine = host;
CREATE INDEX claims_host ON claims (host);
CREATE INDEX claims_name ON claims (name);
CREATE INDEX vtpms_host ON vtpms (host);
ALTER TABLE hosts ADD COLUMN next_lapse BIGINT NOT NULL DEFAULT 0;    -- no TRUSTED result of the host's machines expires before
CREATE INDEX hosts_name ON hosts (name, id);

CREATE TABLE events (
    id          BIGINT PRIMARY KEY,
    at          BIGINT NOT NULL,
    kind        TEXT NOT NULL,
    machine     TEXT NOT NULL,
    host        TEXT NOT NULL,
    tenant      TEXT NOT NULL,
    data        BYTEA NOT NULL             -- JSON, api.Event
);
CREATE INDEX events_machine ON events (machine, id);
CREATE INDEX events_kind ON events (kind, id);
CREATE INDEX events_tenant ON events (tenant, id);

CREATE TABLE alerts (
    id          BIGINT PRIMARY KEY,
    code        TEXT NOT NULL,
    machine     TEXT NOT NULL,
    host        TEXT NOT NULL,
    tenant      TEXT NOT NULL,
    opened      BIGINT NOT NULL,
    last        BIGINT NOT NULL,
    times       BIGINT NOT NULL,
    acked       BIGINT NOT NULL,
    closed      BIGINT NOT NULL,
    verdict     BIGINT NOT NULL,           -- 1: comes and goes with the machine's verdict
    data        BYTEA NOT NULL             -- JSON, api.Alert: what has no column
);
CREATE UNIQUE INDEX alerts_open ON alerts (machine, code) WHERE closed = 0;
CREATE INDEX alerts_closed ON alerts (closed, id);

CREATE TABLE webhooks (
    id          TEXT PRIMARY KEY,
    cursor      BIGINT NOT NULL,           -- ID of the last event that was delivered or is not for it
    data        BYTEA NOT NULL             -- JSON: api.Webhook with its secret
);

-- Bearer tokens, browser sessions and one-time logins. Only the hash of a secret is kept.
CREATE TABLE tokens (
    id          TEXT PRIMARY KEY,
    kind        TEXT NOT NULL,             -- 'token', 'login', 'session'
    secret      TEXT NOT NULL UNIQUE,      -- SHA-256
    name        TEXT NOT NULL,
    role        TEXT NOT NULL,
    tenant      TEXT NOT NULL,
    created     BIGINT NOT NULL,
    expires     BIGINT NOT NULL,
    last_used   BIGINT NOT NULL
);

-- Keys that sign attestation results (verifier/ear).
CREATE TABLE signing_keys (
    id          TEXT PRIMARY KEY,
    data        BYTEA NOT NULL,
    created     BIGINT NOT NULL
);

CREATE TABLE audit (
    seq         BIGINT PRIMARY KEY,
    at          BIGINT NOT NULL,
    hash        TEXT NOT NULL,
    data        BYTEA NOT NULL             -- JSON, api.AuditEntry
);

-- What deferred work that somebody asked for has come to. The work itself is in River's tables.
CREATE TABLE jobs (
    id          TEXT PRIMARY KEY,          -- unguessable
    kind        TEXT NOT NULL,
    state       TEXT NOT NULL,
    done        BIGINT NOT NULL,
    total       BIGINT NOT NULL,
    error       TEXT NOT NULL,
    result      BYTEA NOT NULL,
    tenant      TEXT NOT NULL,
    created     BIGINT NOT NULL,
    finished    BIGINT NOT NULL
);

-- The parts of a job that replicas share. n is -1 for the one that makes the others.
CREATE TABLE job_chunks (
    job         TEXT NOT NULL,
    n           BIGINT NOT NULL,
    machines    BIGINT NOT NULL,           -- that were judged
    finished    BIGINT NOT NULL,           -- 0: not yet
    PRIMARY KEY (job, n)
);

-- What each replica counted in each minute.
CREATE TABLE stats (
    minute      BIGINT NOT NULL,           -- Unix minutes
    replica     TEXT NOT NULL,
    data        BYTEA NOT NULL,            -- JSON: counts and histograms
    PRIMARY KEY (minute, replica)
);

-- +goose Down
-- The tables of before cannot hold what the service has learned: restore a backup instead.
SELECT 'no way back' FROM no_way_back;
