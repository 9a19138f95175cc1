package server

import (
	"encoding/json"

	"virt-attest/attest"
	"virt-attest/verifier/api"
	"virt-attest/verifier/audit"
)

// chain makes e the audit log's entry after prev.
func chain(prev, e api.AuditEntry) api.AuditEntry {
	var head audit.Head
	head.Seq = prev.Seq
	if prev.Hash != "" {
		if err := head.Hash.UnmarshalText([]byte(prev.Hash)); err != nil {
			return e
		}
	}
	next, err := audit.Next(head, audit.Entry{Time: e.Time, Actor: e.Actor, Action: e.Action, Object: e.Object, Detail: e.Detail})
	if err != nil {
		e.Detail, _ = json.Marshal(map[string]string{"omitted": err.Error()})
		return chain(prev, e)
	}
	return api.AuditEntry{Seq: next.Seq, Time: next.Time, Actor: next.Actor, Action: next.Action, Object: next.Object, Detail: next.Detail,
		Prev: attest.Digest(next.Prev).String(), Hash: next.Hash.String()}
}
