package engine

import (
	"testing"
	"time"

	"virt-attest/attest"
)

// F5: hostd killed between taking a challenge and answering it.
func TestPresence_gives_a_challenge_out_again_when_the_hostd_that_took_it_is_gone(t *testing.T) {
	e := &Engine{hosts: map[string]*presence{}}
	p := e.presence("h")
	open := func() *session {
		s := &session{challenge: &attest.Challenge{}, done: make(chan struct{}), deadline: time.Now().Add(time.Minute), began: time.Now()}
		p.put(s)
		return s
	}
	p.arrived("first")
	lost, answered, ended := open(), open(), open()
	if got, _ := p.take(); len(got) != 3 {
		t.Fatalf("%d challenges, want 3", len(got))
	}
	answered.answered.Store(true)
	close(ended.done)

	p.arrived("first") // the same hostd, about a VM that came
	if got, _ := p.take(); len(got) != 0 {
		t.Errorf("%d challenges came twice to the hostd that works on them", len(got))
	}
	_, wake := p.take()
	p.arrived("second")
	select {
	case <-wake:
	default:
		t.Error("the poll that waits is not woken")
	}
	if got, _ := p.take(); len(got) != 1 || got[0] != lost {
		t.Errorf("%d challenges, want the lost one", len(got))
	}
	p.arrived("third")
	if got, _ := p.take(); len(got) != 1 || got[0] != lost {
		t.Errorf("%d challenges, want the lost one once more", len(got))
	}
	p.arrived("") // a host that does not say
	if got, _ := p.take(); len(got) != 0 {
		t.Errorf("%d challenges for nobody new", len(got))
	}
}
