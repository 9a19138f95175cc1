package engine

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"maps"
	"slices"
	"strings"
	"time"

	"virt-attest/internal/channel"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
	"virt-attest/verifier/store"
)

// fingerprint tells one verdict on a machine from another one.
type fingerprint [8]byte

// told are the verdicts that a host was told of last by this replica. The cursor is a hash over them, so that a host which comes from
// another replica is not told again what it knows.
type told struct {
	cursor string
	prints map[string]fingerprint // by machine
	turn   int64                  // of the line, when they were read
	all    bool                   // these were all
}

// news is what a poll tells of verdicts.
type news struct {
	verdicts    []api.HostVerdict
	cursor      string
	begin, more bool
}

func (n *news) into(p *api.Poll) {
	if n != nil {
		p.Verdicts, p.Cursor, p.Begin, p.More = n.verdicts, n.cursor, n.begin, n.more
	}
}

// news gives the verdicts on a host's machines that are others than it knows, nil where there are none. They are display and
// advice: what cannot be read now is told later.
func (e *Engine) news(ctx context.Context, p *permit, r api.PollRequest) *news {
	if r.Verdicts == "" || !p.approved {
		return nil
	}
	was, turn := e.lines.newsOf(r.Host)
	same := was != nil && was.cursor == r.Verdicts
	if same && was.all && was.turn == turn {
		return nil
	}
	now, err := e.verdictsOn(ctx, r.Host)
	if err != nil {
		e.log.Error("a host cannot be told of its verdicts", "host", r.Host, "err", err)
		return nil
	}
	is := &told{prints: make(map[string]fingerprint, len(now)), turn: turn, all: true}
	for m, v := range now {
		is.prints[m] = v.print
	}
	if is.cursor = cursorOver(is.prints); is.cursor == r.Verdicts {
		e.lines.tell(r.Host, is)
		return nil
	}
	n, is := toTell(was, same, is, now)
	n.verdicts = e.signed(ctx, n.verdicts, now)
	e.lines.tell(r.Host, is)
	return n
}

// toTell picks what a host has to be told to come from what it knows (nothing, unless same) to what is: a part, where that is much.
func toTell(was *told, same bool, is *told, now map[string]*hostVerdict) (*news, *told) {
	n := &news{begin: !same}
	known := make(map[string]fingerprint)
	if same {
		known = maps.Clone(was.prints)
	}
	var other []string
	for m, f := range is.prints {
		if known[m] != f {
			other = append(other, m)
		}
	}
	for m := range known {
		if _, ok := is.prints[m]; !ok {
			other = append(other, m)
		}
	}
	slices.Sort(other)
	for _, m := range other[:min(len(other), api.MaxVerdicts)] {
		if v := now[m]; v != nil {
			n.verdicts, known[m] = append(n.verdicts, v.HostVerdict), v.print
		} else {
			n.verdicts = append(n.verdicts, api.HostVerdict{Machine: m})
			delete(known, m)
		}
	}
	if n.more = len(other) > api.MaxVerdicts; n.more {
		is = &told{prints: known, turn: is.turn, cursor: cursorOver(known)}
	}
	n.cursor = is.cursor
	return n, is
}

func cursorOver(prints map[string]fingerprint) string {
	h := sha256.New()
	for _, m := range slices.Sorted(maps.Keys(prints)) {
		f := prints[m]
		var size [2]byte
		binary.BigEndian.PutUint16(size[:], uint16(len(m))) //nolint:gosec // a UUID or a host ID
		_, _ = h.Write(slices.Concat(size[:], []byte(m), f[:]))
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// hostVerdict is a verdict for a host, with the record that its EAR is made of.
type hostVerdict struct {
	api.HostVerdict
	print  fingerprint
	record *store.Record
}

// verdictsOn gives the verdicts on a host and the VMs that it says it runs, by machine.
func (e *Engine) verdictsOn(ctx context.Context, host string) (map[string]*hostVerdict, error) {
	now := time.Now()
	vms, err := e.store.VMsOn(ctx, host, now)
	if err != nil {
		return nil, err
	}
	hosts, err := e.store.HostRows(ctx, []string{host}, now)
	if err != nil {
		return nil, err
	}
	out := make(map[string]*hostVerdict, len(vms)+1)
	for i := range vms {
		row := &vms[i]
		if row.Result.Report == "" {
			continue
		}
		v := &hostVerdict{HostVerdict: forHost(current(&row.Record, now)), record: &row.Record}
		if h := row.Record.Host; v.State == appraise.Trusted && h.Expires.UnixMilli() < v.Expires {
			v.Expires = h.Expires.UnixMilli() // a VM is never better than its host
		}
		out[row.UUID] = v
	}
	for i := range hosts {
		if hosts[i].Attested && hosts[i].Result.Report != "" {
			v := &hostVerdict{HostVerdict: forHost(hostResult(&hosts[i], now))}
			v.Machine = host
			out[host] = v
		}
	}
	for m, v := range out {
		v.Machine = m
		b, err := channel.Encode(v.HostVerdict)
		if err != nil {
			return nil, err
		}
		d := sha256.Sum256(b)
		copy(v.print[:], d[:])
	}
	return out, nil
}

// forHost shortens a verdict for its host.
func forHost(r appraise.Result) api.HostVerdict {
	v := api.HostVerdict{Machine: r.UUID.String(), State: r.State, Scheme: r.Scheme, Time: r.Time.UnixMilli(), Expires: r.Expires.UnixMilli(), Report: r.Report,
		EKName: r.EKName, Epoch: r.Epoch, Entries: r.Entries, RIM: r.RIM, Policy: r.Policy}
	for _, w := range r.Reasons[:min(len(r.Reasons), api.MaxHostReasons)] {
		v.Reasons = append(v.Reasons, api.HostReason{Code: w.Code, Layer: w.Layer, Text: shortened(w)})
	}
	return v
}

// shortened gives a reason's sentence, with the file that it is about, within its bound.
func shortened(w appraise.Reason) string {
	text := w.Text
	if w.Path != "" && !strings.Contains(text, w.Path) {
		text += ": " + w.Path
	}
	return strings.ToValidUTF8(text[:min(len(text), api.MaxReasonText)], "")
}

// signed gives each verdict on a VM its EAR.
func (e *Engine) signed(ctx context.Context, list []api.HostVerdict, now map[string]*hostVerdict) []api.HostVerdict {
	for i := range list {
		v := now[list[i].Machine]
		if v == nil || v.record == nil {
			continue
		}
		t, err := e.ear(ctx, v.record, "")
		if err != nil {
			e.log.Error("a verdict for a host cannot be signed", "vm", list[i].Machine, "err", err)
			continue
		}
		if len(t) <= api.MaxEAR {
			list[i].EAR = t
		}
	}
	return list
}
