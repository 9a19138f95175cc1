package link

import (
	"bytes"
	"errors"
	"slices"
	"time"

	"virt-attest/attest"
	"virt-attest/attest/binding"
	"virt-attest/attest/quote"
)

// Answers checks that ev is well formed and answers the challenge want, of one of the schemes,
// before its end. The error is an *Error of KindMalformed, KindChallenge or KindExpired.
func Answers(ev *attest.Evidence, want *attest.Challenge, now time.Time, schemes ...attest.Scheme) error {
	if ev == nil || want == nil || !slices.Contains(schemes, want.Scheme) {
		return Errorf(KindMalformed, "this is verified as %v only", schemes)
	}
	if err := errors.Join(want.Check(), ev.Check()); err != nil {
		return &Error{Kind: KindMalformed, Text: "the answer is malformed", Err: err}
	}
	if !sameChallenge(&ev.Challenge, want) {
		return Errorf(KindChallenge, "this answers another challenge (nonce %x) than the one that was sent (nonce %x)", ev.Challenge.Nonce, want.Nonce)
	}
	if ev.Host.ID != want.Host {
		return Errorf(KindChallenge, "host %q answers a challenge to host %q", ev.Host.ID, want.Host)
	}
	if want.Expired(now) {
		return Errorf(KindExpired, "the answer came %v after the challenge had ended", now.Sub(time.Unix(want.NotAfter, 0)).Round(time.Second))
	}
	return nil
}

func sameChallenge(a, b *attest.Challenge) bool {
	x, err1 := attest.EncodeChallenge(a)
	y, err2 := attest.EncodeChallenge(b)
	return err1 == nil && err2 == nil && bytes.Equal(x, y)
}

// Alone checks a host's answer to a challenge of attest.SchemeHost. The caller decides whether
// Host.AK is the key that it enrolled for this host.
func Alone(ev *attest.Evidence, want *attest.Challenge, now time.Time) (*Linked, error) {
	if err := Answers(ev, want, now, attest.SchemeHost); err != nil {
		return nil, err
	}
	if len(ev.VMs) != 0 {
		return nil, Errorf(KindMalformed, "an answer about the host alone holds %d VMs", len(ev.VMs))
	}
	return Settle(VerifyHost(ev, attest.Digest{}), nil, want), nil
}

// VerifyHost checks that the host's quote binds body, what the scheme says about the VMs, to
// this challenge, among the others that the same quote answers.
func VerifyHost(ev *attest.Evidence, body attest.Digest) HostLink {
	item := binding.Item(ev.Challenge.Scheme, ev.Challenge.Nonce, body)
	extra, err := binding.Extra(ev.Inclusion, item)
	if err != nil {
		return HostLink{Err: notBound(err)}
	}
	return VerifyHostOver(ev, extra)
}

// VerifyHostOver checks the host's quote over extra.
func VerifyHostOver(ev *attest.Evidence, extra [32]byte) HostLink {
	ak, err := quote.ParseAK(ev.Host.AK)
	if err != nil {
		return HostLink{Err: err}
	}
	v, err := quote.Verify(ev.Host.Quote, ak, extra[:], ev.Host.PCRs)
	if errors.Is(err, &quote.Error{Kind: quote.KindNonce}) {
		err = notBound(err)
	}
	return HostLink{AK: ak.Name(), Quote: v, Err: err}
}

func notBound(err error) error {
	return &Error{Kind: KindComposite, Text: "the host's quote does not bind this answer: it was made for other challenges, or the answer was changed after it", Err: err}
}

// Settle draws the conclusions that are the same in every scheme: a VM asked for and left out
// fails, so does one that was not asked for; two VMs with one vTPM both fail; where the
// host does not hold, no VM does. What is not proven is cleared.
func Settle(host HostLink, vms []VMLink, want *attest.Challenge) *Linked {
	if host.Err != nil {
		host = HostLink{Err: host.Err}
	}
	vms = addMissing(vms, want)
	asked := make(map[attest.UUID]bool, len(want.VMs))
	for _, id := range want.VMs {
		asked[id] = true
	}
	seen := clones(vms)
	for i := range vms {
		v := &vms[i]
		switch {
		case host.Err != nil:
			*v = VMLink{UUID: v.UUID, QuoteErr: v.QuoteErr, LinkErr: &Error{Kind: KindHost, Text: "the host's own quote does not hold, so nothing is known of its VMs", Err: host.Err}}
		case len(want.VMs) != 0 && !asked[v.UUID]:
			*v = VMLink{UUID: v.UUID, LinkErr: Errorf(KindUnasked, "VM %v stands in the answer, but was not asked for", v.UUID)}
		case v.LinkErr == nil:
			v.LinkErr = cloneError(*v, seen)
		}
	}
	for i := range vms {
		if vms[i].Err() != nil {
			vms[i].Quote, vms[i].Banks = nil, nil
		}
	}
	return &Linked{Scheme: want.Scheme, Host: host, VMs: vms}
}

func addMissing(vms []VMLink, want *attest.Challenge) []VMLink {
	there := make(map[attest.UUID]bool, len(vms))
	for _, v := range vms {
		there[v.UUID] = true
	}
	for _, id := range want.VMs {
		if !there[id] {
			vms = append(vms, VMLink{UUID: id, LinkErr: Errorf(KindMissing, "VM %v was asked for, and the host's answer leaves it out", id)})
		}
	}
	slices.SortFunc(vms, func(a, b VMLink) int { return a.UUID.Compare(b.UUID) })
	return vms
}

// clones counts the names of vTPM keys. One vTPM in two VMs is a copy: neither is the one that was
// enrolled for sure. An attestation key counts only for a VM that has shown to hold it: a guest that sends
// another VM's key hurts itself alone.
func clones(vms []VMLink) map[string]int {
	seen := make(map[string]int, 2*len(vms))
	for _, v := range vms {
		if v.Status == attest.VMQuoted && len(v.EKName) != 0 {
			seen[string(v.EKName)]++
		}
		if v.Status == attest.VMQuoted && v.Err() == nil && len(v.AKName) != 0 {
			seen[string(v.AKName)]++
		}
	}
	return seen
}

func cloneError(v VMLink, seen map[string]int) error {
	for _, n := range []attest.Name{v.EKName, v.AKName} {
		if len(n) != 0 && seen[string(n)] > 1 {
			return Errorf(KindClone, "VM %v has the same vTPM key (%v) as another VM of this host: one of them is a copy", v.UUID, n)
		}
	}
	return nil
}

// CheckEK checks that the endorsement key that came with a VM is the one whose name the host signed.
func CheckEK(vm *attest.VMEvidence) error {
	if name, err := quote.NameOf(vm.EK); err != nil || !bytes.Equal(name, vm.EKName) {
		return Errorf(KindIdentity, "VM %v: the endorsement key in the answer is not the one that the host read from the vTPM", vm.UUID)
	}
	return nil
}
