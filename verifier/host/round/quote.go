package round

import (
	"context"
	"time"

	"virt-attest/attest"
	"virt-attest/attest/binding"
)

// Run makes the quotes until ctx ends.
func (e *Engine) Run(ctx context.Context) error {
	for {
		batch := e.next(ctx)
		if batch == nil {
			return nil
		}
		e.quote(ctx, batch)
	}
}

// next waits for a round's tickets; nil when ctx ends.
func (e *Engine) next(ctx context.Context) []*ticket {
	var end <-chan time.Time
	over := false
	for {
		batch, some := e.take(over)
		if len(batch) > 0 {
			return batch
		}
		if some && end == nil {
			end = time.After(e.linger)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-e.wake:
		case <-end:
			over = true
		}
	}
}

// take gives the tickets of the next round, if it shall begin: when nobody is on the way to it or the
// time to wait for them is over. some says that there is something to wait with.
func (e *Engine) take(over bool) (batch []*ticket, some bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	var rest []*ticket
	for _, t := range e.ready {
		if t.ctx.Err() == nil {
			rest = append(rest, t)
		}
	}
	if e.ready = rest; len(rest) == 0 || e.collecting > 0 && !over {
		return nil, len(rest) > 0
	}
	if rest[0].exact != nil {
		e.ready = rest[1:]
		return rest[:1:1], true
	}
	e.ready = nil
	for _, t := range rest {
		if t.exact == nil {
			batch = append(batch, t)
		} else {
			e.ready = append(e.ready, t)
		}
	}
	return batch, true
}

// quote is one round: one quote of the pTPM (SEPA step 4).
func (e *Engine) quote(ctx context.Context, batch []*ticket) {
	items := make([]attest.Digest, len(batch))
	for i, t := range batch {
		items[i] = t.item
	}
	extra := binding.Round(items)
	if batch[0].exact != nil {
		extra = *batch[0].exact
	}
	begin := time.Now()
	e.note(func() { e.began = begin })
	defer e.note(func() { e.began = time.Time{} })
	q, pcrs, err := e.host.TPM.Quote(ctx, extra, e.host.IMA)
	took := time.Since(begin)
	e.linger = min(took, maxLinger)
	if err != nil {
		e.log.Error("the physical TPM made no quote", "challenges", len(batch), "error", err)
	} else {
		e.log.Debug("SEPA step 4, HYPA: the physical TPM quoted once for the round", "challenges", len(batch), "took", took, "extra", attest.HexBytes(extra[:8]))
	}
	for i, t := range batch {
		t.done <- outcome{quote: q, pcrs: pcrs, in: binding.Include(items, i), err: err}
	}
}

// Healthy says whether the engine still gets anywhere: no quote has been under way for longer than
// the TPM's own time limits allow.
func (e *Engine) Healthy() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.began.IsZero() || time.Since(e.began) < maxQuote
}
