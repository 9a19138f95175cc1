package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"time"
)

// tally counts and prints.
type tally struct {
	out   io.Writer
	began time.Time

	mu       sync.Mutex
	ops      map[string]int
	slowest  map[string]time.Duration
	failures int
}

func (t *tally) say(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	fmt.Fprintf(t.out, "%8.3f %s\n", time.Since(t.began).Seconds(), fmt.Sprintf(format, args...))
}

func (t *tally) count(op string, took time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ops[op]++
	t.slowest[op] = max(t.slowest[op], took)
}

func (t *tally) fail(what string) {
	t.say("FAILURE: %s", what)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.failures++
}

func (t *tally) failed() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.failures > 0
}

func (t *tally) summary() {
	t.mu.Lock()
	defer t.mu.Unlock()
	fmt.Fprintf(t.out, "\n%-34s %8s %12s\n", "operation", "times", "slowest")
	for _, op := range slices.Sorted(maps.Keys(t.ops)) {
		fmt.Fprintf(t.out, "%-34s %8d %12v\n", op, t.ops[op], t.slowest[op].Round(time.Millisecond))
	}
	fmt.Fprintf(t.out, "\n%d failures in %v\n", t.failures, time.Since(t.began).Round(time.Second))
}
