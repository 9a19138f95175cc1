-- +goose Up
-- VMs that are not TRUSTED by themselves, in the order of lists.
CREATE INDEX results_doubtful ON results (name, machine, host, state) WHERE state <> 'TRUSTED' AND machine <> host;

-- +goose Down
DROP INDEX results_doubtful;
