package vectors

import (
	"bytes"
	"testing"
	"time"

	"virt-attest/attest"
	"virt-attest/attest/binding"
	"virt-attest/internal/softhost"
)

// host has small evidence: PCRs 0-2 and 10 only where SEPA allows, a short log.
func host() *softhost.Host {
	h := softhost.New("vectors", 3)
	h.IMA.Data, h.IMA.Count = h.IMA.Data[:8], 1
	h.Banks[0].PCRs = h.Banks[0].PCRs[8:11]
	for _, vm := range h.VMs {
		vm.IMA.Data, vm.IMA.Count = vm.IMA.Data[:8], 1
	}
	return h
}

func exact(h *softhost.Host) *attest.Challenge {
	return h.Challenge(attest.SchemeSEPAExact, h.VMs[0])
}

func cbor(t *testing.T, ev *attest.Evidence) []byte {
	t.Helper()
	b, err := ev.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func encodings(t *testing.T) []encodingVector {
	h := host()
	c, err := attest.EncodeChallenge(h.Challenge(attest.SchemeSEPA, h.VMs[0]))
	if err != nil {
		t.Fatal(err)
	}
	ev := cbor(t, h.Answer(h.Challenge(attest.SchemeHost)))
	swapped := h.Answer(h.Challenge(attest.SchemeSEPA))
	swapped.VMs[0], swapped.VMs[1] = swapped.VMs[1], swapped.VMs[0]
	return []encodingVector{
		{"a challenge", "ok", "challenge", c},
		{"a byte behind it", "malformed", "challenge", append(bytes.Clone(c), 0)},
		{"an indefinite length", "malformed", "challenge", append(append([]byte{0xbf}, c[1:]...), 0xff)},
		{"keys out of order", "malformed", "challenge", outOfOrder(c)},
		{"the answer about a host", "ok", "evidence", ev},
		{"cut short", "malformed", "evidence", ev[:len(ev)-1]},
		{"VMs out of order", "malformed", "evidence", cbor(t, swapped)},
	}
}

// outOfOrder moves the first pair, key 1 with a byte string of 32, to the end of the map.
func outOfOrder(c []byte) []byte {
	first := 1 + 2 + 32
	return append(append([]byte{c[0]}, c[1+first:]...), c[1:1+first]...)
}

func evidences(t *testing.T) (out []evidenceVector) {
	good := true // the honest answers come first, then the attacks
	add := func(name string, now time.Time, ev *attest.Evidence, want *attest.Challenge) {
		t.Helper()
		c, err := attest.EncodeChallenge(want)
		if err != nil {
			t.Fatal(err)
		}
		v := judge(cbor(t, ev), want, now)
		if v.ok() != good {
			t.Errorf("%s: all in order: %v", name, v.ok())
		}
		v.Name, v.Now, v.Challenge, v.Evidence = name, now.Unix(), c, cbor(t, ev)
		out = append(out, v)
	}
	for _, s := range []attest.Scheme{attest.SchemeHost, attest.SchemeSEPA, attest.SchemeHYPA} {
		h := host()
		c := h.Challenge(s)
		add(s.String(), softhost.Now, h.Answer(c), c)
	}
	h := host()
	add("sepa-exact", softhost.Now, h.Answer(exact(h)), exact(h))
	round := h.Round(h.Challenge(attest.SchemeHYPA), h.Challenge(attest.SchemeSEPA, h.VMs[1]), h.Challenge(attest.SchemeHost))
	add("the second of three challenges under one host quote", softhost.Now, round[1], h.Challenge(attest.SchemeSEPA, h.VMs[1]))
	served := host()
	served.VMs[0].Serving = []attest.Software{{Name: "swtpm", Version: "0.7.1"}, {Name: "libtpms", Version: "0.9.2"}}
	only := served.Challenge(attest.SchemeSEPA, served.VMs[0])
	add("what serves a VM is named", softhost.Now, served.Answer(only), only)
	good = false
	for _, s := range []attest.Scheme{attest.SchemeSEPA, attest.SchemeSEPAExact} {
		add(s.String()+", relay attack on the VM", softhost.Now, relay(s), &relay(s).Challenge)
	}
	for _, c := range changes() {
		h := host()
		ev := h.Answer(h.Challenge(c.scheme))
		want := ev.Challenge
		c.change(h, ev, &want)
		add(c.name, softhost.Now, ev, &want)
	}
	late := h.Challenge(attest.SchemeSEPA)
	add("an answer that comes too late", softhost.Now.Add(2*time.Minute), h.Answer(late), late)
	return out
}

func (v evidenceVector) ok() bool {
	for _, kind := range v.VMs {
		if kind != "ok" {
			return false
		}
	}
	return v.Expect == "ok" && v.Host == "ok"
}

// relay is the paper's attack: VM 0 answers with the quote of a pristine copy of itself.
func relay(s attest.Scheme) *attest.Evidence {
	h := host()
	vm := h.VMs[0]
	clone, pristine := vm.TPM, vm.Banks
	vm.Banks = softhost.Banks("vectors/tampered", attest.SHA256)
	vm.Guest = func(n attest.Nonce, _ attest.Quote) (attest.Quote, []byte, []attest.PCRBank) {
		return clone.Quote(n[:], pristine), clone.AKPublic(), pristine
	}
	return h.Answer(h.Challenge(s, vm))
}

type change struct {
	name   string
	scheme attest.Scheme
	change func(h *softhost.Host, ev *attest.Evidence, want *attest.Challenge)
}

func changes() []change {
	return []change{
		{"another challenge's answer", attest.SchemeSEPA, func(_ *softhost.Host, _ *attest.Evidence, want *attest.Challenge) { want.Nonce[0] ^= 1 }},
		{"an identity exchanged (GHSA-r2h5-3hgw-8j34)", attest.SchemeSEPA, func(_ *softhost.Host, ev *attest.Evidence, _ *attest.Challenge) {
			ev.VMs[0].EKName, ev.VMs[0].EK = ev.VMs[1].EKName, ev.VMs[1].EK
		}},
		{"a VM's values changed", attest.SchemeSEPA, func(_ *softhost.Host, ev *attest.Evidence, _ *attest.Challenge) {
			ev.VMs[1].PCRs[0].PCRs[10].Value[0] ^= 1
		}},
		{"a VM asked for and left out", attest.SchemeSEPA, func(h *softhost.Host, ev *attest.Evidence, want *attest.Challenge) {
			want.VMs = []attest.UUID{h.VMs[0].UUID, h.VMs[1].UUID}
			ev.Challenge, ev.VMs = *want, ev.VMs[:1]
			resign(h, ev)
		}},
		{"a VM without a record of its quote", attest.SchemeSEPA, func(h *softhost.Host, ev *attest.Evidence, want *attest.Challenge) {
			h.VMs[2].Status = attest.VMNoRecord
			*ev = *h.Answer(want)
		}},
		{"two VMs with one vTPM", attest.SchemeHYPA, func(h *softhost.Host, ev *attest.Evidence, want *attest.Challenge) {
			h.VMs[2].TPM = h.VMs[0].TPM
			*ev = *h.Answer(want)
		}},
		{"a vPCR changed", attest.SchemeHYPA, func(_ *softhost.Host, ev *attest.Evidence, _ *attest.Challenge) {
			ev.VMs[1].PCRs[0].PCRs[10].Value[0] ^= 1
		}},
		{"a log edited", attest.SchemeHYPA, func(_ *softhost.Host, ev *attest.Evidence, _ *attest.Challenge) { ev.VMs[1].IMA.Data[0] ^= 1 }},
		{"a PCR that the host did not read", attest.SchemeHYPA, func(h *softhost.Host, ev *attest.Evidence, _ *attest.Challenge) {
			ev.VMs[1].PCRs[0].PCRs = ev.VMs[1].PCRs[0].PCRs[:23]
			resign(h, ev)
		}},
		{"a host signature that does not hold", attest.SchemeHYPA, func(_ *softhost.Host, ev *attest.Evidence, _ *attest.Challenge) { ev.Host.Quote.Signature[12] ^= 1 }},
	}
}

// resign lets the host sign whatever ev says.
func resign(h *softhost.Host, ev *attest.Evidence) {
	item := binding.Item(ev.Challenge.Scheme, ev.Challenge.Nonce, softhost.Body(ev.Challenge.Scheme, ev.VMs))
	extra := binding.Round([]attest.Digest{item})
	ev.Inclusion = binding.Include([]attest.Digest{item}, 0)
	ev.Host.Quote = h.TPM.Quote(extra[:], h.Banks)
}
