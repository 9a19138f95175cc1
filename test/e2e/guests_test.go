package e2e

import (
	"encoding/json"
	"strings"
	"time"

	"virt-attest/attest"
	"virt-attest/test/guest"
	"virt-attest/test/scenario"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
)

func agentHangs(b *bench) {
	before := b.latency(one)
	b.in(two, "kill -STOP $(pidof virt-attest-guest)")
	done := make(chan struct{})
	go func() {
		defer close(done)
		began := time.Now()
		r, err := b.attest(b.Good, two.Name)
		if err != nil {
			b.Error(err)
			return
		}
		if _, err := scenario.Demand(r, two, appraise.Unreachable, appraise.CodeNoAgent); err != nil {
			b.Error(err)
		}
		if d := time.Since(began); d > 15*time.Second {
			b.Errorf("a hanging agent is given up after %v", d)
		}
	}()
	during := b.latency(one)
	b.notSlower("an agent hangs", before, during)
	<-done
	r, err := b.attest(b.Good, one.Name, two.Name) // in one and the same answer
	b.check(err)
	for v, want := range map[scenario.VM]appraise.State{one: appraise.Trusted, two: appraise.Unreachable} {
		if _, err := scenario.Demand(r, v, want, ""); err != nil {
			b.Error(err)
		}
	}
	b.in(two, "kill -CONT $(pidof virt-attest-guest)")
	b.soonTrusted(30*time.Second, two)

	b.in(two, "kill -9 $(pidof virt-attest-guest)")
	b.want(two, appraise.Unreachable, appraise.CodeNoAgent)
	b.in(two, guest.AgentPath+" >> /run/agent.log 2>&1 &")
	b.soonTrusted(20*time.Second, two)
}

func agentAbsent(b *bench) {
	b.on(b.Verifier, "virt-attest", "rim", "assign", "web", mute.Name)
	b.want(mute, appraise.Unreachable, appraise.CodeNoAgent)
	res := b.want(mute, appraise.Untrusted, appraise.CodeIMAMissing, "--scheme", "hypa")
	for _, why := range res.Reasons { // what the host reads itself is there and right
		if why.Code != appraise.CodeIMAMissing {
			b.Errorf("HYPA without an agent: %s: %s", why.Code, why.Text)
		}
	}
	var pcrs []api.PCRState
	out := b.on(b.Verifier, "virt-attest", "--json", "pcrs", mute.Name)
	if err := json.Unmarshal([]byte(out), &pcrs); err != nil || len(pcrs) < attest.PCRCount {
		b.Errorf("vPCRs of a guest without an agent: %s, %v", out, err)
	}
}

func quoteFlood(b *bench) {
	before := b.latency(one)
	b.in(three, tool+" flood 12 > /run/flood.log 2>&1 &")
	time.Sleep(time.Second)
	during := b.latency(one)
	b.notSlower("a guest floods quotes", before, during)
	for range 3 { // the record that is awaited is found among all others
		b.trusted(three)
	}
	b.soon(30*time.Second, func() error {
		_, err := b.InGuest(b.within(20*time.Second), b.Good, three, "grep quotes /run/flood.log")
		return err
	})
	b.Logf("the flood was of %s", b.in(three, "cat /run/flood.log"))
	b.trusted(three)
	if size := b.on(b.Good, "du", "-sb", "/var/lib/virt-attest/store/"+three.UUID); len(strings.Fields(size)[0]) > len("4300000") {
		b.Errorf("the flood made the store grow: %s", size)
	}
}

func channelFlood(b *bench) {
	before := b.latency(one)
	b.in(three, "kill -9 $(pidof virt-attest-guest); sleep 0.2; for p in /dev/vport*; do timeout 6 cat /dev/urandom > $p 2> /dev/null & done")
	time.Sleep(500 * time.Millisecond)
	b.notSlower("a guest floods its agent's channel", before, b.latency(one))
	b.want(three, appraise.Unreachable, appraise.CodeNoAgent)
	b.in(three, "while pidof cat > /dev/null && pidof timeout > /dev/null; do sleep 0.2; done; "+guest.AgentPath+" >> /run/agent.log 2>&1 &")
	b.soonTrusted(40*time.Second, three)
}
