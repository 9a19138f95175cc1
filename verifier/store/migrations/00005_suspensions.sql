-- +goose Up
-- Machines that operators have taken out of the schedule for a time. A row that has ended counts for nothing.
CREATE TABLE suspensions (
    machine     TEXT PRIMARY KEY,
    since       BIGINT NOT NULL,
    until       BIGINT NOT NULL,           -- 0: until somebody resumes it
    author      TEXT NOT NULL,             -- who did it
    reason      TEXT NOT NULL
);

-- +goose Down
DROP TABLE suspensions;
