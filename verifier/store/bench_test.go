package store

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"virt-attest/attest"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
)

// What one round of a host with 100 VMs costs: its challenge, its evidence, its report with everything that
// belongs to it. cpu-us/VM is the processor time of this process and of the PostgreSQL server.
func BenchmarkCommit(b *testing.B) {
	const vms = 100
	for _, d := range []struct {
		name string
		make func(testing.TB) database
	}{{SQLite, newSQLite}, {Postgres, newPostgres}} {
		b.Run(d.name, func(b *testing.B) {
			db := d.make(b)
			s := db.open(b)
			r := newRounds(b, s, 10, vms)
			for range 20 {
				r.round(b)
			}
			b.SetParallelism(2)
			own, server := cpuTime(b, db)
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					r.round(b)
				}
			})
			b.StopTimer()
			own2, server2 := cpuTime(b, db)
			b.ReportMetric(float64((own2-own).Microseconds())/float64(b.N*vms), "cpu-us/VM")
			b.ReportMetric(float64((server2-server).Microseconds())/float64(b.N*vms), "server-us/VM")
			b.ReportMetric(float64(b.N*vms)/b.Elapsed().Seconds(), "VMs/s")
		})
	}
}

// rounds are attestations of hosts, one after another.
type rounds struct {
	s        *Store
	hosts    []string
	vms      int
	n        atomic.Int64
	revision []int64
	mu       []sync.Mutex // of the hosts: each answers one challenge after another
	noise    []byte       // as little to be compressed as keys and signatures
}

func newRounds(tb testing.TB, s *Store, hosts, vms int) *rounds {
	r := &rounds{s: s, vms: vms, revision: make([]int64, hosts), mu: make([]sync.Mutex, hosts), noise: make([]byte, 150000)}
	if _, err := rand.Read(r.noise); err != nil {
		tb.Fatal(err)
	}
	for i := range hosts {
		h := host(fmt.Sprintf("%032x", i+1))
		var claims []Claim
		for v := range vms {
			claims = append(claims, Claim{UUID: r.vm(i, v), Host: h.ID, Name: fmt.Sprintf("vm-%d-%d", i, v)})
		}
		if err := s.PutHost(tb.Context(), h, claims, ""); err != nil {
			tb.Fatal(err)
		}
		r.hosts = append(r.hosts, h.ID)
	}
	return r
}

func (r *rounds) vm(host, n int) attest.UUID {
	return attest.UUID{0: byte(host * 37), 1: byte(n * 59), 12: byte(host >> 8), 13: byte(host), 14: byte(n >> 8), 15: byte(n)}
}

// round is everything that the store does for one attestation.
func (r *rounds) round(tb testing.TB) {
	n := r.n.Add(1)
	i := int(n) % len(r.hosts)
	r.mu[i].Lock()
	defer r.mu[i].Unlock()
	h := r.hosts[i]
	now := t0.Add(time.Duration(n) * time.Second)
	nonce := attest.Nonce{0: byte(n), 1: byte(n >> 8), 2: byte(n >> 16), 3: byte(n >> 24), 31: 1}
	c := &attest.Challenge{Nonce: nonce, Scheme: attest.SchemeSEPA, Host: h, NotAfter: now.Unix() + 60}
	ctx := context.Background()
	check := func(err error) {
		if err != nil {
			tb.Fatal(err)
		}
	}
	check(r.s.PutChallenge(ctx, &OpenChallenge{Challenge: c, Known: r.noise[:50000], Created: now, Delivered: now}))
	_, err := r.s.Take(ctx, nonce, h, r.noise, "r1", time.Minute, now)
	check(err)
	check(r.s.Commit(ctx, r.outcome(i, c, now)))
}

