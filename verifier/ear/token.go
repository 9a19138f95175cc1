package ear

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
	"unicode/utf8"

	"virt-attest/attest"
	"virt-attest/verifier/appraise"
)

// Profile names the claims of a token (eat_profile).
const Profile = "tag:ietf.org,2026:rats/ear#04"

// TokenType is the "typ" of a token's header (RFC 9782), so that nothing else that the same key signs
// passes as one.
const TokenType = "eat+jwt"

// The parts of a token (submods).
const (
	PartHost = "host"
	PartLink = "link"
	PartVM   = "vm"
)

// Claims is the content of a token.
type Claims struct {
	Profile  string               `json:"eat_profile"`
	Issuer   string               `json:"iss,omitempty"`
	Subject  string               `json:"sub"` // the VM's UUID, or the host's ID where it is about the host alone
	Audience string               `json:"aud,omitempty"`
	ID       string               `json:"jti"`
	Issued   int64                `json:"iat"` // this and the next two: seconds since 1970
	Before   int64                `json:"nbf"`
	Expires  int64                `json:"exp"`
	Nonce    string               `json:"eat_nonce,omitempty"` // the relying party's own
	Verifier VerifierID           `json:"ear_verifier_id"`
	Status   Tier                 `json:"ear_status"`
	Parts    map[string]Appraisal `json:"submods"`
}

// VerifierID says what made the verdict.
type VerifierID struct {
	Developer string `json:"developer"`
	Build     string `json:"build"`
}

// Appraisal is one part.
type Appraisal struct {
	Status   Tier     `json:"ear_status"`
	Vector   Vector   `json:"ear_trustworthiness_vector"`
	Policies []string `json:"ear_appraisal_policy_ids,omitempty"`
	Details  Details  `json:"org.virt_attest"`
}

// Details is the private claim of virt-attest in a part. In a token about a VM the host's part names
// no reasons: a tenant learns of a host whether it is trusted, and of what kind the fault is.
type Details struct {
	Machine string         `json:"machine,omitempty"` // VM UUID or host ID
	Name    string         `json:"name,omitempty"`
	State   appraise.State `json:"state,omitempty"` // of a machine; a link has none
	Scheme  attest.Scheme  `json:"scheme,omitzero"`
	Time    int64          `json:"time,omitempty"`   // of the verdict, seconds since 1970
	Report  string         `json:"report,omitempty"` // ID of the report with the evidence
	Epoch   uint64         `json:"epoch,omitempty"`
	Reasons []Reason       `json:"reasons,omitempty"`
	More    int            `json:"more_reasons,omitempty"` // that were left out
}

// Reason is a reason in short. Text is there for VMs only.
type Reason struct {
	Code  appraise.Code  `json:"code"`
	Layer appraise.Layer `json:"layer"`
	Text  string         `json:"text,omitempty"`
}

// Machine is a verdict, with the IDs of the policy and the reference values it was made by.
type Machine struct {
	Result   appraise.Result
	Policies []string // "name@sha256:…", or what the Verifier names them by; at most MaxPolicies
}

// Input is what a token is made of.
type Input struct {
	Host     Machine
	VM       *Machine // nil: the token is about the host alone
	Linked   bool     // that VM and host belong together is proven, although the VM is not TRUSTED
	Nonce    string   // of the relying party, MinNonce to MaxNonce characters; "": none
	Audience string   // "": anybody
}

// Issuer is who makes tokens.
type Issuer struct {
	Name      string        // of this Verifier ("iss"), such as its URL; "": none
	Developer string        // of the program
	Build     string        // its version
	Lifetime  time.Duration // of a token, at most MaxLifetime; 0: DefaultLifetime
}

// ErrNonce says that a relying party's nonce has not the length or the characters of one.
var ErrNonce = fmt.Errorf("ear: a nonce has %d to %d printable ASCII characters", MinNonce, MaxNonce)

// ErrAudience says that an audience cannot be one.
var ErrAudience = fmt.Errorf("ear: an audience has at most %d bytes of UTF-8", MaxName)

