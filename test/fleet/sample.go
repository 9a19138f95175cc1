package main

import (
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"virt-attest/attest"
	"virt-attest/attest/measurement"
	"virt-attest/verifier/rim"
)

// references makes reference values of n files that allow everything in a history.
func references(n int, h *history) ([]byte, error) {
	f := &rim.File{Format: rim.Format, Name: "fleet", IMA: make(map[string][]string, n), PCRs: map[attest.Alg]map[uint8][]attest.HexBytes{attest.SHA256: {}}}
	seg := h.segment("", 0, h.len())
	proof, err := measurement.Replay(seg, measurement.State{}, h.banks(h.len()), measurement.Options{})
	if err != nil {
		return nil, err
	}
	golden, _, err := rim.FromLog(rim.Golden{Name: "fleet", Entries: proof.Entries(), PCRs: h.banks(h.len())})
	if err != nil {
		return nil, err
	}
	f.IMA, f.PCRs = golden.IMA, golden.PCRs
	for i := 0; len(f.IMA) < n; i++ {
		path, content := file(i)
		if f.IMA[path] == nil {
			f.IMA[path] = []string{digestOf(content)}
		}
	}
	return f.Encode()
}

// sampler looks at the processes once a second.
type sampler struct {
	w                       *world
	quit                    chan struct{}
	wg                      sync.WaitGroup
	before                  [3]usage
	verifier, database, own time.Duration
	rss                     []int64
}

func newSampler(w *world) *sampler {
	s := &sampler{w: w, quit: make(chan struct{})}
	s.before = s.now()
	s.wg.Go(func() {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-s.quit:
				return
			case <-tick.C:
				s.rss = append(s.rss, s.now()[0].rss)
			}
		}
	})
	return s
}

// now gives the Verifiers', the database's and this process's usage.
func (s *sampler) now() (u [3]usage) {
	for _, v := range s.w.replicas {
		one := usageOf(v.cmd.Process.Pid)
		u[0].cpu, u[0].rss = u[0].cpu+one.cpu, u[0].rss+one.rss
	}
	u[1] = s.w.database.usage()
	u[2] = usageOf(os.Getpid())
	return u
}

func (s *sampler) stop() {
	close(s.quit)
	s.wg.Wait()
	after := s.now()
	s.verifier, s.database, s.own = after[0].cpu-s.before[0].cpu, after[1].cpu-s.before[1].cpu, after[2].cpu-s.before[2].cpu
}

// memory says how the Verifiers' resident memory went: the medians of the run's first, middle and last third.
func (s *sampler) memory() string {
	n := len(s.rss) / 3
	if n == 0 {
		return "too short to tell"
	}
	third := func(i int) int64 {
		part := slices.Sorted(slices.Values(s.rss[i*n : (i+1)*n]))
		return part[n/2] >> 20
	}
	return fmt.Sprintf("%d, %d, %d MiB in the run's thirds, at most %d MiB", third(0), third(1), third(2), slices.Max(s.rss)>>20)
}
