package service

import (
	"context"
	"time"

	"virt-attest/internal/channel"
	"virt-attest/internal/sidecarproto"
)

// watch waits for a moment that is another one than hostd knows. What the guest does in between is told in one answer: however
// many events it sends, there are no more answers than one in each watchSettle. The vTPM's state is looked at, since the loops that
// move its commands must not wait for anybody.
func (s *Service) watch(ctx context.Context, payload []byte) (m sidecarproto.Moment, err error) {
	var q sidecarproto.Watch
	if err := channel.Decode(payload, &q); err != nil {
		return m, refuse("%v", err)
	}
	wait := time.Duration(q.WaitMS) * time.Millisecond
	if wait > maxWatch {
		return m, refuse("a watch of %v: at most %v", wait, maxWatch)
	}
	end := time.NewTimer(wait)
	defer end.Stop()
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for s.moment() == q.Known {
		select {
		case <-ctx.Done():
			return m, ctx.Err()
		case <-end.C:
			return s.moment(), nil
		case <-s.Agent.News():
		case <-tick.C:
		}
	}
	if q.Known.Process != 0 { // somebody is there who will be told again
		rest(ctx, watchSettle)
	}
	return s.moment(), nil
}

func rest(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

func (s *Service) moment() sidecarproto.Moment {
	m := sidecarproto.Moment{Process: s.process, Epoch: s.Ledger.Epoch(), VTPM: s.VTPM.VTPM(), Agent: s.Agent.Connected()}
	m.Ready, m.Grown = s.Agent.Events()
	return m
}