// Token makes and signs a token. ErrNonce and ErrAudience are the asker's fault, every other error is
// the Verifier's.
func (i Issuer) Token(k *Keys, in Input, now time.Time) (string, error) {
	c, err := i.claims(in, now)
	if err != nil {
		return "", err
	}
	c.ID = rand.Text()
	payload, err := json.Marshal(c)
	if err != nil {
		return "", fmt.Errorf("ear: %w", err)
	}
	token, err := k.Sign(TokenType, payload, now)
	if err == nil && len(token) > MaxToken {
		return "", fmt.Errorf("ear: the token would have %d bytes", len(token))
	}
	return token, err
}

func (i Issuer) claims(in Input, now time.Time) (*Claims, error) {
	if err := in.check(); err != nil {
		return nil, err
	}
	life := i.Lifetime
	if life == 0 {
		life = DefaultLifetime
	}
	if life < time.Second || life > MaxLifetime {
		return nil, fmt.Errorf("ear: a token cannot live for %v", life)
	}
	expires := now.Add(life)
	c := &Claims{
		Profile: Profile, Issuer: i.Name, Subject: in.Host.Result.Host, Audience: in.Audience, Nonce: in.Nonce,
		Issued: now.Unix(), Before: now.Unix(), Verifier: VerifierID{i.Developer, i.Build},
	}
	host := part(&in.Host, now, &expires)
	host.Details.Machine = in.Host.Result.Host
	c.Parts = map[string]Appraisal{PartHost: host}
	c.Status = host.Status
	if in.VM != nil {
		c.Subject = in.VM.Result.UUID.String()
		vm := part(in.VM, now, &expires)
		vm.Details.Machine = c.Subject
		vm.Details.texts(&in.VM.Result)
		link := linkPart(&in, vm.Details.State)
		link.Status = worst(link.Status, host.Status)
		link = link.settled()
		vm.dragDown(link.Status, host.Details.State)
		host.Details.Reasons, host.Details.More = nil, 0
		c.Parts = map[string]Appraisal{PartHost: host, PartLink: link, PartVM: vm.settled()}
		c.Status = vm.Status
	}
	c.Expires = expires.Unix()
	return c, nil
}

func (in *Input) check() error {
	if in.Nonce != "" && !validNonce(in.Nonce) {
		return ErrNonce
	}
	if len(in.Audience) > MaxName || !utf8.ValidString(in.Audience) {
		return ErrAudience
	}
	h := &in.Host
	if h.Result.Host == "" || h.Result.UUID != (attest.UUID{}) {
		return errors.New("ear: the host's verdict is not about a host")
	}
	if in.VM != nil && (in.VM.Result.UUID == attest.UUID{} || in.VM.Result.Host != h.Result.Host) {
		return errors.New("ear: the VM's verdict is not about a VM of this host")
	}
	for _, m := range []*Machine{h, in.VM} {
		if m == nil {
			continue
		}
		tooLong := func(s string) bool { return len(s) > MaxPolicyID }
		if len(m.Policies) > MaxPolicies || slices.ContainsFunc(m.Policies, tooLong) {
			return errors.New("ear: too many or too long policy IDs")
		}
	}
	return nil
}

func validNonce(s string) bool {
	if len(s) < MinNonce || len(s) > MaxNonce {
		return false
	}
	for _, c := range []byte(s) {
		if c <= ' ' || c > '~' {
			return false
		}
	}
	return true
}

// part makes a machine's part from its own verdict, and shortens expires to the end of a verdict
// that counts. A verdict that has expired is STALE, whatever it says.
func part(m *Machine, now time.Time, expires *time.Time) Appraisal {
	r := &m.Result
	d := Details{Name: clip(r.Name, MaxName), State: r.State, Scheme: r.Scheme, Report: r.Report, Epoch: r.Epoch}
	if !r.Time.IsZero() {
		d.Time = r.Time.Unix()
	}
	reasons := r.Reasons
	switch {
	case r.State != appraise.Trusted:
	case len(reasons) > 0: // Trusted with reasons is no verdict of appraise
		d.State = appraise.Error
		reasons = append(slices.Clip(reasons), appraise.Reason{Code: appraise.CodeInternal, Layer: appraise.LayerVerifier})
	case r.Expires.Unix() <= now.Unix():
		d.State = appraise.Stale
		reasons = []appraise.Reason{{Code: appraise.CodeExpired, Layer: appraise.LayerVerifier}}
	case r.Expires.Before(*expires):
		*expires = r.Expires
	}
	for i, x := range reasons {
		if i == MaxReasons {
			d.More = len(reasons) - MaxReasons
			break
		}
		d.Reasons = append(d.Reasons, Reason{Code: x.Code, Layer: x.Layer})
	}
	a := Appraisal{Status: tierOfState(d.State), Policies: m.Policies, Details: d}
	a.Vector = vector(r, d.State, reasons)
	return a.settled()
}

