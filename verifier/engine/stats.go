package engine

import (
	"math"
	"slices"
	"sync"
	"time"

	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
)

// Bucket is what one replica counted in one minute. Its JSON is a row of the table stats.
type Bucket struct {
	VMs      int64     `json:"vms"`      // VMs' verdicts
	Trusted  int64     `json:"trusted"`  // of them
	Quotes   int64     `json:"quotes"`   // host quotes that came
	Entries  int64     `json:"entries"`  // new entries of IMA logs
	Bytes    int64     `json:"bytes"`    // of Evidence
	Queue    int64     `json:"queue"`    // answers under way, the most at a time
	Latency  Histogram `json:"latency"`  // challenge made → report committed
	Appraise Histogram `json:"appraise"` // evidence received → report committed
}

// Histogram counts durations: element i those up to 2^(i/2) milliseconds and above the one before, the last
// all that are longer.
type Histogram []int64

// Observe counts one duration.
func (h *Histogram) Observe(d time.Duration) {
	if len(*h) < histogramSize {
		*h = append(*h, make([]int64, histogramSize-len(*h))...)
	}
	i := int(math.Ceil(2 * math.Log2(max(d.Seconds()*1000, 1))))
	(*h)[min(max(i, 0), histogramSize-1)]++
}

// Add counts what o has counted.
func (h *Histogram) Add(o Histogram) {
	if len(*h) < len(o) {
		*h = append(*h, make([]int64, len(o)-len(*h))...)
	}
	for i, n := range o {
		(*h)[i] += n
	}
}

// Quantile gives the duration that part q (0 to 1) of those counted do not exceed, in seconds, as closely as the
// counts tell; 0 where there are none.
func (h Histogram) Quantile(q float64) float64 {
	var all int64
	for _, n := range h {
		all += n
	}
	if all == 0 {
		return 0
	}
	rank, below := q*float64(all), 0.0
	for i, n := range h {
		if n > 0 && below+float64(n) >= rank {
			low, high := bound(i-1), bound(i)
			return low + (high-low)*max(rank-below, 0)/float64(n)
		}
		below += float64(n)
	}
	return bound(len(h) - 1)
}

// bound is the upper end of element i, in seconds.
func bound(i int) float64 {
	if i < 0 {
		return 0
	}
	return math.Exp2(float64(i)/2) / 1000
}

// Add counts what o has counted.
func (b *Bucket) Add(o *Bucket) {
	b.VMs += o.VMs
	b.Trusted += o.Trusted
	b.Quotes += o.Quotes
	b.Entries += o.Entries
	b.Bytes += o.Bytes
	b.Queue = max(b.Queue, o.Queue)
	b.Latency.Add(o.Latency)
	b.Appraise.Add(o.Appraise)
}

// stats counts by minutes.
type stats struct {
	mu      sync.Mutex
	buckets map[int64]*Bucket
	dirty   map[int64]bool // what the database does not know
	queue   int64
}

// bucket gives the bucket of a moment; s.mu is held.
func (s *stats) bucket(now time.Time) *Bucket {
	minute := now.Unix() / 60
	if s.buckets == nil {
		s.buckets, s.dirty = make(map[int64]*Bucket), make(map[int64]bool)
	}
	b := s.buckets[minute]
	if b == nil {
		b = &Bucket{Queue: s.queue}
		s.buckets[minute] = b
	}
	s.dirty[minute] = true
	return b
}

// answer counts an answer that was appraised.
func (s *stats) answer(now time.Time, r *api.Report, bytes int, entries uint64, latency, appraisal time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.bucket(now)
	b.Quotes++
	b.Bytes += int64(bytes)
	b.Entries += int64(min(entries, math.MaxInt64)) //nolint:gosec // bounded
	for _, v := range r.VMs {
		b.VMs++
		if v.State == appraise.Trusted {
			b.Trusted++
		}
	}
	b.Latency.Observe(latency)
	b.Appraise.Observe(appraisal)
}

// under counts answers that come under way (1) or end (-1), and gives how many are.
func (s *stats) under(now time.Time, n int64) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queue += n
	if s.queue > 0 {
		b := s.bucket(now)
		b.Queue = max(b.Queue, s.queue)
	}
	return int(s.queue)
}

// changed gives copies of the buckets that the database does not know as they are, and lets go of those that nothing comes
// into any more.
func (s *stats) changed(now time.Time) map[int64]*Bucket {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[int64]*Bucket)
	for minute, b := range s.buckets {
		switch {
		case s.dirty[minute]:
			c := *b
			c.Latency, c.Appraise = slices.Clone(b.Latency), slices.Clone(b.Appraise)
			out[minute] = &c
			delete(s.dirty, minute)
		case minute < now.Unix()/60-1:
			delete(s.buckets, minute)
		}
	}
	return out
}

// again notes that the database could not be told.
func (s *stats) again(minute int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dirty[minute] = true
}

// series makes plots of steps points out of the buckets that at names by minute.
func series(from time.Time, step time.Duration, steps int, at map[int64]*Bucket) api.Series {
	points := make([]Bucket, steps)
	for minute, b := range at {
		i := int(time.Unix(60*minute, 0).Sub(from) / step)
		if i >= 0 && i < steps {
			points[i].Add(b)
		}
	}
	var s api.Series
	for i := range points {
		b := &points[i]
		s.VMs = append(s.VMs, float64(b.VMs)/step.Seconds())
		s.Trusted = append(s.Trusted, ratio(b.Trusted, b.VMs, 1))
		s.PerQuote = append(s.PerQuote, ratio(b.VMs, b.Quotes, 0))
		s.Entries = append(s.Entries, float64(b.Entries)/step.Seconds())
		s.Bytes = append(s.Bytes, float64(b.Bytes)/step.Seconds())
		s.Queue = append(s.Queue, float64(b.Queue))
		s.Latency = quantiles(s.Latency, b.Latency)
		s.Appraise = quantiles(s.Appraise, b.Appraise)
	}
	return s
}

func ratio(part, of int64, none float64) float64 {
	if of == 0 {
		return none
	}
	return float64(part) / float64(of)
}

func quantiles(q api.Quantiles, h Histogram) api.Quantiles {
	return api.Quantiles{P50: append(q.P50, h.Quantile(0.5)), P95: append(q.P95, h.Quantile(0.95)), P99: append(q.P99, h.Quantile(0.99))}
}