func (r *rounds) outcome(i int, c *attest.Challenge, now time.Time) *Outcome {
	id, h := c.Nonce.String(), r.hosts[i]
	result := func(vm attest.UUID, name string) appraise.Result {
		return appraise.Result{UUID: vm, Name: name, Host: h, State: appraise.Trusted, Reasons: []appraise.Reason{}, Scheme: c.Scheme, Time: now, Expires: now.Add(time.Hour),
			Report: id, EKName: make([]byte, 34), Epoch: 1, Entries: 1000, RIM: "debian-12", Agent: "0.3.0", Kernel: "6.1.0-31-amd64"}
	}
	o := &Outcome{Host: h, Created: now, Report: &api.Report{ID: id, Scheme: c.Scheme, Host: result(attest.UUID{}, "host")}, Generation: 1,
		Evidence: &attest.Evidence{Version: attest.EvidenceVersion, Challenge: *c}}
	first := t0
	if r.revision[i] == 0 {
		first = time.Time{}
	}
	state := []byte(`{"counters":{"reset":3,"restart":1,"clock":` + strconv.FormatInt(now.UnixMilli(), 10) + `},"replay":"` + strings.Repeat("x", 500) + `"}`)
	for v := range r.vms {
		vm := r.vm(i, v)
		o.Report.VMs = append(o.Report.VMs, result(vm, fmt.Sprintf("vm-%d-%d", i, v)))
		o.Evidence.VMs = append(o.Evidence.VMs, attest.VMEvidence{UUID: vm, IMA: attest.LogSegment{BootID: "f3a1c2d4-0000-4000-8000-000000000000"}})
		o.VTPMs = append(o.VTPMs, VTPM{EKName: append([]byte{0, 11}, append(vm[:], make([]byte, 16)...)...), UUID: vm, AKName: make([]byte, 34), Host: h, First: first, Last: now})
		o.Advances = append(o.Advances, Advance{Machine: Machine{ID: vm.String(), EKName: make([]byte, 34), BootID: "f3a1c2d4-0000-4000-8000-000000000000", Entries: 1000,
			Revision: r.revision[i], State: state}})
	}
	r.revision[i]++
	return o
}

// cpuTime is the processor time that this process and the database server have used.
func cpuTime(tb testing.TB, d database) (own, server time.Duration) {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		tb.Fatal(err)
	}
	own = time.Duration(u.Utime.Nano() + u.Stime.Nano())
	if d.URL == "" {
		return own, 0
	}
	all, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		tb.Fatal(err)
	}
	for _, p := range all {
		b, err := os.ReadFile(p)
		if err != nil {
			continue // ended meanwhile
		}
		name, rest, _ := strings.Cut(string(b), ") ")
		if f := strings.Fields(rest); strings.HasSuffix(name, "(postgres") && len(f) > 14 && ours(filepath.Dir(p), d.URL) {
			for _, ticks := range f[11:13] { // utime, stime: 1/100 s
				n, err := strconv.Atoi(ticks)
				if err != nil {
					tb.Fatal(err)
				}
				server += time.Duration(n) * 10 * time.Millisecond
			}
		}
	}
	return own, server
}

// ours tells a server of this test's cluster by the directory that it works in.
func ours(proc, url string) bool {
	dir, err := os.Readlink(proc + "/cwd")
	return err == nil && strings.Contains(url, strings.ReplaceAll(filepath.Dir(dir), "/", "%2F"))
}

// A page of the list of all VMs, as a browser asks for it.
func BenchmarkVMPage(b *testing.B) {
	for _, d := range []struct {
		name string
		make func(testing.TB) database
	}{{SQLite, newSQLite}, {Postgres, newPostgres}} {
		s := d.make(b).open(b)
		r := newRounds(b, s, 100, 100)
		for range 100 {
			r.round(b)
		}
		if err := s.tx(b.Context(), bulkTimeout, func(t *tx) error { _, err := t.exec(`ANALYZE`); return err }); err != nil { // as the server does by itself in a while
			b.Fatal(err)
		}
		now := t0.Add(100 * time.Second)
		for name, f := range map[string]api.MachineFilter{"all": {}, "untrusted": {States: []appraise.State{appraise.Untrusted}}, "text": {Text: "vm-7"}, "host": {Host: r.hosts[5]}} {
			b.Run(d.name+"/"+name, func(b *testing.B) {
				for b.Loop() {
					if _, err := s.VMPage(b.Context(), f, "", api.Page{}, now); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
		b.Run(d.name+"/counts", func(b *testing.B) {
			for b.Loop() {
				if _, _, err := s.Counts(b.Context(), "", now); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
