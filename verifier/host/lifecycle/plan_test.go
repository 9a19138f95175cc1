package lifecycle

import (
	"testing"
	"time"

	"virt-attest/attest"
)

func id(n int) attest.UUID { return attest.UUID{byte(n >> 8), byte(n)} }

// clock runs a plan: every request ends well after some time.
type clock struct {
	*testing.T
	Plan
	now  time.Time
	ends []ending
	all  []*Request
	fail bool
}

type ending struct {
	at time.Time
	r  *Request
}

func newClock(t *testing.T) *clock { return &clock{T: t, now: time.Unix(1_000_000, 0)} }

func (c *clock) add(n int, k Kind) { c.Add(c.now, id(n), k, 0) }

// run lets time pass, with an answer to each request after took.
func (c *clock) run(d, took time.Duration) (requests int) {
	const step = 10 * time.Millisecond
	for end := c.now.Add(d); c.now.Before(end); c.now = c.now.Add(step) {
		for len(c.ends) > 0 && !c.ends[0].at.After(c.now) {
			c.Done(c.now, c.ends[0].r, c.fail)
			c.ends = c.ends[1:]
		}
		for {
			r, _ := c.Next(c.now)
			if r == nil {
				break
			}
			requests++
			c.all = append(c.all, r)
			c.ends = append(c.ends, ending{c.now.Add(took), r})
		}
	}
	return requests
}

func TestPlan_attests_a_VM_within_a_second_of_what_happened(t *testing.T) {
	for _, k := range kinds() {
		c := newClock(t)
		c.add(1, k)
		want := settleResume + minGap
		if k.settle() == settleStart {
			if n := c.run(time.Second, time.Second); n != 0 {
				t.Errorf("%s: asked before the firmware had time", k)
			}
			c.add(1, Measured)
			want = time.Second
		}
		if n := c.run(want, 100*time.Millisecond); n != 1 || !c.all[0].Cause(id(1), k) {
			t.Errorf("%s: %d requests", k, n)
		}
	}
}

func TestPlan_attests_a_boot_storm_of_50_VMs_in_few_challenges(t *testing.T) {
	c := newClock(t)
	for n := range 50 {
		c.add(n, Started)
		c.add(n, Measured)
		c.run(20*time.Millisecond, time.Second)
	}
	c.run(5*time.Second, time.Second)
	seen := map[attest.UUID]bool{}
	for _, r := range c.all {
		for _, v := range r.VMs {
			seen[v] = true
		}
	}
	if len(seen) != 50 || len(c.all) > 8 {
		t.Errorf("%d of 50 VMs, %d challenges", len(seen), len(c.all))
	}
}

func TestPlan_is_not_made_busy_by_a_hostile_guest(t *testing.T) {
	c := newClock(t)
	total := 0
	for range 6000 {
		for range 50 {
			c.add(1, Grown)
			c.add(1, Reset)
		}
		total += c.run(10*time.Millisecond, 20*time.Millisecond)
	}
	if most := guestBurst + int(time.Minute/guestRefill) + 1; total > most {
		t.Errorf("%d attestations in a minute, more than %d", total, most)
	}
	c.Add(c.now, id(1), Asked, attest.SchemeHYPA)
	if n := c.run(time.Second, 20*time.Millisecond); n != 1 {
		t.Errorf("the operator's request: %d", n)
	}
}

func TestPlan_misses_nothing_that_happens_during_an_attestation(t *testing.T) {
	c := newClock(t)
	c.add(1, Agent)
	c.run(500*time.Millisecond, 2*time.Second)
	c.add(1, Grown)
	if n := c.run(time.Second, 2*time.Second); n != 0 {
		t.Errorf("%d at the same time", n)
	}
	if n := c.run(2*time.Second, time.Second); n != 1 || c.all[1].Why != Grown {
		t.Errorf("%d requests after it", n)
	}
}

func TestPlan_tries_again_what_failed_until_the_VM_is_gone(t *testing.T) {
	c := newClock(t)
	c.fail = true
	c.add(1, Started)
	n := c.run(2*time.Minute, 100*time.Millisecond)
	if n < 5 || n > 12 {
		t.Errorf("%d attempts in two minutes", n)
	}
	for _, r := range c.all {
		if r.Why != Started {
			t.Errorf("why %s", r.Why)
		}
	}
	c.Gone(id(1))
	if n := c.run(2*time.Minute, 100*time.Millisecond); n != 0 {
		t.Errorf("%d attempts for a VM that is gone", n)
	}
}

func TestPlan_keeps_the_schemes_that_are_asked_for_apart(t *testing.T) {
	c := newClock(t)
	c.Add(c.now, id(1), Asked, attest.SchemeHYPA)
	c.add(2, Agent)
	c.run(2*time.Second, 100*time.Millisecond)
	if len(c.all) != 2 || len(c.all[0].VMs) != 1 || c.all[0].Scheme == c.all[1].Scheme {
		t.Errorf("%+v", c.all)
	}
}
