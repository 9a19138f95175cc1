package enforce

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"virt-attest/attest"
	"virt-attest/verifier/api"
)

// state is what a hostd leaves to the next one.
type state struct {
	Version int                      `json:"version"` // 1
	VMs     map[attest.UUID]Memory   `json:"vms"`
	Rules   map[attest.UUID]api.Rule `json:"rules"`
	Outbox  []api.Act                `json:"outbox"` // that the Verifier was not told of yet
}

func newState() *state {
	return &state{Version: 1, VMs: make(map[attest.UUID]Memory), Rules: make(map[attest.UUID]api.Rule)}
}

// readState reads the file at path. fresh: there is none, so that what runs now was not missed by a hostd before. One that cannot be
// read is an error: what it says may be all that gives a VM its network back.
func readState(path string) (s *state, fresh bool, err error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return newState(), true, nil
	}
	if err != nil {
		return nil, false, err
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, false, err
	}
	s = newState()
	if len(b) > maxFile {
		return nil, false, fmt.Errorf("%s: over %d bytes", path, maxFile)
	}
	if err := json.Unmarshal(b, s); err != nil {
		return nil, false, fmt.Errorf("%s: %w", path, err)
	}
	if s.Version != 1 || s.VMs == nil || s.Rules == nil {
		return nil, false, fmt.Errorf("%s: not a state of this program", path)
	}
	return s, false, nil
}

// write puts the state into the file at path: whole, and on disk when it returns.
func (s *state) write(path string) error {
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".state-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }()
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
