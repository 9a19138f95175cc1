package engine

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"iter"
	"time"

	"virt-attest/attest"
	"virt-attest/verifier/api"
	"virt-attest/verifier/audit"
)

// Chain makes an entry the one after prev in the audit log: what a Store is opened with. Details that the log cannot take are
// left out, and the entry says so: a change is never made without its entry.
func Chain(prev, e api.AuditEntry) api.AuditEntry {
	head, err := headOf(prev)
	if err != nil { // somebody has changed the last entry: what follows shows it too
		head = audit.Head{Seq: e.Seq - 1}
	}
	head.Seq = e.Seq - 1
	in := audit.Entry{Time: e.Time, Actor: shorten(e.Actor), Action: shorten(e.Action), Object: shorten(e.Object), Detail: e.Detail}
	out, err := audit.Next(head, in)
	if err != nil {
		in.Detail = []byte(`{"left_out":true}`)
		if in.Actor == "" {
			in.Actor = "unknown"
		}
		if out, err = audit.Next(head, in); err != nil {
			return e // without a hash, which no check takes for one
		}
	}
	return api.AuditEntry{Seq: out.Seq, Time: out.Time, Actor: out.Actor, Action: out.Action, Object: out.Object, Detail: out.Detail,
		Prev: out.Prev.String(), Hash: out.Hash.String()}
}

// shorten keeps a text within what the log takes.
func shorten(s string) string {
	if len(s) <= audit.MaxName {
		return s
	}
	return fmt.Sprintf("%.*q…", audit.MaxName/8, s)
}

func headOf(e api.AuditEntry) (audit.Head, error) {
	h := audit.Head{Seq: e.Seq}
	if e.Seq == 0 && e.Hash == "" {
		return h, nil
	}
	var err error
	h.Hash, err = digestOf(e.Hash)
	return h, err
}

func digestOf(s string) (d attest.Digest, err error) {
	b, err := hex.DecodeString(s)
	if err == nil && len(b) != len(d) {
		err = errors.New("not a SHA-256")
	}
	copy(d[:], b)
	return d, err
}

// Audit gives entries of the audit log before one (0: from the end), newest first.
func (e *Engine) Audit(ctx context.Context, who api.Caller, before int64, limit int) ([]api.AuditEntry, error) {
	if err := allTenants(who); err != nil {
		return nil, err
	}
	if before < 0 || limit < 0 {
		return nil, said(ErrInvalid, "entries are numbered from 1")
	}
	if limit == 0 {
		limit = api.DefaultPageSize
	}
	list, err := e.store.Audit(ctx, before, min(limit, api.MaxPageSize))
	if err != nil {
		return nil, fromStore(err, "the audit log")
	}
	return append([]api.AuditEntry{}, list...), nil
}

// errStop ends a walk over the log that nobody wants any more.
var errStop = errors.New("stop")

// entries walks over the log up to an entry, oldest first.
func (e *Engine) entries(ctx context.Context, last int64) iter.Seq2[audit.Entry, error] {
	return func(yield func(audit.Entry, error) bool) {
		err := e.store.EachAudit(ctx, 0, func(a api.AuditEntry) error {
			if a.Seq > last {
				return errStop
			}
			prev, err1 := digestOf(a.Prev)
			hash, err2 := digestOf(a.Hash)
			if err := errors.Join(err1, err2); err != nil {
				return &audit.Error{Kind: audit.KindMalformed, Seq: a.Seq, Text: "its hashes cannot be read"}
			}
			if !yield(audit.Entry{Seq: a.Seq, Time: a.Time, Actor: a.Actor, Action: a.Action, Object: a.Object, Detail: a.Detail, Prev: prev, Hash: hash}, nil) {
				return errStop
			}
			return nil
		})
		if err != nil && !errors.Is(err, errStop) {
			yield(audit.Entry{}, err)
		}
	}
}

// CheckAudit follows the audit log's chain to its end, and signs where that is.
func (e *Engine) CheckAudit(ctx context.Context, who api.Caller) (*api.AuditCheck, error) {
	if err := allTenants(who); err != nil {
		return nil, err
	}
	last, err := e.store.LatestAudit(ctx)
	if err != nil {
		return nil, fromStore(err, "the audit log")
	}
	head, err := audit.Verify(audit.Head{}, e.entries(ctx, last.Seq))
	c := &api.AuditCheck{OK: err == nil, Entries: head.Seq, Head: head.Hash.String()}
	var wrong *audit.Error
	switch {
	case errors.As(err, &wrong):
		c.Problem = wrong.Error()
		return c, nil
	case err != nil:
		return nil, fromStore(err, "the audit log")
	}
	c.Checkpoint, err = e.checkpoint(ctx, head)
	return c, err
}

func (e *Engine) checkpoint(ctx context.Context, head audit.Head) (string, error) {
	k, err := e.keys(ctx)
	if err != nil {
		return "", err
	}
	return audit.Sign(k, head, time.Now())
}

// ExportAudit writes the whole log, with a signed checkpoint at its end: a file that verifies without the Verifier.
func (e *Engine) ExportAudit(ctx context.Context, who api.Caller, w io.Writer) error {
	if err := allTenants(who); err != nil {
		return err
	}
	last, err := e.store.LatestAudit(ctx)
	if err != nil {
		return fromStore(err, "the audit log")
	}
	head, err := headOf(last)
	if err != nil {
		return fmt.Errorf("the audit log's last entry has no hash")
	}
	signed, err := e.checkpoint(ctx, head)
	if err != nil {
		return err
	}
	return audit.Export(w, audit.Head{}, e.entries(ctx, last.Seq), signed)
}
