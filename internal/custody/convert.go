package custody

import (
	"context"
	"errors"
	"fmt"
	"os"

	"virt-attest/attest"
)

// Encrypt takes a VM that is shut down into custody. Its state is encrypted by swtpm itself, is checked to be the same vTPM
// still, and only then takes the place of the one in clear. replaced accepts a state in clear of a VM that is in custody
// already. A VM without a state yet is made one in custody at its first start.
func (c *Custody) Encrypt(ctx context.Context, id attest.UUID, replaced bool) error {
	return c.convert(ctx, id, func(s *secret, v *vm, st *state, how form) error {
		switch {
		case how == encrypted && v == nil:
			return errUnknownKey
		case how == encrypted:
			return c.done(id, v)
		case how == clear && v != nil && !v.Pending && !replaced:
			return errPlanted
		}
		v = &vm{Version: version, Salt: newSalt(), Pending: how == clear}
		if err := writeJSON(c.vmFile(id), v); err != nil || how == absent {
			return err
		}
		k := s.keys(id, v.Salt)
		if err := c.swap(ctx, id, st, nil, &k); err != nil {
			return err
		}
		return c.done(id, v)
	})
}

// Decrypt gives a VM that is shut down its state in clear again.
func (c *Custody) Decrypt(ctx context.Context, id attest.UUID) error {
	return c.convert(ctx, id, func(s *secret, v *vm, st *state, how form) error {
		switch {
		case how == encrypted && v == nil:
			return errUnknownKey
		case how == clear && v != nil && !v.Pending:
			return errPlanted
		case how == encrypted:
			v.Pending = true
			if err := writeJSON(c.vmFile(id), v); err != nil {
				return err
			}
			k := s.keys(id, v.Salt)
			if err := c.swap(ctx, id, st, &k, nil); err != nil {
				return err
			}
		}
		if err := os.Remove(c.vmFile(id)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		return flushDir(c.Dir + "/vm")
	})
}

// done notes that a VM's state is encrypted, and has to be from now on.
func (c *Custody) done(id attest.UUID, v *vm) error {
	v.Pending = false
	return writeJSON(c.vmFile(id), v)
}

// convert runs change with all that it needs, while neither another conversion nor a start of the VM goes on.
func (c *Custody) convert(ctx context.Context, id attest.UUID, change func(s *secret, v *vm, st *state, how form) error) error {
	unlock, err := c.lock()
	if err != nil {
		return err
	}
	defer unlock()
	h, err := c.readHost()
	if err != nil {
		return err
	}
	s, err := h.unlock(ctx)
	if err != nil {
		return err
	}
	v, err := c.readVM(id)
	if err != nil {
		return err
	}
	st, err := c.openState(id)
	if err != nil {
		return err
	}
	if st != nil {
		defer st.close()
		release, err := st.hold()
		if err != nil {
			return err
		}
		defer release()
	}
	how, err := st.form()
	if err != nil {
		return err
	}
	return change(&s, v, st, how)
}

// swap replaces the state by one under other keys; nil stands for a state in clear.
func (c *Custody) swap(ctx context.Context, id attest.UUID, st *state, from, to *Keys) error {
	old, err := st.read()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, swtpmTime)
	defer cancel()
	w, err := c.newWorkshop(id, st.uid, st.gid)
	if err != nil {
		return err
	}
	defer w.close()
	fresh, err := w.rekey(ctx, old, from, to)
	if err != nil {
		return fmt.Errorf("custody: the state of VM %v stays as it was: %w", id, err)
	}
	return st.replace(fresh)
}
