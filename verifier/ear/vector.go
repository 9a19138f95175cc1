package ear

// Tier is the trustworthiness tier of a part, or of the whole (AR4SI, section 2.3).
type Tier string

// The tiers, in the order in which they get worse for one who decides by them.
const (
	Affirming       Tier = "affirming"       // shown, and as it should be
	None            Tier = "none"            // nothing can be said
	Warning         Tier = "warning"         // something is not known to be right
	Contraindicated Tier = "contraindicated" // something is wrong
)

func (t Tier) rank() int {
	switch t {
	case Affirming:
		return 0
	case None:
		return 1
	case Warning:
		return 2
	}
	return 3 // an unknown word is not good news
}

func (t Tier) known() bool {
	return t == Affirming || t == None || t == Warning || t == Contraindicated
}

// worst gives the tier that decides where several apply; None where there is none.
func worst(tiers ...Tier) Tier {
	if len(tiers) == 0 {
		return None
	}
	out := tiers[0]
	for _, t := range tiers[1:] {
		if t.rank() > out.rank() {
			out = t
		}
	}
	return out
}

// Claim is a claim of the trustworthiness vector.
type Claim string

// The claims that are made. The others of AR4SI do not apply to machines with a TPM.
const (
	InstanceIdentity Claim = "instance-identity" // is it the machine that it says it is, on the host that it says
	Configuration    Claim = "configuration"     // what firmware and boot loader were told
	Executables      Claim = "executables"       // what was booted and what ran since
	Hardware         Claim = "hardware"          // the TPM; of hosts only: a vTPM is software
)

// Values of claims: those that mean the same in every claim, then those of one claim each.
const (
	Malfunction  int8 = -1 // the Verifier's own fault
	NoClaim      int8 = 0
	Unexpected   int8 = 1  // the evidence could not be read
	CryptoFailed int8 = 99 // a signature, hash or nonce does not hold

	Trustworthy     int8 = 2  // instance-identity
	Untrustworthy   int8 = 96 // instance-identity: known, and not to be trusted
	UnknownInstance int8 = 97 // instance-identity

	UnsafeConfiguration int8 = 96 // configuration

	ApprovedRuntime   int8 = 2  // executables: boot, and what ran since
	ApprovedBoot      int8 = 3  // executables: boot only
	VulnerableRuntime int8 = 32 // executables: known, and older than it may be
	UnknownRuntime    int8 = 33 // executables
	DeniedRuntime     int8 = 96 // executables

	GenuineHardware    int8 = 2  // hardware
	VulnerableHardware int8 = 32 // hardware: known, and its firmware may not be used
	UnknownHardware    int8 = 97 // hardware
)

// TierOf gives the tier of a claim's value.
func TierOf(v int8) Tier {
	switch {
	case v >= -1 && v <= 1:
		return None
	case v >= 2 && v <= 31, v >= -32 && v <= -2:
		return Affirming
	case v >= 32 && v <= 95, v >= -96 && v <= -33:
		return Warning
	}
	return Contraindicated
}

// Vector is a trustworthiness vector. A claim that is missing is not made.
type Vector map[Claim]int8

// tier gives the worst tier of the claims, Affirming where there is none.
func (v Vector) tier() Tier {
	out := Affirming
	for _, value := range v {
		out = worst(out, TierOf(value))
	}
	return out
}

// add puts the claims of o into v where they are worse.
func (v Vector) add(o Vector) {
	for claim, value := range o {
		if old, ok := v[claim]; !ok || weight(value) > weight(old) {
			v[claim] = value
		}
	}
}

// weight orders values by how bad they are: by tier, within it by number, and -1 after 1.
func weight(v int8) int {
	n := int(v)
	if n < 0 {
		n *= -2
	}
	return TierOf(v).rank()*1000 + n
}

// all gives every claim one value.
func all(value int8) Vector {
	return Vector{InstanceIdentity: value, Configuration: value, Executables: value, Hardware: value}
}
