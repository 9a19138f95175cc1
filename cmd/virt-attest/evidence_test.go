package main

import (
	"context"
	"os"

	"github.com/rogpeppe/go-internal/testscript"

	"virt-attest/attest"
	"virt-attest/internal/measuretest"
	"virt-attest/internal/softhost"
	"virt-attest/internal/softtpm"
	"virt-attest/verifier/api"
	"virt-attest/verifier/api/apitest"
	"virt-attest/verifier/appraise"
)

// genuine is a host whose quotes and logs are real, with the sample's VM db01 on it.
type genuine struct {
	*softhost.Host
	evidence []byte
}

// measured gives a machine that has booted and run a program.
func measured(program string) (attest.LogSegment, []attest.PCRBank) {
	l := measuretest.IMA{PCRs: measuretest.NewPCRs(attest.SHA256)}
	l.PCRs.Extend(4, []byte("boot loader"))
	l.Boot()
	l.File("/usr/bin/init", "init")
	l.File("/usr/bin/program", program)
	return l.Segment("boot-1"), l.PCRs.Values()
}

func newReal() (*genuine, error) {
	h := &genuine{Host: softhost.New("kvm", 1)}
	vm := h.VMs[0]
	vm.UUID = apitest.VMID(1)
	h.IMA, h.Banks = measured("host")
	vm.IMA, vm.Banks = measured("guest")
	var err error
	h.evidence, err = h.Answer(h.Challenge(attest.SchemeSEPA)).Encode()
	return h, err
}

// measures puts real evidence behind db01 and its host, and the evidence into a file: measures FILE.
func measures(ts *testscript.TestScript, neg bool, args []string) {
	s, ok := ts.Value(sampleKey{}).(*sample)
	if neg || len(args) != 1 || !ok {
		ts.Fatalf("usage: measures FILE")
	}
	h, err := newReal()
	ts.Check(err)
	s.mu.Lock()
	s.real = h
	s.mu.Unlock()
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), h.evidence, 0o600))
}

// realOf gives what is behind a machine, nil where that is the sample's.
func (s *sample) realOf(machine string) *genuine {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h := s.real; h != nil && (machine == h.ID || machine == "kvm" || machine == h.VMs[0].UUID.String()) {
		return h
	}
	return nil
}

// MachineEvidence is real where measures has said so.
func (s *sample) MachineEvidence(ctx context.Context, who api.Caller, machine string) ([]byte, error) {
	if h := s.realOf(machine); h != nil {
		return h.evidence, nil
	}
	return s.Fake.MachineEvidence(ctx, who, machine)
}

// Identity gives the keys of the real machines.
func (s *sample) Identity(ctx context.Context, who api.Caller, machine string) (*api.Identity, error) {
	h := s.realOf(machine)
	switch {
	case h == nil:
		return s.Fake.Identity(ctx, who, machine)
	case machine == h.ID:
		return &api.Identity{Machine: h.ID, Name: "kvm", EKSHA256: api.EKSHA256(h.TPM.EKPublic()), AKName: attest.HexBytes(h.TPM.AKName())}, nil
	}
	vm := h.VMs[0]
	return &api.Identity{Machine: machine, Name: "db01", EKName: attest.HexBytes(softtpm.Name(vm.TPM.EKPublic())), AKName: attest.HexBytes(vm.TPM.AKName())}, nil
}

// Settings gives the real host the reference values named host.
func (s *sample) Settings(ctx context.Context, who api.Caller, machine string) (*api.Settings, error) {
	if h := s.realOf(machine); h != nil && machine == h.ID {
		return &api.Settings{Policy: "lenient", RIMs: []string{"host"}}, nil
	}
	return s.Fake.Settings(ctx, who, machine)
}

// Host gives the real host by its ID.
func (s *sample) Host(ctx context.Context, who api.Caller, name string) (*api.Host, error) {
	if h := s.realOf(name); h != nil {
		return &api.Host{ID: h.ID, Name: "kvm", Approved: true, Result: appraise.Result{Name: "kvm", Host: h.ID, State: appraise.Trusted, Report: "r"}}, nil
	}
	return s.Fake.Host(ctx, who, name)
}
