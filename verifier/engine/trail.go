package engine

import (
	"encoding/json"
	"strings"
	"time"
	"unicode"

	"virt-attest/verifier/api"
	"virt-attest/verifier/store"
)

// trail is what a change leaves in the audit log and among the events, in one transaction with the change. Detail is
// never a secret.
func (e *Engine) trail(who api.Caller, action, object string, detail any, events ...api.Event) store.Trail {
	now := time.Now()
	entry := &api.AuditEntry{Time: now, Actor: who.Name, Action: action, Object: object}
	if detail != nil {
		b, err := json.Marshal(detail)
		if err != nil { // of our own making
			b, _ = json.Marshal(err.Error())
		}
		entry.Detail = b
	}
	for i := range events {
		events[i].Time = now
	}
	return store.Trail{Audit: entry, Events: events}
}

// checkText refuses what is not one line that can be shown.
func checkText(s string) error {
	if strings.ToValidUTF8(s, "") != s || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return ErrInvalid
	}
	return nil
}

// checkWord refuses what is not a word for a tenant: letters, digits and . _ -
func checkWord(s string) error {
	ok := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '_' || r == '-'
	}
	if len(s) > maxWord || strings.ContainsFunc(s, func(r rune) bool { return !ok(r) }) {
		return ErrInvalid
	}
	return nil
}
