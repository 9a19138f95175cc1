package e2e

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"virt-attest/test/scenario"
	"virt-attest/verifier/appraise"
)

var shop = scenario.Shop

// copies needs the original on the good host and a clone with a copy of its vTPM on the attacker's.
func copies(b *bench) {
	b.check(b.Launch(b.ctx, b.Good, shop, nil))
	b.judged(shop)
	b.on(b.Verifier, "virt-attest", "rim", "assign", "web", shop.Name)
	b.trusted(shop)
	if !slices.Contains(strings.Fields(b.on(b.Attacker, "virsh", "list", "--name")), shop.Name) {
		b.check(b.CloneShop(b.ctx)) // stops the original
		b.check(b.Launch(b.ctx, b.Good, shop, nil))
		b.trusted(shop)
	}
	b.part("on a second host that the Verifier knows: the identity is taken", cloneOnKnownHost)
	b.part("answering for a bad VM whose own vTPM quotes, too: the host's record is another", relayBesideOwnQuote)
}

func cloneOnKnownHost(b *bench) {
	b.on(b.Attacker, "systemctl", "start", hostd)
	defer func() { b.check(b.Expel(b.ctx)) }()
	b.soon(30*time.Second, func() error {
		r, err := b.attest(b.Attacker, shop.Name, "--timeout", "10s")
		if err != nil {
			return err
		}
		res, err := scenario.Result(r, shop)
		if err != nil {
			return err
		}
		if res.State == appraise.Trusted {
			b.Fatal("a clone on a known host is TRUSTED")
		}
		for _, why := range res.Reasons {
			if why.Code == appraise.CodeIdentityChanged {
				b.Logf("the clone is %s%s", res.State, scenario.Texts(res))
				return nil
			}
		}
		return fmt.Errorf("the clone is %s%s", res.State, scenario.Texts(res))
	})
	b.trusted(shop) // the original is not harmed
}

func relayBesideOwnQuote(b *bench) {
	b.virsh("destroy", shop.Name)
	b.check(b.BadShop(b.ctx, true))
	b.want(shop, appraise.Untrusted, appraise.CodeLinkHash)
	if out, err := b.InGuest(b.within(20*time.Second), b.Good, shop, "grep -c 'own quote.*err=<nil>' /run/agent.log"); err != nil {
		b.Error(errors.Join(fmt.Errorf("the bad VM's own vTPM did not quote: %s", out), err))
	}
	b.virsh("destroy", shop.Name)
}
