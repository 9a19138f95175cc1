package link_test

import (
	"errors"
	"strings"
	"testing"

	"virt-attest/attest"
	"virt-attest/attest/internal/linktest"
	"virt-attest/attest/link"
	"virt-attest/attest/quote"
	"virt-attest/internal/softhost"
)

func TestAlone_proves_a_host_and_nothing_of_VMs(t *testing.T) {
	h := softhost.New("good", 2)
	ev := h.Answer(h.Challenge(attest.SchemeHost))
	l, err := link.Alone(ev, &ev.Challenge, softhost.Now)
	if err != nil || l.Err() != nil || len(l.VMs) != 0 || l.Host.Quote.Bank(attest.SHA256).Get(10) == nil {
		t.Fatalf("%+v, %v", l, err)
	}
}

func TestAlone_refuses_what_is_no_answer_about_a_host(t *testing.T) {
	h := softhost.New("good", 2)
	ev := h.Answer(h.Challenge(attest.SchemeHost))
	ev.VMs = h.Answer(h.Challenge(attest.SchemeSEPA)).VMs
	_, err := link.Alone(ev, &ev.Challenge, softhost.Now)
	linktest.WantKind(t, err, link.KindMalformed)
	ev = h.Answer(h.Challenge(attest.SchemeSEPA))
	_, err = link.Alone(ev, &ev.Challenge, softhost.Now)
	linktest.WantKind(t, err, link.KindMalformed)
}

func TestAlone_tells_a_foreign_composite_from_a_broken_quote(t *testing.T) {
	h := softhost.New("good", 1)
	ev := h.Answer(h.Challenge(attest.SchemeHost))
	ev.Host.Quote = h.Answer(h.Challenge(attest.SchemeHYPA)).Host.Quote
	l, err := link.Alone(ev, &ev.Challenge, softhost.Now)
	if err != nil {
		t.Fatal(err)
	}
	linktest.WantKind(t, l.Host.Err, link.KindComposite)
	if !errors.Is(l.Host.Err, &quote.Error{Kind: quote.KindNonce}) {
		t.Errorf("the cause is lost: %v", l.Host.Err)
	}
	ev.Host.Quote.Signature[10] ^= 1
	if l, err = link.Alone(ev, &ev.Challenge, softhost.Now); err != nil || errors.Is(l.Host.Err, &link.Error{Kind: link.KindComposite}) || l.Host.Err == nil || l.Host.Quote != nil {
		t.Errorf("%+v, %v", l, err)
	}
}

func TestStatusError_has_a_sentence_for_every_status_but_one(t *testing.T) {
	id := attest.UUID{1}
	if err := link.StatusError(id, attest.VMQuoted); err != nil {
		t.Error(err)
	}
	for s, kind := range map[attest.VMStatus]link.Kind{
		attest.VMNoAnswer: link.KindNoAnswer, attest.VMNoRecord: link.KindNoRecord, attest.VMNoTPM: link.KindNoTPM,
		attest.VMNotRunning: link.KindNotRunning, attest.VMHeld: link.KindNoAnswer, attest.VMRolledBack: link.KindRollback, 0: link.KindMalformed, 8: link.KindMalformed,
	} {
		err := link.StatusError(id, s)
		linktest.WantKind(t, err, kind)
		if !strings.Contains(err.Error(), id.String()) {
			t.Errorf("%v does not say which VM", err)
		}
	}
}

// Attack 59: a good VM hides no bad host, a good host no bad VM.
func TestErr_is_the_worst_of_host_and_VMs(t *testing.T) {
	bad := link.Errorf(link.KindHash, "x")
	for name, c := range map[string]struct {
		l    link.Linked
		want error
	}{
		"all good":         {link.Linked{VMs: []link.VMLink{{}, {}}}, nil},
		"host bad":         {link.Linked{Host: link.HostLink{Err: bad}, VMs: []link.VMLink{{}}}, bad},
		"last VM unlinked": {link.Linked{VMs: []link.VMLink{{}, {LinkErr: bad}}}, bad},
		"VM's quote bad":   {link.Linked{VMs: []link.VMLink{{QuoteErr: bad}}}, bad},
	} {
		t.Run(name, func(t *testing.T) {
			if got := c.l.Err(); !errors.Is(got, c.want) || (got == nil) != (c.want == nil) {
				t.Errorf("got %v", got)
			}
		})
	}
}
