package ear_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"virt-attest/attest"
	"virt-attest/verifier/appraise"
	"virt-attest/verifier/ear"
)

func TestToken_gives_every_code_its_claims_and_affirms_none(t *testing.T) {
	for _, code := range appraise.Codes() {
		for _, layer := range []appraise.Layer{appraise.LayerVM, appraise.LayerLink, appraise.LayerHost, appraise.LayerVerifier} {
			r := appraise.Reason{Code: code, Layer: layer, Text: "because"}
			if !ear.InTable(r) {
				t.Errorf("%s has no place in the table", code)
			}
			got := checked(t, about(r))
			if got.Trusted() {
				t.Errorf("%s in layer %s: affirming", code, layer)
			}
			for name, p := range got.Parts {
				for claim, v := range p.Vector {
					if p.Status != ear.Affirming && ear.TierOf(v) == ear.Affirming {
						t.Errorf("%s in layer %s: %s affirms %s", code, layer, name, claim)
					}
				}
			}
		}
	}
}

func reason(code appraise.Code, layer appraise.Layer) appraise.Reason {
	return appraise.Reason{Code: code, Layer: layer, Text: "because"}
}

func TestToken_says_what_is_wrong_where_it_is_wrong(t *testing.T) {
	seven := uint8(7)
	for name, c := range map[string]struct {
		reason       appraise.Reason
		vm           ear.Tier
		claim        ear.Claim
		value        int8
		link, host   ear.Tier
		linkIdentity int8
	}{
		"a forged quote":      {reason(appraise.CodeQuoteSignature, appraise.LayerVM), ear.Contraindicated, ear.Executables, ear.CryptoFailed, ear.None, ear.Affirming, 0},
		"an unknown key":      {reason(appraise.CodeAKUnknown, appraise.LayerVM), ear.Contraindicated, ear.InstanceIdentity, ear.UnknownInstance, ear.None, ear.Affirming, 0},
		"an unlisted file":    {reason(appraise.CodeIMAUnlisted, appraise.LayerVM), ear.Contraindicated, ear.Executables, ear.UnknownRuntime, ear.None, ear.Affirming, 0},
		"a changed file":      {reason(appraise.CodeIMADigest, appraise.LayerVM), ear.Contraindicated, ear.Executables, ear.DeniedRuntime, ear.None, ear.Affirming, 0},
		"secure boot off":     {appraise.Reason{Code: appraise.CodePCRMismatch, Layer: appraise.LayerVM, PCR: &seven}, ear.Contraindicated, ear.Configuration, ear.UnsafeConfiguration, ear.None, ear.Affirming, 0},
		"a relayed quote":     {reason(appraise.CodeLinkHash, appraise.LayerLink), ear.Contraindicated, ear.InstanceIdentity, ear.Untrustworthy, ear.Contraindicated, ear.Affirming, ear.Untrustworthy},
		"a rollback":          {reason(appraise.CodeRollback, appraise.LayerVM), ear.Contraindicated, ear.InstanceIdentity, ear.Untrustworthy, ear.None, ear.Affirming, 0},
		"a fault of ours":     {reason(appraise.CodeInternal, appraise.LayerVerifier), ear.None, ear.Executables, ear.Malfunction, ear.None, ear.Affirming, ear.Malfunction},
		"no reference values": {reason(appraise.CodeNoReference, appraise.LayerVM), ear.None, ear.Executables, ear.NoClaim, ear.None, ear.Affirming, 0},
		"no agent":            {reason(appraise.CodeNoAgent, appraise.LayerVM), ear.None, ear.Executables, ear.NoClaim, ear.None, ear.Affirming, 0},
		"an old verdict":      {reason(appraise.CodeExpired, appraise.LayerVM), ear.None, ear.Executables, ear.NoClaim, ear.None, ear.Affirming, 0},
	} {
		got := checked(t, about(c.reason))
		vm, link := got.Parts[ear.PartVM], got.Parts[ear.PartLink]
		if vm.Status != c.vm || got.Status != c.vm || vm.Vector[c.claim] != c.value {
			t.Errorf("%s: VM %s (whole %s) with %v", name, vm.Status, got.Status, vm.Vector)
		}
		if link.Status != c.link || link.Vector[ear.InstanceIdentity] != c.linkIdentity || got.Parts[ear.PartHost].Status != c.host {
			t.Errorf("%s: link %s with %v, host %s", name, link.Status, link.Vector, got.Parts[ear.PartHost].Status)
		}
		if _, ok := vm.Vector[ear.Hardware]; ok {
			t.Errorf("%s: the vTPM is called hardware", name)
		}
	}
}

// Attack 59: a good VM hides a bad host, or the reverse.
func TestToken_never_makes_a_VM_better_than_its_host_or_its_link(t *testing.T) {
	for name, host := range map[string]appraise.Reason{
		"untrusted":    reason(appraise.CodeIMAUnlisted, appraise.LayerHost),
		"rolled back":  reason(appraise.CodeRollback, appraise.LayerHost),
		"unconfigured": reason(appraise.CodeNoReference, appraise.LayerHost),
		"silent":       reason(appraise.CodeNoAnswer, appraise.LayerHost),
		"in error":     reason(appraise.CodeInternal, appraise.LayerHost),
	} {
		got := checked(t, about(host)) // the VM's own verdict is TRUSTED
		if got.Trusted() || got.Parts[ear.PartVM].Status == ear.Affirming || got.Parts[ear.PartLink].Status == ear.Affirming {
			t.Errorf("the host is %s and the VM %+v", name, got.Parts[ear.PartVM])
		}
		if got.About == appraise.Trusted {
			t.Errorf("the host is %s and the VM's word is TRUSTED", name)
		}
	}
	if got := checked(t, about(reason(appraise.CodeIMAUnlisted, appraise.LayerVM))); got.Trusted() || got.Parts[ear.PartHost].Status != ear.Affirming {
		t.Errorf("a bad VM on a good host: %+v", got)
	}
}

