package evaluate

import (
	"bytes"
	"fmt"

	"virt-attest/attest"
	"virt-attest/attest/link"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
)

// Record is what the Verifier knows of the identities in an Evidence.
type Record struct {
	HostAK   attest.Name // proven by activation for the host that the challenge went to
	Approved bool        // the host's endorsement key is accepted
	VTPMs    []VTPM      // every vTPM known by a UUID or an endorsement key of the Evidence
}

// VTPM is a virtual TPM on record.
type VTPM struct {
	EKName attest.Name
	UUID   attest.UUID
	AKName attest.Name // proven by activation; nil while only HYPA was used
	Host   string      // where it runs; "" after that host has said that it left
}

// Identity is what the record says about the machines of an Evidence.
type Identity struct {
	Host     []appraise.Reason
	VMs      map[attest.UUID][]appraise.Reason
	Unproven []attest.UUID // VMs whose attestation key is not on record, with nothing else against them
	Linked   []VTPM        // vTPMs that belong on record now, Unproven ones left out
}

// Identify compares the keys of an Evidence with the record. Only what is linked is looked at:
// where the link fails, appraisal says so.
func Identify(l *link.Linked, ev *attest.Evidence, rec Record) Identity {
	id := Identity{Host: hostIdentity(l, ev, rec), VMs: make(map[attest.UUID][]appraise.Reason)}
	for _, v := range l.VMs {
		if v.Err() != nil {
			continue
		}
		reasons := vmIdentity(v, ev.Host.ID, rec.VTPMs)
		known := proven(v, rec.VTPMs)
		switch {
		case len(reasons) > 0:
			id.VMs[v.UUID] = reasons
		case len(id.Host) > 0: // nothing is learned from a host that is not who it should be
		case !known && v.EKName == nil:
			id.VMs[v.UUID] = []appraise.Reason{unknownAK(v, "Attest the VM once by sepa, which enrols it.")}
		case !known:
			id.Unproven = append(id.Unproven, v.UUID)
		default:
			id.Linked = append(id.Linked, linked(v, ev.Host.ID, rec.VTPMs))
		}
	}
	return id
}

// Prove settles one of Unproven: with ok its TPM has opened the credential.
func (id *Identity) Prove(v link.VMLink, host string, ok bool) {
	if ok {
		id.Linked = append(id.Linked, VTPM{EKName: v.EKName, UUID: v.UUID, AKName: v.AKName, Host: host})
		return
	}
	id.VMs[v.UUID] = append(id.VMs[v.UUID], unknownAK(v, "The guest agent did not activate the credential made for its vTPM's endorsement key."))
}

func unknownAK(v link.VMLink, hint string) appraise.Reason {
	return appraise.Reason{Code: appraise.CodeAKUnknown, Layer: appraise.LayerVM, Hint: hint,
		Text: fmt.Sprintf("VM %v: nothing shows that the attestation key %v lives in this VM's vTPM", v.UUID, v.AKName)}
}

func hostIdentity(l *link.Linked, ev *attest.Evidence, rec Record) []appraise.Reason {
	if l.Host.Err != nil {
		return nil
	}
	add := func(c appraise.Code, text, hint string) []appraise.Reason {
		return []appraise.Reason{{Code: c, Layer: appraise.LayerHost, Text: text, Hint: hint}}
	}
	switch {
	case api.HostID(ev.Host.EK) != ev.Host.ID:
		return add(appraise.CodeIdentityChanged, "the endorsement key in the host's answer is not that of host "+ev.Host.ID, "")
	case len(rec.HostAK) == 0 || !bytes.Equal(l.Host.AK, rec.HostAK):
		return add(appraise.CodeAKUnknown, fmt.Sprintf("the host's quote is by key %v, which was not shown to live in its TPM", l.Host.AK),
			"Restart virt-attest-hostd: it enrols its key when it connects.")
	case !rec.Approved:
		return add(appraise.CodeUnapproved, "nobody has approved this host's TPM", "Compare ek_sha256 with what the host itself shows, then approve it (virt-attest host approve), or configure the issuer of its EK certificate.")
	}
	return nil
}

// vmIdentity holds a linked VM against the record.
func vmIdentity(v link.VMLink, host string, record []VTPM) []appraise.Reason {
	var out []appraise.Reason
	add := func(format string, args ...any) {
		out = append(out, appraise.Reason{Code: appraise.CodeIdentityChanged, Layer: appraise.LayerLink, Text: fmt.Sprintf(format, args...),
			Hint: "If the change was meant, let the other host say that the VM left (it does when the VM stops there), or make the Verifier forget the VM (DELETE /api/v1/vms/UUID)."})
	}
	for _, r := range record {
		sameEK, sameVM := v.EKName != nil && bytes.Equal(r.EKName, v.EKName), r.UUID == v.UUID
		switch {
		case v.EKName == nil && sameVM && r.Host != "" && r.Host != host:
			add("VM %v runs on host %s as far as is known, and appears on %s too", v.UUID, r.Host, host)
		case v.EKName == nil:
		case sameVM && !sameEK:
			add("VM %v had the vTPM with endorsement key %v, now it shows %v", v.UUID, r.EKName, v.EKName)
		case sameEK && !sameVM:
			add("the vTPM of VM %v (endorsement key %v) appears in VM %v", r.UUID, r.EKName, v.UUID)
		case sameEK && r.Host != "" && r.Host != host:
			add("the vTPM of VM %v runs on host %s as far as is known, and appears on %s too: one of them is a copy", v.UUID, r.Host, host)
		}
	}
	return out
}

// proven reports whether the VM's attestation key is on record for it. HYPA uses none.
func proven(v link.VMLink, record []VTPM) bool {
	if v.AKName == nil {
		return true
	}
	for _, r := range record {
		if r.UUID == v.UUID && bytes.Equal(r.AKName, v.AKName) && (v.EKName == nil || bytes.Equal(r.EKName, v.EKName)) {
			return true
		}
	}
	return false
}

func linked(v link.VMLink, host string, record []VTPM) VTPM {
	out := VTPM{EKName: v.EKName, UUID: v.UUID, AKName: v.AKName, Host: host}
	for _, r := range record {
		if r.UUID == v.UUID {
			out.EKName = r.EKName
		}
	}
	return out
}
