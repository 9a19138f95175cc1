package main

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"

	"virt-attest/attest"
	"virt-attest/attest/binding"
	"virt-attest/attest/sepa"
	"virt-attest/internal/measuretest"
	"virt-attest/internal/softtpm"
	"virt-attest/verifier/api"
)

// history is the IMA list that every simulated machine runs through: one list and one set of PCR 10 values
// for all of them, so that a machine is its keys and how far it has come.
type history struct {
	entries []int // offset of entry i in data; one more at the end
	data    []byte
	pcr10   [][]byte // after i entries
	boot    []attest.PCRBank
	bootLog []byte
}

// newHistory makes a list of n entries whose files are among the first files of the reference values.
func newHistory(n, files int) *history {
	pcrs := measuretest.NewPCRs(attest.SHA256)
	b := &measuretest.BootLog{PCRs: pcrs}
	b.Begin()
	b.Event(0, measuretest.EvCRTM, []byte("firmware"))
	b.Separators()
	h := &history{boot: pcrs.Values(), bootLog: b.Data}
	ima := &measuretest.IMA{PCRs: pcrs}
	note := func() {
		h.entries = append(h.entries, len(ima.Data))
		bank, _ := attest.Bank(pcrs.Values(), attest.SHA256)
		h.pcr10 = append(h.pcr10, slices.Clone(bank.Get(10)))
	}
	note()
	ima.Boot()
	note()
	for i := 1; i < n; i++ {
		path, content := file(i % files)
		ima.File(path, content)
		note()
	}
	h.data = ima.Data
	return h
}

// file names file i of the reference values.
func file(i int) (path, content string) {
	return fmt.Sprintf("/usr/lib/x86_64-linux-gnu/package-%d/lib%d.so", i%977, i), fmt.Sprintf("content %d", i)
}

func (h *history) len() uint64 { return uint64(len(h.entries) - 1) }

// banks are the PCRs 0 to 10 of a machine that has come to entry n.
func (h *history) banks(n uint64) []attest.PCRBank {
	bank, _ := attest.Bank(h.boot, attest.SHA256)
	out := attest.PCRBank{Alg: attest.SHA256, PCRs: slices.Clone(bank.PCRs[:11])}
	out.PCRs[10].Value = h.pcr10[n]
	return []attest.PCRBank{out}
}

func (h *history) segment(bootID string, from, to uint64) attest.LogSegment {
	return attest.LogSegment{BootID: bootID, TemplateHash: attest.SHA1, From: from, Count: to - from, Data: h.data[h.entries[from]:h.entries[to]]}
}

// machine is a simulated host or VM.
type machine struct {
	tpm   *softtpm.TPM
	name  string
	uuid  attest.UUID // zero for a host
	boot  string
	count uint64 // entries of its log
}

func newMachine(name string, uuid attest.UUID) *machine {
	seed := sha256.Sum256([]byte(name))
	t := softtpm.New(&repeat{seed: seed}, softtpm.ECCEK())
	t.ResetCount, t.Safe = 3, true
	return &machine{tpm: t, name: name, uuid: uuid, boot: "boot of " + name}
}

// repeat reads a seed.
type repeat struct{ seed [32]byte }

func (r *repeat) Read(p []byte) (int, error) { return copy(p, r.seed[:]), nil }

// log gives what a challenge asks of the machine's log.
func (m *machine) log(h *history, c *attest.Challenge) attest.LogSegment {
	from := uint64(0)
	if r := c.ResumeFor(m.uuid); r.BootID == m.boot && r.Count <= m.count {
		from = r.Count
	}
	return h.segment(m.boot, from, m.count)
}

// host is a simulated host with its VMs. One goroutine at a time uses it.
type host struct {
	*machine
	history *history
	vms     []*machine
}

