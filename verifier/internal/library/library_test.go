package library_test

import (
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"virt-attest/verifier/internal/library"
)

type thing struct{ text [64]byte }

func made(src []byte) *thing {
	t := &thing{}
	copy(t.text[:], src)
	return t
}

func TestLoad_makes_a_thing_once_however_many_want_it_at_the_same_time(t *testing.T) {
	var lib library.Library[thing]
	var parsed atomic.Int32
	hold := make(chan struct{})
	got := make([]*thing, 8)
	var wg sync.WaitGroup
	for i := range got {
		wg.Go(func() {
			got[i], _ = lib.Load([]byte("a"), func(src []byte) (*thing, error) {
				parsed.Add(1)
				<-hold
				return made(src), nil
			})
		})
	}
	if _, err := lib.Load([]byte("b"), func(src []byte) (*thing, error) { return made(src), nil }); err != nil {
		t.Error(err) // and another content does not wait
	}
	close(hold)
	wg.Wait()
	for _, g := range got {
		if g == nil || g != got[0] {
			t.Fatalf("%p and %p of one content", g, got[0])
		}
	}
	if parsed.Load() != 1 {
		t.Errorf("parsed %d times", parsed.Load())
	}
}

func TestLoad_keeps_no_mistake_and_nothing_that_nobody_uses(t *testing.T) {
	var lib library.Library[thing]
	bad := errors.New("bad")
	if _, err := lib.Load([]byte("a"), func([]byte) (*thing, error) { return nil, bad }); !errors.Is(err, bad) {
		t.Error(err)
	}
	parsed := 0
	load := func() {
		if got, err := lib.Load([]byte("a"), func(src []byte) (*thing, error) { parsed++; return made(src), nil }); err != nil || got == nil {
			t.Error(err)
		}
	}
	load()
	for range 10 {
		runtime.GC()
	}
	load()
	if parsed != 2 {
		t.Errorf("parsed %d times", parsed)
	}
}

func TestLoad_lets_nobody_wait_for_ever_behind_a_parser_that_panics(t *testing.T) {
	var lib library.Library[thing]
	func() {
		defer func() { _ = recover() }()
		_, _ = lib.Load([]byte("a"), func([]byte) (*thing, error) { panic("x") })
	}()
	if got, err := lib.Load([]byte("a"), func(src []byte) (*thing, error) { return made(src), nil }); err != nil || got == nil {
		t.Error(err)
	}
}
