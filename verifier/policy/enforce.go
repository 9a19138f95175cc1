package policy

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"virt-attest/verifier/appraise"
)

// Words of Enforce. What hosts do is verifier/host/enforce; docs/enforcement.md explains it.
const (
	Report     = "report" // action: nothing is done to the VM
	Pause      = "pause"
	CutNetwork = "cut-network"
	Shutdown   = "shutdown"
	Destroy    = "destroy" // also gate.otherwise

	Release    = "release"     // gate.otherwise
	KeepPaused = "keep-paused" // gate.otherwise

	AsDefined = "as-defined" // gate.links: those that were up before the gate
	LinksUp   = "up"         // gate.links: all
)

// Actions are what a host may do to a VM, the mildest first.
func Actions() []string { return []string{Report, Pause, CutNetwork, Shutdown, Destroy} }

// Harder gives the action that takes more from a VM: b only where it is an action that is harder than a.
func Harder(a, b string) string {
	if slices.Index(Actions(), b) > slices.Index(Actions(), a) {
		return b
	}
	return a
}

// Enforce says what a VM's host does to it by its verdicts. It concerns VMs only.
type Enforce struct {
	Action string           `json:"action"` // Report, Pause, CutNetwork, Shutdown or Destroy
	On     []appraise.State `json:"on"`     // states that call for the action
	Grace  Duration         `json:"grace"`  // for which a state must last
	Undo   bool             `json:"undo"`   // when the VM is TRUSTED again
	Gate   Gate             `json:"gate"`
}

// Gate is the start gate: no network for a VM until its boot is TRUSTED.
type Gate struct {
	On        bool     `json:"on"`
	Limit     Duration `json:"limit"`     // that a boot has to become TRUSTED in
	Otherwise string   `json:"otherwise"` // Release, KeepPaused or Destroy, when Limit is over without a verdict
	Links     string   `json:"links"`     // AsDefined or LinksUp, when the gate opens
}

// Secrets is about what the Verifier releases to TRUSTED VMs (docs/secrets.md).
type Secrets struct {
	MaxAge Duration `json:"max_age"` // of the Evidence by which the VM is TRUSTED
}

// noEnforcement is what a policy enforces that does not speak of it: nothing.
func noEnforcement() Enforce {
	return Enforce{Action: Report, On: []appraise.State{appraise.Rollback, appraise.Untrusted}, Undo: true,
		Gate: Gate{Limit: Duration(5 * time.Minute), Otherwise: KeepPaused, Links: AsDefined}}
}

func strictSecrets() Secrets { return Secrets{MaxAge: Duration(time.Minute)} }

// IsZero reports whether nothing is asked for: such a part is left out of the encoding.
func (e Enforce) IsZero() bool {
	d := noEnforcement()
	return e.Action == d.Action && slices.Equal(e.On, d.On) && e.Grace == d.Grace && e.Undo == d.Undo && e.Gate == d.Gate
}

// IsZero is as Enforce's.
func (s Secrets) IsZero() bool { return s == strictSecrets() }

// Acts reports whether a host has anything to do by it.
func (e Enforce) Acts() bool { return e.Action != Report || e.Gate.On }

func (f *File) checkEnforce() error {
	e := &f.Enforce
	if err := oneOf(e.Action, Actions()...); err != nil {
		return fmt.Errorf("enforce.action: %w", err)
	}
	if len(e.On) == 0 {
		return errors.New("enforce.on is empty: action report does nothing in any state")
	}
	for _, s := range e.On {
		if err := checkActedOn(string(s)); err != nil {
			return err
		}
	}
	if e.Grace < 0 || time.Duration(e.Grace) > MaxGrace {
		return fmt.Errorf("enforce.grace %v is not from 0s to %v", e.Grace, Duration(MaxGrace))
	}
	if l := time.Duration(e.Gate.Limit); l < MinGate || l > MaxGate {
		return fmt.Errorf("enforce.gate.limit %v is not from %v to %v", e.Gate.Limit, Duration(MinGate), Duration(MaxGate))
	}
	if a := time.Duration(f.Secrets.MaxAge); a < MinSecretAge || a > MaxSecretAge {
		return fmt.Errorf("secrets.max_age %v is not from %v to %v", f.Secrets.MaxAge, Duration(MinSecretAge), Duration(MaxSecretAge))
	}
	return errors.Join(oneOf(e.Gate.Otherwise, Release, KeepPaused, Destroy), oneOf(e.Gate.Links, AsDefined, LinksUp))
}

// checkActedOn takes the states that can call for an action. TRUSTED calls for none; PENDING is on its way to another.
func checkActedOn(s string) error {
	return oneOf(s, string(appraise.Untrusted), string(appraise.Rollback), string(appraise.Stale), string(appraise.Unreachable),
		string(appraise.Unconfigured), string(appraise.Error))
}

func (d decoder) enforce(e *Enforce) error {
	return d.Object(func(key string) error {
		switch key {
		case "action":
			return d.word(&e.Action, Actions()...)
		case "on":
			var list []string
			err := d.List(&list, maxStates, checkActedOn)
			e.On = nil
			for _, s := range list {
				e.On = append(e.On, appraise.State(s))
			}
			return err
		case "grace":
			return d.duration(&e.Grace)
		case "undo":
			return d.Bool(&e.Undo)
		case "gate":
			return d.gate(&e.Gate)
		}
		return d.Unknown(key)
	})
}

func (d decoder) gate(g *Gate) error {
	return d.Object(func(key string) error {
		switch key {
		case "on":
			return d.Bool(&g.On)
		case "limit":
			return d.duration(&g.Limit)
		case "otherwise":
			return d.word(&g.Otherwise, Release, KeepPaused, Destroy)
		case "links":
			return d.word(&g.Links, AsDefined, LinksUp)
		}
		return d.Unknown(key)
	})
}

func (d decoder) secrets(s *Secrets) error {
	return d.Object(func(key string) error {
		if key == "max_age" {
			return d.duration(&s.MaxAge)
		}
		return d.Unknown(key)
	})
}

// flattenEnforce gives the statements about enforcement and secrets.
func (f *File) flattenEnforce(add func(what, where string, value any)) {
	e := f.Enforce
	add("enforce.action", "", e.Action)
	for _, s := range e.On {
		add("enforce.on", "", s)
	}
	add("enforce.grace", "", e.Grace)
	add("enforce.undo", "", e.Undo)
	add("enforce.gate.on", "", e.Gate.On)
	add("enforce.gate.limit", "", e.Gate.Limit)
	add("enforce.gate.otherwise", "", e.Gate.Otherwise)
	add("enforce.gate.links", "", e.Gate.Links)
	add("secrets.max_age", "", f.Secrets.MaxAge)
}
