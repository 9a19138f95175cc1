package ledger

import (
	"bytes"
	"time"
)

// bucket is a token bucket for quotes that nobody awaits.
type bucket struct {
	tokens float64
	at     time.Time
}

// take takes a token; a clock that was set back gives none.
func (b *bucket) take(now time.Time) bool {
	if d := now.Sub(b.at); d > 0 {
		b.tokens = min(Burst, b.tokens+d.Seconds()/Interval.Seconds())
	}
	b.at = now
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}

// admit decides whether a quote gets a record of its own.
func (w *Writer) admit(a *awaited, now time.Time) bool {
	if a != nil {
		return len(a.quotes) < MaxPerAwaited
	}
	return w.bucket.take(now)
}

// live finds the announcement that a quote over extra answers.
func (w *Writer) live(extra []byte, now time.Time) *awaited {
	a := w.awaited[string(extra)]
	if a == nil || now.After(a.until) {
		return nil
	}
	return a
}

// repeats says whether q is the last recorded quote once more.
func (w *Writer) repeats(q Quote) bool {
	l := &w.last
	return q.InFlight != 0 && l.Kind == KindQuote && l.InFlight == q.InFlight && l.Epoch == w.epoch &&
		l.Hash == q.Hash && bytes.Equal(l.Extra, q.ExtraData) && bytes.Equal(l.Signer, q.Signer)
}

// remember keeps r for repeats and, where it is awaited, for the carry-over.
func (w *Writer) remember(r Record) {
	r.Extra, r.Signer = bytes.Clone(r.Extra), bytes.Clone(r.Signer)
	w.last = r
	if a := w.awaited[string(r.Extra)]; a != nil && r.Awaited {
		a.quotes = append(a.quotes, r)
	}
}

// expire forgets announcements whose time is over.
func (w *Writer) expire(now time.Time) {
	for k, a := range w.awaited {
		if now.After(a.until) {
			delete(w.awaited, k)
		}
	}
}

// drop counts a quote and now and then records the count.
func (w *Writer) drop(now time.Time) error {
	w.dropped++
	if since := now.Sub(w.told); since >= 0 && since < dropInterval {
		return nil
	}
	return w.flushDropped()
}

func (w *Writer) flushDropped() error {
	if w.dropped == 0 {
		return nil
	}
	if err := w.append(&Record{Kind: KindDropped, Count: w.dropped}); err != nil {
		return err
	}
	w.dropped, w.told = 0, w.now()
	return nil
}
