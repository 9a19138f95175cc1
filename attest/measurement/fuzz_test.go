package measurement_test

import (
	"bytes"
	"errors"
	"testing"

	"virt-attest/attest"
	"virt-attest/attest/measurement"
	"virt-attest/internal/measuretest"
)

// FuzzReplay feeds lists that begin like real ones; whatever replays must be what was quoted.
func FuzzReplay(f *testing.F) {
	for _, name := range measuretest.Names() {
		f.Add(measuretest.Load(name).IMA.Data, uint8(20))
	}
	f.Add(synth("/bin/a").Data, uint8(32))
	pcrs := measuretest.Load("ima-sig").PCRs
	f.Fuzz(func(t *testing.T, list []byte, size uint8) {
		seg := attest.LogSegment{TemplateHash: attest.SHA1, Data: list}
		if size == 32 {
			seg.TemplateHash = attest.SHA256
		}
		for at := 0; at < len(list); seg.Count++ {
			n, err := measurement.NextEntry(list[at:], seg.TemplateHash.Size())
			if err != nil {
				if !errors.Is(err, measurement.ErrIncomplete) && !errors.Is(err, measurement.ErrMalformed) {
					t.Fatal(err)
				}
				break
			}
			if n <= 0 || n > measurement.MaxEntry || n > len(list)-at {
				t.Fatalf("entry of %d bytes in %d", n, len(list)-at)
			}
			at += n
		}
		for e := range measurement.Entries(seg) {
			if e.Parsed && (len(e.Path) == 0 || bytes.IndexByte(e.Path, 0) >= 0) {
				t.Fatalf("path %q", e.Path)
			}
			if back, ok := measurement.ParsePathText(e.PathText()); !ok || !bytes.Equal(back, e.Path) {
				t.Fatalf("%q is %q is %q", e.Path, e.PathText(), back)
			}
		}
		p, err := measurement.Replay(seg, measurement.State{}, pcrs, measurement.Options{AllowPadded: true})
		var e *measurement.Error
		if err != nil && !errors.As(err, &e) {
			t.Fatalf("%T: %v", err, err)
		}
		if err == nil && p.State.Count > seg.Count {
			t.Fatalf("%d of %d entries", p.State.Count, seg.Count)
		}
	})
}
