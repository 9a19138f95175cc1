package hooks

import (
	"fmt"
	"io"

	"virt-attest/attest"
	"virt-attest/internal/domainxml"
)

// Verb is what the hook has to do.
type Verb string

// The verbs.
const (
	Nothing Verb = "nothing"
	Start   Verb = "start"
	Stop    Verb = "stop"
)

// Action is the decision about one call of the hook. UUID is set unless Verb is Nothing.
type Action struct {
	Verb Verb
	UUID attest.UUID
}

// Decide says what a call of the hook asks for. args are those of the process with its name
// at 0, xml is what libvirt writes to its standard input; it is read for prepare and release
// only. An error means that the operation has to be refused; only prepare has any.
func Decide(args []string, euid int, xml io.Reader) (Action, error) {
	if euid != 0 || len(args) < 4 {
		return Action{Verb: Nothing}, nil // a user's own libvirt; no call by libvirt at all
	}
	switch args[2] + " " + args[3] {
	case "prepare begin":
		return prepare(xml)
	case "release end":
		return release(xml), nil
	}
	return Action{Verb: Nothing}, nil
}

func prepare(xml io.Reader) (Action, error) {
	seen := marker{r: xml}
	d, err := domainxml.Inspect(&seen)
	if err != nil {
		if seen.drain(); !seen.found {
			return Action{Verb: Nothing}, nil // whatever it is, it does not want us
		}
		return Action{}, fmt.Errorf("cannot read the domain's XML: %w", err)
	}
	if !d.OptedIn {
		return Action{Verb: Nothing}, nil
	}
	if err := d.Check(); err != nil {
		return Action{}, err
	}
	return Action{Verb: Start, UUID: d.UUID}, nil
}

// release stops the sidecar of a domain that is ours in any way, also one that prepare refused.
func release(xml io.Reader) Action {
	d, err := domainxml.Inspect(xml)
	if err != nil || !d.OptedIn {
		return Action{Verb: Nothing}
	}
	return Action{Verb: Stop, UUID: d.UUID}
}
