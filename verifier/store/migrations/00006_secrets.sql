-- +goose Up
-- Secrets for VMs, encrypted under a key that is not in the database (verifier/vault).
CREATE TABLE secrets (
    tenant      TEXT NOT NULL,             -- '' for VMs of all
    name        TEXT NOT NULL,
    size        BIGINT NOT NULL,           -- of the value
    key_id      TEXT NOT NULL,
    data        BYTEA NOT NULL,
    version     BIGINT NOT NULL,           -- counts values
    author      TEXT NOT NULL,
    created     BIGINT NOT NULL,
    modified    BIGINT NOT NULL,
    PRIMARY KEY (tenant, name)
);

-- Which VMs they are released to. A VM has one secret of a name.
CREATE TABLE machine_secrets (
    machine     TEXT NOT NULL,
    name        TEXT NOT NULL,
    tenant      TEXT NOT NULL,
    PRIMARY KEY (machine, name)
);
CREATE INDEX machine_secrets_secret ON machine_secrets (tenant, name);

-- +goose Down
DROP TABLE machine_secrets;
DROP TABLE secrets;
