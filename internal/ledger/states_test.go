package ledger

import (
	"os"
	"path/filepath"
	"testing"

	"virt-attest/attest"
)

var stateA, stateB = attest.Digest{1}, attest.Digest{2}

// restores is what a sidecar does at INIT after a state was loaded.
func restores(t *testing.T, w *Writer, state attest.Digest) string {
	t.Helper()
	cause := w.Restoring(state)
	_, err := w.PowerOn(cause)
	must(t, err)
	if got := w.RolledBack() != ""; got != (cause == CauseRollback) {
		t.Errorf("after a power-on by %q RolledBack says %q", cause, w.RolledBack())
	}
	return cause
}

func TestRestoring_tells_the_last_state_from_an_earlier_one(t *testing.T) {
	boot := func(t *testing.T, w *Writer) { _, err := w.PowerOn("cold"); must(t, err) }
	for name, c := range map[string]struct {
		before func(*testing.T, *Writer)
		want   string
	}{
		"saved and restored":                 {func(t *testing.T, w *Writer) { must(t, w.Taken(stateA)) }, CauseRestore},
		"restored twice, unused in between":  {func(t *testing.T, w *Writer) { must(t, w.Taken(stateA)); restores(t, w, stateA) }, CauseRestore},
		"saved twice, unused in between":     {func(t *testing.T, w *Writer) { must(t, w.Taken(stateA)); must(t, w.Taken(stateA)) }, CauseRestore},
		"never saved here":                   {func(*testing.T, *Writer) {}, CauseArrival},
		"another one was saved here":         {func(t *testing.T, w *Writer) { must(t, w.Taken(stateB)) }, CauseArrival},
		"used since, as after a snapshot":    {func(t *testing.T, w *Writer) { must(t, w.Taken(stateA)); must(t, w.Used()) }, CauseRollback},
		"restored and used since":            {func(t *testing.T, w *Writer) { must(t, w.Taken(stateA)); restores(t, w, stateA); must(t, w.Used()) }, CauseRollback},
		"started anew since":                 {func(t *testing.T, w *Writer) { must(t, w.Taken(stateA)); boot(t, w) }, CauseRollback},
		"saved again since":                  {func(t *testing.T, w *Writer) { must(t, w.Taken(stateA)); must(t, w.Used()); must(t, w.Taken(stateB)) }, CauseRollback},
		"elsewhere since":                    {func(t *testing.T, w *Writer) { must(t, w.Taken(stateA)); restores(t, w, stateB) }, CauseRollback},
		"rolled back, and again":             {func(t *testing.T, w *Writer) { must(t, w.Taken(stateA)); must(t, w.Used()); restores(t, w, stateA) }, CauseRollback},
		"back where it is the last one once": {func(t *testing.T, w *Writer) { must(t, w.Taken(stateA)); must(t, w.Used()); must(t, w.Taken(stateA)) }, CauseRestore},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			w := open(t, dir, Options{})
			boot(t, w)
			c.before(t, w)
			back := w.RolledBack()
			for _, again := range []func(){
				func() {},
				func() { must(t, w.rotate()) },
				func() { must(t, w.Close()); w = open(t, dir, Options{}) },
				func() { must(t, w.rotate()); must(t, w.Close()); w = open(t, dir, Options{}) },
			} {
				if again(); w.Restoring(stateA) != c.want || w.RolledBack() != back {
					t.Fatalf("got %q, want %q; %q, was %q", w.Restoring(stateA), c.want, w.RolledBack(), back)
				}
			}
			restores(t, w, stateA)
			must(t, w.Close())
			if w = open(t, dir, Options{}); (w.RolledBack() != "") != (c.want == CauseRollback) {
				t.Errorf("another process says %q", w.RolledBack())
			}
			if boot(t, w); w.RolledBack() != "" {
				t.Error("a clean start does not end it")
			}
			seq, head := w.Head()
			must(t, Verify(dir, vm1, seq, head))
		})
	}
}

func TestRestoring_knows_the_newest_states_and_no_more_than_MaxTaken(t *testing.T) {
	w := open(t, t.TempDir(), Options{segmentSize: 64 << 10})
	for n := range MaxTaken + 10 {
		must(t, w.Taken(attest.Digest{byte(n), 1}))
	}
	if len(w.states.taken) != MaxTaken {
		t.Errorf("%d states are kept", len(w.states.taken))
	}
	if got := w.Restoring(attest.Digest{9, 1}); got != CauseArrival {
		t.Errorf("the 11th newest beyond the limit is %q", got)
	}
	if got := w.Restoring(attest.Digest{10, 1}); got != CauseRollback {
		t.Errorf("the oldest that is kept is %q", got)
	}
}

func TestRestoring_knows_earlier_states_in_a_damaged_store(t *testing.T) {
	dir := t.TempDir()
	w := open(t, dir, Options{})
	must(t, w.Taken(stateA))
	must(t, w.Used())
	must(t, w.Quote(quoteN(1)))
	must(t, w.Close())
	file := filepath.Join(dir, vm1.String(), segmentName(1))
	b, err := os.ReadFile(file)
	must(t, err)
	b[len(b)-100] ^= 1 // of the last line, the quote's
	must(t, os.WriteFile(file, b, 0o640))
	for range 2 {
		w = open(t, dir, Options{})
		if got := w.Restoring(stateA); got != CauseRollback {
			t.Errorf("got %q", got)
		}
		must(t, w.Close())
	}
}
