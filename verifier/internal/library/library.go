// Package library holds what was made from a file, once for each content, as long as somebody uses it.
package library

import (
	"crypto/sha256"
	"errors"
	"sync"
	"weak"
)

// errPanicked is what those get who waited for a parse that did not return.
var errPanicked = errors.New("library: the content could not be read")

// Library makes each T once. The zero value is ready; it may be used by many goroutines.
type Library[T any] struct {
	mu     sync.Mutex
	made   map[[sha256.Size]byte]weak.Pointer[T]
	making map[[sha256.Size]byte]*work[T]
}

// work is one T on its way, for all who want it.
type work[T any] struct {
	done chan struct{}
	made *T
	err  error
}

// Load gives the T of a content, by what was made of it before or by parse. Others that want the
// same meanwhile wait for this one; others that want something else do not.
func (l *Library[T]) Load(src []byte, parse func([]byte) (*T, error)) (*T, error) {
	key := sha256.Sum256(src)
	l.mu.Lock()
	if t := l.made[key].Value(); t != nil {
		l.mu.Unlock()
		return t, nil
	}
	w, ok := l.making[key]
	if ok {
		l.mu.Unlock()
		<-w.done
		return w.made, w.err
	}
	w = &work[T]{done: make(chan struct{}), err: errPanicked}
	if l.making == nil {
		l.made, l.making = map[[sha256.Size]byte]weak.Pointer[T]{}, map[[sha256.Size]byte]*work[T]{}
	}
	l.making[key] = w
	l.mu.Unlock()

	defer l.finish(key, w)
	w.made, w.err = parse(src)
	return w.made, w.err
}

// finish keeps what was made and drops what nobody uses any more.
func (l *Library[T]) finish(key [sha256.Size]byte, w *work[T]) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.making, key)
	for k, p := range l.made {
		if p.Value() == nil {
			delete(l.made, k)
		}
	}
	if w.err == nil {
		l.made[key] = weak.Make(w.made)
	}
	close(w.done)
}