// vector gives a machine's claims.
func vector(r *appraise.Result, s appraise.State, reasons []appraise.Reason) Vector {
	v := Vector{}
	vm := r.UUID != attest.UUID{}
	switch s {
	case appraise.Trusted:
		v = Vector{InstanceIdentity: Trustworthy, Executables: ApprovedBoot, Hardware: GenuineHardware}
		if r.Entries > 0 {
			v[Executables] = ApprovedRuntime
		}
	case appraise.Error:
		v = all(Malfunction)
	default:
		for _, x := range reasons {
			if claims, ok := vectorOf(x); ok {
				v.add(claims)
			}
		}
	}
	if vm {
		delete(v, Hardware)
	}
	return v
}

// linkPart makes the part of the link from the VM's verdict.
func linkPart(in *Input, vm appraise.State) Appraisal {
	a := Appraisal{Status: None, Vector: Vector{}, Details: Details{Scheme: in.VM.Result.Scheme}}
	against := false
	for _, x := range in.VM.Result.Reasons {
		if x.Layer != appraise.LayerLink {
			continue
		}
		against = true
		if claims, ok := vectorOf(x); ok {
			a.Vector.add(Vector{InstanceIdentity: claims[InstanceIdentity]})
		}
		if len(a.Details.Reasons) < MaxReasons {
			a.Details.Reasons = append(a.Details.Reasons, Reason{x.Code, x.Layer, clip(x.Text, MaxText)})
		}
	}
	switch {
	case vm == appraise.Trusted, in.Linked && !against:
		a.Status, a.Vector = Affirming, Vector{InstanceIdentity: Trustworthy}
	case against:
		a.Status = tierOfState(vm)
	case vm == appraise.Error:
		a.Vector = Vector{InstanceIdentity: Malfunction}
	}
	return a
}

// dragDown makes a VM no better than its link and its host.
func (a *Appraisal) dragDown(link Tier, host appraise.State) {
	if a.Status == Affirming && link != Affirming {
		a.Details.State = host
		a.Details.Reasons = append(a.Details.Reasons, Reason{Code: appraise.CodeHostNotTrusted, Layer: appraise.LayerHost})
	}
	a.Status = worst(a.Status, link)
}

// settled makes the vector agree with the status, of which it must not be the better half: nothing is
// affirmed in a part that is not affirming, nothing speaks against one of which nothing can be said.
func (a Appraisal) settled() Appraisal {
	for claim, v := range a.Vector {
		t := TierOf(v)
		if t == Affirming && a.Status != Affirming || a.Status == None && t != None {
			a.Vector[claim] = NoClaim
		}
	}
	if len(a.Vector) == 0 { // AR4SI wants at least one
		a.Vector[InstanceIdentity] = NoClaim
	}
	a.Status = worst(a.Status, a.Vector.tier())
	return a
}

// texts adds what reasons say to those of the VM itself and of its link. What the host's part keeps
// back must not come in through the VM's.
func (d *Details) texts(r *appraise.Result) {
	for i := range d.Reasons {
		own := d.Reasons[i].Layer == appraise.LayerVM || d.Reasons[i].Layer == appraise.LayerLink
		if i < len(r.Reasons) && own && d.Reasons[i].Code != appraise.CodeHostNotTrusted {
			d.Reasons[i].Text = clip(r.Reasons[i].Text, MaxText)
		}
	}
}

// clip cuts s to n bytes without breaking a character.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
