package round_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"virt-attest/attest"
	"virt-attest/internal/agentproto"
	"virt-attest/internal/channel"
	"virt-attest/internal/sidecarproto"
	"virt-attest/verifier/host/hosttest"
	"virt-attest/verifier/host/sidecars"
)

// timed measures f.
func timed(f func()) time.Duration {
	began := time.Now()
	f()
	return time.Since(began)
}

func median(times []time.Duration) time.Duration {
	slices.Sort(times)
	return times[len(times)/2]
}

// inTurn is how many VMs take turns: a store awaits a bounded number of quotes at a time.
const inTurn = 64

// quoted makes an answer in which every VM has its quote or its vPCRs.
func quoted(b *testing.B, h *hosttest.Host, ch *attest.Challenge) {
	b.Helper()
	ev, err := h.Engine.Answer(b.Context(), ch)
	if err != nil {
		b.Fatal(err)
	}
	for _, vm := range ev.VMs {
		if vm.Status != attest.VMQuoted || vm.Problem != "" {
			b.Fatalf("status %d: %s", vm.Status, vm.Problem)
		}
	}
}

// BenchmarkSEPA compares an attestation of one VM with what it cannot do without, in one run: the
// vTPM's quote, the pTPM's quote and the round trips of the channel to the guest agent. The pTPM
// is a bare swtpm, and then one with the delay of a discrete TPM.
func BenchmarkSEPA(b *testing.B) {
	for _, delay := range []time.Duration{0, 50 * time.Millisecond} {
		b.Run(fmt.Sprintf("pTPM+%v", delay), func(b *testing.B) {
			h := hosttest.New(b)
			vms := h.StartVMs(b, inTurn)
			h.Delay.Store(int64(delay))
			must := func(err error) {
				if err != nil {
					b.Fatal(err)
				}
			}
			nonce := make([]byte, 32)
			var vtpms, ptpms, trips, answers []time.Duration
			for i := 0; b.Loop(); i++ { // in turn, so that a busy machine slows all of them alike
				vm := vms[i%inTurn]
				vtpms = append(vtpms, timed(func() { _, _, err := vm.Quote(nonce, hosttest.PCRs); must(err) }))
				ptpms = append(ptpms, timed(func() { _, _, err := h.TPM.Quote(b.Context(), [32]byte{}, nil); must(err) }))
				trips = append(trips, timed(func() {
					c, err := sidecars.Dialer{Dir: h.Path("run")}.Dial(b.Context(), vm.UUID)
					must(err)
					must(c.Agent(b.Context(), agentproto.OpHello, nil, new(agentproto.Hello)))
					c.Close()
				}))
				ch := h.Challenge(b, attest.SchemeSEPA, vm.UUID)
				answers = append(answers, timed(func() { quoted(b, h, ch) }))
			}
			vtpm, ptpm, channelTrip, sepa := median(vtpms), median(ptpms), median(trips), median(answers)
			b.ReportMetric(float64(vtpm.Microseconds()), "µs-vTPM-quote")
			b.ReportMetric(float64(ptpm.Microseconds()), "µs-pTPM-quote")
			b.ReportMetric(float64(channelTrip.Microseconds()), "µs-channel")
			b.ReportMetric(float64(sepa.Microseconds()), "µs-SEPA")
			b.ReportMetric(float64(sepa-channelTrip)/float64(vtpm+ptpm), "ratio")
		})
	}
}

// BenchmarkRound shows what more VMs cost when the TPMs' own time is left out: HYPA reads vPCRs, SEPA
// has each vTPM quote. The number of pTPM quotes is one per answer.
func BenchmarkRound(b *testing.B) {
	for _, s := range []attest.Scheme{attest.SchemeSEPA, attest.SchemeHYPA} {
		for _, n := range []int{1, 4, 16, 64, 256} {
			b.Run(fmt.Sprintf("%v/VMs=%d", s, n), func(b *testing.B) {
				h := hosttest.New(b)
				vms := h.StartVMs(b, max(n, inTurn))
				before, answers := h.Quotes.Load(), 0
				for b.Loop() {
					ch := h.Challenge(b, s)
					for i := range n {
						ch.VMs = append(ch.VMs, vms[(answers*n)%len(vms)+i].UUID)
					}
					quoted(b, h, ch)
					answers++
				}
				b.ReportMetric(float64(h.Quotes.Load()-before)/float64(answers), "pTPM-quotes/op")
				b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(answers*n), "µs/VM")
			})
		}
	}
}

// BenchmarkSidecar is one request to a sidecar on an open connection, the part of the above that is ours.
func BenchmarkSidecar(b *testing.B) {
	h := hosttest.New(b)
	vm := h.StartVMs(b, 1)[0]
	info, err := channel.Encode(sidecarproto.Info{})
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(info)))
	c, err := sidecars.Dialer{Dir: h.Path("run")}.Dial(b.Context(), vm.UUID)
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	for b.Loop() {
		if _, err := c.Info(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}
