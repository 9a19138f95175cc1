package eventlog_test

import (
	"bytes"
	"testing"

	oracle "github.com/google/go-attestation/attest"

	"virt-attest/attest"
	"virt-attest/attest/measurement/eventlog"
)

func TestParse_reads_the_same_events_as_an_independent_parser(t *testing.T) {
	compared := 0
	for name, m := range recorded(t) {
		other, err := oracle.ParseEventLog(m.Boot)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		log, err := eventlog.Parse(m.Boot)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for _, h := range other.Algs {
			want := other.Events(h)
			for _, e := range log.Events() {
				if e.UntrustedType() == eventlog.NoAction {
					continue
				}
				if len(want) == 0 {
					t.Fatalf("%s %v: event %d is one too many", name, h, e.Index())
				}
				w := want[0]
				if w.Index != int(e.PCR()) || !bytes.Equal(w.Data, e.RawData()) || uint32(w.Type) != uint32(e.UntrustedType()) ||
					!bytes.Equal(w.Digest, e.ReplayedDigest(attest.Alg(h))) {
					t.Errorf("%s %v event %d: %+v, the other parser reads %+v", name, h, e.Index(), e, w)
				}
				want = want[1:]
				compared++
			}
			if len(want) != 0 {
				t.Errorf("%s %v: %d events are missing", name, h, len(want))
			}
		}
	}
	if compared < 100 {
		t.Errorf("only %d events compared", compared)
	}
}