// newHost makes host number n with VMs, sorted by UUID.
func newHost(n, vms int, h *history, begin uint64) *host {
	out := &host{machine: newMachine(fmt.Sprintf("host-%05d", n), attest.UUID{}), history: h}
	out.count = begin
	for i := range vms {
		id := attest.UUID{6: 0x40, 8: 0x80}
		binary.BigEndian.PutUint32(id[:], uint32(n))
		binary.BigEndian.PutUint32(id[12:], uint32(i))
		m := newMachine(fmt.Sprintf("vm-%05d-%03d", n, i), id)
		m.count = begin
		out.vms = append(out.vms, m)
	}
	return out
}

func (h *host) id() string { return api.HostID(h.tpm.EKPublic()) }

// enrol introduces the host.
func (h *host) enrol(ctx context.Context, c *api.Client) error {
	hello := api.HostHello{Name: h.name, EK: h.tpm.EKPublic(), AK: h.tpm.AKPublic()}
	for _, v := range h.vms {
		hello.VMs = append(hello.VMs, api.HostVM{UUID: v.uuid, Name: v.name})
	}
	w, err := c.Hello(ctx, hello)
	if err != nil || len(w.Activation) == 0 {
		return err
	}
	return h.activate(ctx, c, attest.Nonce{}, w.Activation)
}

// activate opens credentials with the TPMs that they are for.
func (h *host) activate(ctx context.Context, c *api.Client, n attest.Nonce, list []api.Activation) error {
	a := api.Activated{Host: h.id(), Nonce: n}
	for _, act := range list {
		tpm := h.tpm
		if i := slices.IndexFunc(h.vms, func(v *machine) bool { return v.uuid == act.Machine }); i >= 0 {
			tpm = h.vms[i].tpm
		}
		secret, err := tpm.Activate(act.CredentialBlob, act.Secret)
		if err != nil {
			return err
		}
		a.Items = append(a.Items, api.ActivatedKey{Machine: act.Machine, Secret: secret})
	}
	return c.Activated(ctx, a)
}

// grow lets every machine run: more entries in each log.
func (h *host) grow(more uint64) {
	for _, m := range append([]*machine{h.machine}, h.vms...) {
		m.count = min(m.count+more, h.history.len())
	}
}

// evidence answers a challenge by SEPA with live quotes, the host's and each VM's.
func (h *host) evidence(c *attest.Challenge) *attest.Evidence {
	ev := &attest.Evidence{Version: attest.EvidenceVersion, Challenge: *c}
	leaves := make([]sepa.Leaf, len(h.vms))
	for i, v := range h.vms {
		ev.VMs = append(ev.VMs, v.quoted(h.history, c))
		leaves[i] = sepa.LeafOf(&ev.VMs[i])
	}
	items := []attest.Digest{binding.Item(c.Scheme, c.Nonce, sepa.Body(leaves))}
	extra := binding.Round(items)
	ev.Inclusion = binding.Include(items, 0)
	h.tpm.Clock += 10
	banks := h.history.banks(h.count)
	ev.Host = attest.HostEvidence{ID: h.id(), Quote: h.tpm.Quote(extra[:], banks), AK: h.tpm.AKPublic(), EK: h.tpm.EKPublic(), PCRs: banks, IMA: h.log(h.history, c)}
	if c.BootLogs {
		ev.Host.BootLog = h.history.bootLog
	}
	return ev
}

func (m *machine) quoted(h *history, c *attest.Challenge) attest.VMEvidence {
	m.tpm.Clock += 10
	banks, n := h.banks(m.count), binding.VMNonce(c.Scheme, c.Nonce, m.uuid)
	out := attest.VMEvidence{UUID: m.uuid, Name: m.name, Status: attest.VMQuoted, Epoch: 1, EKName: softtpm.Name(m.tpm.EKPublic()), EK: m.tpm.EKPublic(),
		AK: m.tpm.AKPublic(), AKName: m.tpm.AKName(), Quote: m.tpm.Quote(n[:], banks), PCRs: banks, IMA: m.log(h, c),
		Agent: attest.AgentInfo{Version: "1", Kernel: "6.1", BootID: m.boot}}
	out.QuoteHash = out.Quote.Hash()
	if c.BootLogs {
		out.BootLog = h.bootLog
	}
	return out
}
