package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"virt-attest/attest"
	"virt-attest/verifier/api"
)

// load drives a fleet against one or more Verifiers.
type load struct {
	conf    options
	clients [][]*api.Client // by Verifier, several connections each
	hosts   []*host
	next    atomic.Int64

	mu        sync.Mutex
	latencies []time.Duration // evidence sent → its verdict is on record
	pushes    int
	failed    []error
	last      map[string]string // host ID → report
}

func (l *load) client() *api.Client {
	n := l.next.Add(1)
	set := l.clients[n%int64(len(l.clients))]
	return set[n/int64(len(l.clients))%int64(len(set))]
}

// each calls f for every host, several at a time.
func (l *load) each(workers int, f func(*host) error) error {
	work := make(chan *host)
	var wg sync.WaitGroup
	var mu sync.Mutex
	var errs []error
	for range workers {
		wg.Go(func() {
			for h := range work {
				if err := f(h); err != nil {
					mu.Lock()
					errs = append(errs, fmt.Errorf("%s: %w", h.name, err))
					mu.Unlock()
				}
			}
		})
	}
	for _, h := range l.hosts {
		work <- h
	}
	close(work)
	wg.Wait()
	return errors.Join(errs[:min(len(errs), 5)]...)
}

// enrol makes every host known, approved and configured, and every VM's key proven by a first attestation.
func (l *load) enrol(ctx context.Context, admin *api.Client) error {
	return l.each(8, func(h *host) error {
		if err := h.enrol(ctx, l.client()); err != nil {
			return err
		}
		if _, err := admin.ApproveHost(ctx, h.id(), api.EKSHA256(h.tpm.EKPublic())); err != nil {
			return err
		}
		if err := admin.AssignRIMs(ctx, h.id(), []string{"fleet"}); err != nil {
			return err
		}
		for _, v := range h.vms {
			if err := admin.AssignRIMs(ctx, v.uuid.String(), []string{"fleet"}); err != nil {
				return err
			}
		}
		_, err := l.push(ctx, h)
		return err
	})
}

// push is one scheduled attestation: a fresh challenge, live quotes, the answer. It gives the time from
// the answer's sending to the moment at which its verdict is on record for everybody.
func (l *load) push(ctx context.Context, h *host) (time.Duration, error) {
	c := l.client()
	ch, err := c.Challenge(ctx, api.ChallengeRequest{Host: h.id(), Scheme: attest.SchemeSEPA})
	if err != nil {
		return 0, err
	}
	h.grow(uint64(l.conf.entries))
	b, err := h.evidence(ch).Encode()
	if err != nil {
		return 0, err
	}
	began := time.Now()
	r, err := c.EncodedEvidence(ctx, b)
	if err == nil && len(r.Activation) > 0 {
		err = h.activate(ctx, c, ch.Nonce, r.Activation)
	}
	if err == nil {
		err = l.verdict(ctx, c, ch.Nonce.String())
	}
	took := time.Since(began)
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		return took, err
	}
	l.last[h.id()] = ch.Nonce.String()
	return took, nil
}

// verdict waits until a report is on record.
func (l *load) verdict(ctx context.Context, c *api.Client, id string) error {
	for end := time.Now().Add(verdictTime); ; time.Sleep(lookEvery) {
		_, err := c.Report(ctx, id)
		if !api.IsStatus(err, http.StatusNotFound) || time.Now().After(end) {
			return err
		}
	}
}

const (
	verdictTime = 30 * time.Second
	lookEvery   = 5 * time.Millisecond
)

// run attests hosts in turn at the rate of the options, as long as they say, and as fast as can be
// where the rate is 0.
func (l *load) run(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, l.conf.duration)
	defer cancel()
	turn := make(chan *host)
	var wg sync.WaitGroup
	for range l.conf.workers {
		wg.Go(func() {
			for h := range turn {
				took, err := l.push(context.WithoutCancel(ctx), h)
				l.note(took, err)
			}
		})
	}
	l.pace(ctx, turn)
	close(turn)
	wg.Wait()
}

// pace hands out hosts, each when it is due: what is late after a standstill comes at once and is not left out. A host comes
// again only after all others had their turn.
func (l *load) pace(ctx context.Context, turn chan<- *host) {
	began := time.Now()
	for i := 0; ; i++ {
		if l.conf.rate > 0 {
			due := began.Add(time.Duration(float64(i) * float64(time.Second) * float64(l.conf.vms) / l.conf.rate))
			select {
			case <-time.After(time.Until(due)):
			case <-ctx.Done():
				return
			}
		}
		select {
		case turn <- l.hosts[i%len(l.hosts)]:
		case <-ctx.Done():
			return
		}
	}
}

func (l *load) note(took time.Duration, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.failed = append(l.failed, err)
		return
	}
	l.pushes++
	l.latencies = append(l.latencies, took)
}

// quantile gives a quantile of the latencies.
func (l *load) quantile(q float64) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.latencies) == 0 {
		return 0
	}
	slices.Sort(l.latencies)
	return l.latencies[int(q*float64(len(l.latencies)-1))]
}

// missed counts VMs and hosts whose newest verdict is not a TRUSTED one by the last answer that the
// Verifier took.
func (l *load) missed(ctx context.Context, c *api.Client) (missed int, example string, err error) {
	for _, h := range l.hosts {
		l.mu.Lock()
		id := l.last[h.id()]
		l.mu.Unlock()
		r, err := c.Report(ctx, id)
		if api.IsStatus(err, 404) {
			missed, example = missed+1+len(h.vms), "report "+id+" is not there"
			continue
		}
		if err != nil {
			return missed, example, err
		}
		if r.Host.State != "TRUSTED" {
			missed, example = missed+1, fmt.Sprintf("%s is %s: %+v", h.name, r.Host.State, r.Host.Reasons)
		}
		good := 0
		for _, v := range r.VMs {
			if v.State == "TRUSTED" {
				good++
			} else {
				example = fmt.Sprintf("%s is %s: %+v", v.Name, v.State, v.Reasons)
			}
		}
		missed += len(h.vms) - good
	}
	return missed, example, nil
}
