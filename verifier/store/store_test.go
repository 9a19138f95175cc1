package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"virt-attest/attest"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
)

var (
	t0  = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	vm1 = attest.UUID{15: 1}
	vm2 = attest.UUID{15: 2}
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func is(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

func host(id string) *Host {
	return &Host{ID: id, Name: "name-" + id, EK: []byte("ek" + id), AK: []byte("ak"), AKName: attest.Name{0, 11, 1}, LastSeen: t0,
		Software: []attest.Software{{Name: "swtpm", Version: "0.7.1"}}}
}

func challenge(n byte, host string) *attest.Challenge {
	return &attest.Challenge{Nonce: attest.Nonce{n}, Scheme: attest.SchemeSEPA, Host: host, VMs: []attest.UUID{vm1}, NotAfter: t0.Unix() + 60}
}

// log makes an IMA list of n entries from index first on, in the kernel's binary form.
func log(first, n uint64) *attest.LogSegment {
	l := &attest.LogSegment{BootID: "boot", TemplateHash: attest.SHA1, From: first, Count: n}
	for i := first; i < first+n; i++ {
		l.Data = append(l.Data, entry(fmt.Appendf(nil, "entry %d", i))...)
	}
	return l
}

func entry(data []byte) []byte {
	b := append(binary.LittleEndian.AppendUint32(nil, 10), make([]byte, 20)...)
	b = append(binary.LittleEndian.AppendUint32(b, 6), "ima-ng"...)
	return append(binary.LittleEndian.AppendUint32(b, uint32(len(data))), data...)
}

func outcome(n byte, at time.Time) *Outcome {
	id := fmt.Sprintf("%02x", n)
	return &Outcome{Host: "h1", Created: at, Report: &api.Report{ID: id, Scheme: attest.SchemeSEPA,
		Host: appraise.Result{Host: "h1", State: appraise.Trusted, Report: id, Scheme: attest.SchemeSEPA},
		VMs:  []appraise.Result{{UUID: vm1, Host: "h1", State: appraise.Trusted, Report: id, Scheme: attest.SchemeSEPA}}},
		Evidence: &attest.Evidence{Version: attest.EvidenceVersion, Challenge: *challenge(n, "h1"),
			VMs: []attest.VMEvidence{{UUID: vm1, Status: attest.VMQuoted, IMA: attest.LogSegment{BootID: "boot"}}}}}
}

func advance(revision int64, l *attest.LogSegment, entries uint64) Advance {
	return Advance{Machine: Machine{ID: vm1.String(), EKName: attest.Name{1}, BootID: "boot", Entries: entries, Revision: revision, State: []byte(`{}`)}, Log: l}
}

func TestOpen_keeps_the_file_from_other_users(t *testing.T) {
	d := newSQLite(t)
	s, path := d.open(t), d.Path
	must(t, s.PutHost(t.Context(), host("h1"), nil, ""))
	for _, f := range []string{path, path + "-wal", path + "-shm"} {
		st, err := os.Stat(f)
		must(t, err)
		if st.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", f, st.Mode())
		}
	}
}

func TestPutHost_never_lets_one_client_take_another_hosts_place(t *testing.T) {
	forEach(t, func(t *testing.T, d database) {
		s := d.open(t)
		h := host("h1")
		h.Client = "cn1"
		must(t, s.PutHost(t.Context(), h, []Claim{{UUID: vm1, Name: "vm1"}}, ""))
		must(t, s.ApproveHost(t.Context(), "h1", ByOperator, Trail{}))
		other := host("h1")
		other.Client = "cn2"
		is(t, "another client for h1", s.PutHost(t.Context(), other, nil, ""), ErrConflict)
		other = host("h2")
		other.Client = "cn1"
		is(t, "h2 by h1's client", s.PutHost(t.Context(), other, nil, ""), ErrConflict)
		must(t, s.PutHost(t.Context(), h, []Claim{{UUID: vm2, Name: "vm2"}}, ""))
		s = d.reopen(t, s)
		got, err := s.HostOfClient(t.Context(), "cn1")
		must(t, err)
		if got.How != ByOperator || got.Name != "name-h1" || !got.FirstSeen.Equal(t0) || len(got.Software) != 1 || !bytes.Equal(got.AKName, h.AKName) {
			t.Errorf("%+v", got)
		}
		claims, err := s.Claims(t.Context(), "")
		must(t, err)
		if len(claims) != 1 || claims[0] != (Claim{UUID: vm2, Host: "h1", Name: "vm2"}) {
			t.Errorf("%+v", claims)
		}
		_, err = s.HostOfClient(t.Context(), "")
		is(t, "the empty client", err, ErrNotFound)
	})
}

// Attacks 5, 6 and 28: an answer counts once, in time, from its host, also over a restart.
func TestTakeChallenge_gives_each_challenge_once(t *testing.T) {
	forEach(t, func(t *testing.T, d database) {
		s := d.open(t)
		for n := byte(1); n <= 3; n++ {
			must(t, s.PutChallenge(t.Context(), &OpenChallenge{Challenge: challenge(n, "h1"), Created: t0}))
		}
		is(t, "the same nonce again", s.PutChallenge(t.Context(), &OpenChallenge{Challenge: challenge(1, "h1"), Created: t0}), ErrNonceUsed)
		take := func(n byte, host string, at time.Time) error {
			_, err := s.Take(t.Context(), attest.Nonce{n}, host, []byte{byte(at.Unix())}, "r1", time.Minute, at)
			return err
		}
		is(t, "never made", take(9, "h1", t0), ErrNonceUnknown)
		is(t, "another host", take(1, "h2", t0), ErrNonceUnknown)
		is(t, "too late", take(1, "h1", t0.Add(61*time.Second)), ErrNonceExpired)
		is(t, "in time", take(1, "h1", t0), nil)
		is(t, "again", take(1, "h1", t0), ErrInProgress)
		is(t, "again with something else", take(1, "h1", t0.Add(time.Second)), ErrNonceTaken)
		s = d.reopen(t, s)
		is(t, "again after a restart", take(1, "h1", t0), ErrInProgress)
		is(t, "another one after a restart", take(2, "h1", t0), nil)
		must(t, s.Void(t.Context(), attest.Nonce{3}, t0))
		is(t, "voided", take(3, "h1", t0), ErrNonceTaken)
	})
}

func TestCommit_stores_all_or_nothing(t *testing.T) {
	forEach(t, func(t *testing.T, d database) {
		s := d.open(t)
		is(t, "a host that was deleted", s.Commit(t.Context(), outcome(1, t0)), ErrNotFound)
		must(t, s.PutHost(t.Context(), host("h1"), nil, ""))
		must(t, s.PutHost(t.Context(), host("h2"), nil, ""))
		ok := outcome(1, t0)
		ok.VTPMs = []VTPM{{EKName: attest.Name{1}, UUID: vm1, AKName: attest.Name{2}, Host: "h1", Last: t0}}
		ok.Advances = []Advance{advance(0, log(0, 5), 4)}
		must(t, s.Commit(t.Context(), ok))

		bad := outcome(2, t0.Add(time.Second))
		bad.Advances = []Advance{advance(1, log(4, 3), 7)}
		bad.VTPMs = []VTPM{{EKName: attest.Name{9}, UUID: vm1, Host: "h1", Last: t0}} // this VM has another one
		is(t, "conflict", s.Commit(t.Context(), bad), ErrConflict)
		m, err := s.Machine(t.Context(), vm1.String())
		must(t, err)
		if m.Entries != 4 || m.Revision != 1 {
			t.Errorf("a refused commit advanced the machine: %+v", m)
		}
		_, err = s.Report(t.Context(), "02")
		is(t, "report of the refused commit", err, ErrNotFound)
	})
}

func TestCommit_refuses_a_vTPM_in_two_places(t *testing.T) {
	forEach(t, func(t *testing.T, d database) {
		s := d.open(t)
		must(t, s.PutHost(t.Context(), host("h1"), []Claim{{UUID: vm1}}, ""))
		must(t, s.PutHost(t.Context(), host("h2"), nil, ""))
		first := outcome(1, t0)
		first.VTPMs = []VTPM{{EKName: attest.Name{1}, UUID: vm1, Host: "h1", Last: t0}}
		must(t, s.Commit(t.Context(), first))
		second := func(n byte, v VTPM) error {
			o := outcome(n, t0)
			o.Host, v.Last = "h2", t0
			v.Host, o.VTPMs = "h2", []VTPM{v}
			return s.Commit(t.Context(), o)
		}
		known := VTPM{EKName: attest.Name{1}, UUID: vm1, First: t0}
		is(t, "the vTPM of h1 on h2", second(2, known), ErrConflict)
		is(t, "under another UUID", second(3, VTPM{EKName: attest.Name{1}, UUID: vm2}), ErrConflict)
		must(t, s.PutHost(t.Context(), host("h1"), nil, "")) // h1 says that the VM left
		is(t, "after it left h1", second(4, known), nil)
		must(t, s.DeleteVM(t.Context(), vm1, Trail{}))
		is(t, "an answer under way when an operator forgot the VM", second(5, known), ErrConflict)
	})
}

func TestCommit_keeps_the_later_of_two_states_when_answers_overtake_each_other(t *testing.T) {
	forEach(t, func(t *testing.T, d database) {
		s := d.open(t)
		must(t, s.PutHost(t.Context(), host("h1"), nil, ""))
		o := outcome(1, t0)
		o.Advances = []Advance{advance(0, log(0, 3), 3)}
		must(t, s.Commit(t.Context(), o))
		newer := outcome(2, t0)
		newer.Advances = []Advance{advance(1, log(3, 4), 7)}
		must(t, s.Commit(t.Context(), newer))
		older := outcome(3, t0)
		older.Advances = []Advance{advance(1, log(3, 2), 5)}
		older.Advances[0].Supersedes = func([]byte) bool { return false }
		must(t, s.Commit(t.Context(), older))
		m, err := s.Machine(t.Context(), vm1.String())
		must(t, err)
		if m.Entries != 7 || m.Revision != 2 {
			t.Errorf("%+v", m)
		}
		l, err := s.Log(t.Context(), vm1.String(), "boot", 0)
		must(t, err)
		if want := log(0, 7); l.Count != 7 || !bytes.Equal(l.Data, want.Data) {
			t.Errorf("log of %d entries", l.Count)
		}
	})
}

func TestLog_gives_any_prefix_of_increments_that_overlap(t *testing.T) {
	forEach(t, func(t *testing.T, d database) {
		s := d.open(t)
		must(t, s.PutHost(t.Context(), host("h1"), nil, ""))
		steps := []struct {
			from, count, proven uint64
		}{{0, 5, 3}, {3, 5, 8}, {6, 4, 9}, {9, 0, 9}}
		for i, st := range steps {
			o := outcome(byte(i+1), t0)
			o.Advances = []Advance{advance(int64(i), log(st.from, st.count), st.proven)}
			must(t, s.Commit(t.Context(), o))
		}
		for end := uint64(1); end <= 9; end++ {
			l, err := s.Log(t.Context(), vm1.String(), "boot", end)
			must(t, err)
			if !bytes.Equal(l.Data, log(0, end).Data) || l.Count != end {
				t.Errorf("prefix of %d entries is wrong", end)
			}
		}
		_, err := s.Log(t.Context(), vm1.String(), "boot", 10)
		is(t, "more than there is", err, ErrNotFound)
		o := outcome(9, t0)
		o.Advances = []Advance{advance(4, log(20, 2), 22)}
		is(t, "a gap", s.Commit(t.Context(), o), errGap)
	})
}

func TestPrune_keeps_the_newest_of_each_machine(t *testing.T) {
	forEach(t, func(t *testing.T, d database) {
		s := d.open(t)
		must(t, s.PutHost(t.Context(), host("h1"), nil, ""))
		for n := byte(1); n <= 9; n++ {
			must(t, s.Commit(t.Context(), outcome(n, t0.Add(time.Duration(n)*time.Minute))))
		}
		must(t, s.Prune(t.Context(), Retention{Reports: 4, Evidence: 2, Age: time.Hour}, t0.Add(10*time.Minute)))
		for n, want := range map[byte]struct{ report, evidence bool }{5: {}, 6: {true, false}, 8: {true, true}, 9: {true, true}} {
			_, err1 := s.Report(t.Context(), fmt.Sprintf("%02x", n))
			_, err2 := s.Evidence(t.Context(), fmt.Sprintf("%02x", n))
			if (err1 == nil) != want.report || (err2 == nil) != want.evidence {
				t.Errorf("report %d: %v, %v", n, err1, err2)
			}
		}
		must(t, s.Prune(t.Context(), Retention{Reports: 4, Evidence: 2, Age: time.Hour}, t0.Add(100*time.Hour)))
		id, err := s.NewestEvidence(t.Context(), vm1.String())
		must(t, err)
		if id != "09" {
			t.Errorf("newest evidence is %q", id)
		}
	})
}

func TestDocuments_cannot_vanish_while_a_machine_needs_them(t *testing.T) {
	forEach(t, func(t *testing.T, d database) {
		s := d.open(t)
		_, err := s.PutVersion(t.Context(), NewVersion{Kind: api.DocRIM, Name: "a", SHA256: "00", Data: []byte("x"), Created: t0, Activate: true}, Trail{})
		must(t, err)
		put := func(rims ...string) error {
			return s.PutSettings(t.Context(), "m", api.Settings{RIMs: rims}, Trail{})
		}
		is(t, "an unknown name", put("b"), ErrConflict)
		must(t, put("a", "a"))
		is(t, "in use", s.DeleteDocument(t.Context(), api.DocRIM, "a", Trail{}), ErrConflict)
		list, err := s.Documents(t.Context(), api.DocRIM)
		must(t, err)
		if len(list) != 1 || len(list[0].Assigned) != 1 {
			t.Errorf("%+v", list)
		}
		must(t, put())
		must(t, s.DeleteDocument(t.Context(), api.DocRIM, "a", Trail{}))
		is(t, "deleted twice", s.DeleteDocument(t.Context(), api.DocRIM, "a", Trail{}), ErrNotFound)
	})
}

func TestStore_ends_with_its_callers_context(t *testing.T) {
	forEach(t, func(t *testing.T, d database) {
		s := d.open(t)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := s.Hosts(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
	})
}
