package store

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"

	"virt-attest/attest"
)

// pieces counts the rows that a log is in.
func (s *Store) pieces(t *testing.T, machine string) (n int) {
	t.Helper()
	must(t, s.one(t.Context(), opTimeout, `SELECT COUNT(*) FROM ima WHERE machine = $1`, []any{machine}, &n))
	return n
}

func fine(t *rapid.T, err error) {
	if err != nil {
		t.Fatalf("%v", err)
	}
}

// Any increments, of any sizes and with parts of the log that come again, give back the log, whatever was merged in between.
func TestLog_is_exact_whatever_pieces_it_came_in_and_however_they_were_merged(t *testing.T) {
	forEach(t, func(t *testing.T, d database) {
		s := d.open(t)
		machine := 0
		rapid.Check(t, func(rt *rapid.T) {
			machine++
			vm := attest.UUID{0: byte(machine >> 8), 1: byte(machine), 15: 9}.String()
			size := rapid.SampledFrom([]int{20, 300, 5000, 30000}).Draw(rt, "size of an entry, at most")
			var whole [][]byte
			had := uint64(0)
			for range rapid.IntRange(1, 60).Draw(rt, "increments") {
				from := uint64(rapid.IntRange(int(had)*3/4, int(had)).Draw(rt, "from"))
				if rapid.IntRange(0, 30).Draw(rt, "anew") == 0 {
					from = 0
				}
				fresh := rapid.IntRange(1, 4).Draw(rt, "entries")
				for range fresh {
					whole = append(whole, entry(bytes.Repeat([]byte{byte(len(whole))}, rapid.IntRange(1, size).Draw(rt, "bytes"))))
				}
				had += uint64(fresh)
				l := &attest.LogSegment{BootID: "boot", From: from, Count: had - from, TemplateHash: attest.SHA1, Data: bytes.Join(whole[from:], nil)}
				err := s.tx(t.Context(), opTimeout, func(x *tx) error {
					if _, err := x.exec(`INSERT INTO machines (machine, ek_name, boot_id, entries, revision, state) VALUES ($1, '', 'boot', 0, 1, $2) ON CONFLICT (machine) DO NOTHING`, vm, []byte{}); err != nil {
						return err
					}
					return x.putLogs([]Advance{{Machine: Machine{ID: vm, BootID: "boot", Entries: had}, Log: l}})
				})
				fine(rt, err)
				if rapid.IntRange(0, 5).Draw(rt, "merge") == 0 {
					fine(rt, s.mergeLogs(t.Context()))
				}
				end := uint64(rapid.IntRange(1, int(had)).Draw(rt, "prefix"))
				got, err := s.Log(t.Context(), vm, "boot", end)
				fine(rt, err)
				if got.Count != end || !bytes.Equal(got.Data, bytes.Join(whole[:end], nil)) {
					rt.Fatalf("%d entries of %d are wrong", end, had)
				}
			}
			fine(rt, s.mergeLogs(t.Context()))
			got, err := s.Log(t.Context(), vm, "boot", 0)
			fine(rt, err)
			all := bytes.Join(whole, nil)
			if got.Count != had || !bytes.Equal(got.Data, all) {
				rt.Fatal("the whole log is wrong")
			}
			if n := s.pieces(t, vm); n > mergeAt+2*len(all)/mergeBelow+1 {
				rt.Fatalf("%d bytes are in %d pieces", len(all), n)
			}
		})
	})
}

func TestPrune_merges_small_pieces_of_a_log(t *testing.T) {
	forEach(t, func(t *testing.T, d database) {
		s := d.open(t)
		must(t, s.PutHost(t.Context(), host("h1"), nil, ""))
		const n = 100
		for i := range uint64(n) {
			o := outcome(byte(i+1), t0)
			o.Advances = []Advance{advance(int64(i), log(i, 1), i+1)}
			must(t, s.Commit(t.Context(), o))
		}
		if got := s.pieces(t, vm1.String()); got != n {
			t.Fatalf("%d pieces", got)
		}
		must(t, s.Prune(t.Context(), Retention{Reports: 5, Evidence: 5, Age: 1 << 60}, t0))
		if got := s.pieces(t, vm1.String()); got != 1 {
			t.Errorf("%d pieces", got)
		}
		o := outcome(200, t0)
		o.Advances = []Advance{advance(n, log(n, 2), n+2)}
		must(t, s.Commit(t.Context(), o))
		l, err := s.Log(t.Context(), vm1.String(), "boot", 0)
		must(t, err)
		if l.Count != n+2 || !bytes.Equal(l.Data, log(0, n+2).Data) {
			t.Errorf("%d entries", l.Count)
		}
	})
}