func TestToken_is_affirming_when_host_link_and_VM_are(t *testing.T) {
	in := about()
	in.Nonce, in.Audience = "nonce-0001", "scheduler"
	got := checked(t, in)
	if !got.Trusted() || got.About != appraise.Trusted || len(got.Parts) != 3 {
		t.Errorf("%+v", got)
	}
	host := checked(t, ear.Input{Host: in.Host})
	if !host.Trusted() || len(host.Parts) != 1 || host.Parts[ear.PartHost].Vector[ear.Hardware] != ear.GenuineHardware {
		t.Errorf("%+v", host)
	}
}

func TestToken_shows_a_proven_link_of_a_VM_that_is_not_trusted(t *testing.T) {
	in := about(reason(appraise.CodeIMAUnlisted, appraise.LayerVM))
	in.Linked = true
	if got := checked(t, in).Parts[ear.PartLink]; got.Status != ear.Affirming {
		t.Errorf("%+v", got)
	}
	in = about(reason(appraise.CodeLinkHash, appraise.LayerLink))
	in.Linked = true
	if got := checked(t, in).Parts[ear.PartLink]; got.Status != ear.Contraindicated {
		t.Errorf("called linked, with a reason against it: %+v", got)
	}
}

func TestToken_does_not_outlive_the_verdict(t *testing.T) {
	in := about()
	in.Host.Result.Expires = now.Add(90 * time.Second)
	if got := checked(t, in); got.Expires != now.Add(90*time.Second).Unix() {
		t.Errorf("expires after %d s", got.Expires-now.Unix())
	}
	in.VM.Result.Expires = now
	got := checked(t, in)
	if got.Trusted() || got.About != appraise.Stale {
		t.Errorf("a verdict that has expired: %+v", got)
	}
}

func TestToken_calls_a_trusted_verdict_with_reasons_an_error(t *testing.T) {
	in := about()
	in.VM.Result.Reasons = []appraise.Reason{reason(appraise.CodeIMAUnlisted, appraise.LayerVM)}
	if got := checked(t, in); got.Trusted() || got.About != appraise.Error {
		t.Errorf("%+v", got)
	}
}

// A tenant holds the token: of the host it learns what it needs to decide.
func TestToken_about_a_VM_keeps_the_hosts_reasons_back(t *testing.T) {
	secret := appraise.Reason{Code: appraise.CodeIMAUnlisted, Layer: appraise.LayerHost, Text: "/root/other-tenant"}
	in := about(secret, appraise.Reason{Code: appraise.CodeHostNotTrusted, Layer: appraise.LayerHost, Text: "the host: /root/other-tenant"})
	in.VM.Result.Reasons = append(in.VM.Result.Reasons, appraise.Reason{Code: appraise.CodeHostNotTrusted, Layer: appraise.LayerVM, Text: "the host: /root/other-tenant"})
	got := checked(t, in)
	for name, p := range got.Parts {
		for _, r := range p.Details.Reasons {
			if name == ear.PartHost || strings.Contains(r.Text, "other-tenant") {
				t.Errorf("%s tells %+v", name, r)
			}
		}
	}
}

func TestToken_bounds_what_it_carries(t *testing.T) {
	many := make([]appraise.Reason, 500)
	for i := range many {
		many[i] = appraise.Reason{Code: appraise.CodeIMAUnlisted, Layer: appraise.LayerVM, Text: strings.Repeat("\x01é", 5000)}
	}
	vm := checked(t, about(many...)).Parts[ear.PartVM].Details
	if len(vm.Reasons) != ear.MaxReasons || vm.More != 500-ear.MaxReasons || len(vm.Reasons[0].Text) > ear.MaxText {
		t.Errorf("%d reasons of %d bytes, and %d more", len(vm.Reasons), len(vm.Reasons[0].Text), vm.More)
	}
}

func TestToken_refuses_what_would_make_a_wrong_token(t *testing.T) {
	for name, c := range map[string]struct {
		change func(in *ear.Input)
		want   error
	}{
		"a short nonce":       {func(in *ear.Input) { in.Nonce = "1234567" }, ear.ErrNonce},
		"a long nonce":        {func(in *ear.Input) { in.Nonce = strings.Repeat("a", 89) }, ear.ErrNonce},
		"a nonce with spaces": {func(in *ear.Input) { in.Nonce = "abc defghi" }, ear.ErrNonce},
		"a long audience":     {func(in *ear.Input) { in.Audience = strings.Repeat("a", 257) }, ear.ErrAudience},
		"another host":        {func(in *ear.Input) { in.VM.Result.Host = "else" }, nil},
		"no host":             {func(in *ear.Input) { in.Host.Result.Host, in.VM.Result.Host = "", "" }, nil},
		"a VM as host":        {func(in *ear.Input) { in.Host = *in.VM }, nil},
		"a host as VM":        {func(in *ear.Input) { in.VM.Result.UUID = attest.UUID{} }, nil},
		"too many policies":   {func(in *ear.Input) { in.VM.Policies = make([]string, 9) }, nil},
	} {
		in := about()
		c.change(&in)
		token, err := issuer.Token(keys(t), in, now)
		if err == nil || token != "" || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	long := issuer
	long.Lifetime = 25 * time.Hour
	if _, err := long.Token(keys(t), about(), now); err == nil {
		t.Error("a token for longer than a day")
	}
}
