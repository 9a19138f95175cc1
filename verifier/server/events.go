package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	"virt-attest/verifier/api"
)

type eventsIn struct {
	After   int64    `query:"after" doc:"ID of the last event that is known"`
	Kind    []string `query:"kind" doc:"kinds, between commas" one:"verdict,host,vm,document,settings,alert,replica,reconcile,action"`
	Machine string   `query:"machine" doc:"UUID of a VM or ID of a host"`
	Newest  bool     `query:"newest" doc:"newest first; after is then an upper bound"`
	Limit   int      `query:"limit" doc:"at most 1000; 0: 100"`
	Last    string   `header:"Last-Event-ID" doc:"of a stream that broke: goes before after"`
}

func (in *eventsIn) filter() api.EventFilter {
	return api.EventFilter{After: in.After, Kinds: in.Kind, Machine: in.Machine, Newest: in.Newest}
}

func number(n int64) string { return strconv.FormatInt(n, 10) }

// events answers with a part of the list, or with a stream where the client asks for that.
func (s *Server) events(c *call, in *eventsIn) error {
	c.w.Header().Set("Vary", "Accept")
	if !prefers(c.r, api.TypeEvents, api.TypeJSON) {
		ctx, cancel := context.WithTimeout(c.r.Context(), writeTimeout)
		defer cancel()
		c.r = c.r.WithContext(ctx)
		b, err := s.batch(c, in.filter(), pageIn{Limit: in.Limit})
		if err != nil {
			return err
		}
		return c.json(b)
	}
	if in.Last != "" {
		id, err := strconv.ParseInt(in.Last, 10, 64)
		if err != nil || id < 0 {
			return api.NewProblem(http.StatusBadRequest, "Last-Event-ID is not the ID of an event")
		}
		in.After = id
	}
	if in.Newest {
		return api.NewProblem(http.StatusBadRequest, "a stream is not newest first")
	}
	return s.stream(c, in)
}

// batch gives a part of the list of events. A cursor is the ID of the last event that the caller has.
func (s *Server) batch(c *call, f api.EventFilter, in pageIn) (*api.Batch[api.Event], error) {
	p, err := in.page()
	if err != nil {
		return nil, err
	}
	if p.Cursor != "" {
		if f.After, err = strconv.ParseInt(p.Cursor, 10, 64); err != nil || f.After < 1 {
			return nil, api.NewProblem(http.StatusBadRequest, "the cursor is not one of this list")
		}
	}
	if f.Limit = p.Limit; f.Limit == 0 {
		f.Limit = api.DefaultPageSize
	}
	l, err := s.svc.Events(c.r.Context(), c.who.caller(), f)
	if err != nil {
		return nil, err
	}
	b := &api.Batch[api.Event]{Items: append([]api.Event{}, l...)}
	if len(l) == f.Limit {
		b.Next = number(l[len(l)-1].ID)
	}
	return b, nil
}

// streams counts event streams, in all and of each caller.
type streams struct {
	mu    sync.Mutex
	total int
	each  map[string]int
}

func (s *streams) enter(who string) (leave func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.total >= maxEventStreams || s.each[who] >= maxEventStreamsEach {
		return nil, api.NewProblem(http.StatusTooManyRequests, "too many event streams are open (%d of this caller)", s.each[who])
	}
	if s.each == nil {
		s.each = make(map[string]int)
	}
	s.total++
	s.each[who]++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.total--
		if s.each[who]--; s.each[who] == 0 {
			delete(s.each, who)
		}
	}, nil
}

// stream sends events as they happen, until the client goes, the Verifier ends, the credential counts no more, or
// the client does not read: then it is cut off, and comes back with the last ID that it got.
func (s *Server) stream(c *call, in *eventsIn) error {
	leave, err := s.streams.enter(c.who.name)
	if err != nil {
		return err
	}
	defer leave()
	ctx, cancel := context.WithTimeout(c.r.Context(), streamTime)
	defer cancel()
	if in.After == 0 && in.Last == "" {
		if in.After, err = s.newest(ctx, c); err != nil {
			return err
		}
	}
	c.w.Header().Set("Content-Type", api.TypeEvents)
	c.w.Header().Set("X-Accel-Buffering", "no")
	if err := s.push(c, fmt.Appendf(nil, "retry: %d\nid: %d\n\n", retryAfter.Milliseconds(), in.After)); err != nil {
		return err
	}
	events := make(chan api.Event, streamBuffer)
	var followed error
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(events)
		followed = s.svc.Follow(ctx, c.who.caller(), in.filter(), func(e api.Event) error {
			select {
			case events <- e:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	})
	err = s.pump(ctx, c, events)
	cancel()
	for range events { // lets go of Follow
		continue
	}
	wg.Wait()
	if err == nil && followed != nil && !errors.Is(followed, context.Canceled) && !errors.Is(followed, context.DeadlineExceeded) {
		s.log.Warn("an event stream ended", "who", c.who.name, "err", followed)
	}
	return err
}

// newest gives the ID of the last event.
func (s *Server) newest(ctx context.Context, c *call) (int64, error) {
	l, err := s.svc.Events(ctx, c.who.caller(), api.EventFilter{Newest: true, Limit: 1})
	if err != nil || len(l) == 0 {
		return 0, err
	}
	return l[0].ID, nil
}

// pump writes events, and a comment where there are none for long.
func (s *Server) pump(ctx context.Context, c *call, events <-chan api.Event) error {
	tick := time.NewTicker(s.heartbeat)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.closing:
			return nil
		case <-tick.C:
			if !s.again(ctx, c.who, viewers) {
				return nil
			}
			if err := s.push(c, []byte(": \n\n")); err != nil {
				return err
			}
		case e, ok := <-events:
			if !ok {
				return nil
			}
			b, err := encodeEvent(e)
			if err != nil {
				return errors.Join(errSent, err)
			}
			if err := s.push(c, b); err != nil {
				return err
			}
		}
	}
}

// encodeEvent makes an event's lines. JSON has no line ends, and the stream no names: a browser's onmessage gets all.
func encodeEvent(e api.Event) ([]byte, error) {
	b, err := json.Marshal(e)
	if err != nil {
		return nil, err
	}
	return fmt.Appendf(nil, "id: %d\ndata: %s\n\n", e.ID, b), nil
}

// push writes and flushes within the time that a reader has.
func (s *Server) push(c *call, b []byte) error {
	rc := http.NewResponseController(c.w)
	_ = rc.SetWriteDeadline(time.Now().Add(s.patience))
	if _, err := c.w.Write(b); err != nil {
		return errors.Join(errSent, err)
	}
	if err := rc.Flush(); err != nil {
		return errors.Join(errSent, err)
	}
	return nil
}
