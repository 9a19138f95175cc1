package server

import (
	"crypto/sha256"
	"errors"
	"net/http"
	"sync"
	"time"

	"virt-attest/verifier/api"
)

// repeats remembers what requests with an Idempotency-Key got, for a while and in this process.
type repeats struct {
	now func() time.Time

	mu  sync.Mutex
	got map[repeat]*repeated
}

type repeat struct{ who, key string }

type repeated struct {
	body  [32]byte
	until time.Time
	done  chan struct{} // closed when job or err is there
	job   *api.Job
	err   error
}

// errUnfinished says that a request that another one waited for broke off.
var errUnfinished = errors.New("the first request of this Idempotency-Key broke off")

func newRepeats() *repeats { return &repeats{now: time.Now, got: make(map[repeat]*repeated)} }

// once runs f, unless a request of the same caller with the same key did already: that one's job is the answer
// then. The same key with another body is an error.
func (r *repeats) once(c *call, key string, f func() (*api.Job, error)) (*api.Job, error) {
	if key == "" {
		return f()
	}
	if len(key) > maxKey {
		return nil, api.NewProblem(http.StatusBadRequest, "Idempotency-Key has more than %d characters", maxKey)
	}
	k, sum := repeat{c.who.name + "\x00" + c.who.tenant, key}, sha256.Sum256(c.body)
	x, first := r.enter(k, sum)
	if x == nil {
		return nil, api.NewProblem(http.StatusTooManyRequests, "too many requests with an Idempotency-Key are remembered")
	}
	if !first {
		if x.body != sum {
			return nil, api.NewProblem(http.StatusUnprocessableEntity, "another request came with this Idempotency-Key")
		}
		select {
		case <-x.done:
			return x.job, x.err
		case <-c.r.Context().Done():
			return nil, c.r.Context().Err()
		}
	}
	x.err = errUnfinished // what a panic leaves
	defer func() {
		if x.err != nil {
			r.drop(k) // what failed may be tried again
		}
		close(x.done)
	}()
	x.job, x.err = f()
	return x.job, x.err
}

func (r *repeats) enter(k repeat, sum [32]byte) (x *repeated, first bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	if x := r.got[k]; x != nil && now.Before(x.until) {
		return x, false
	}
	if len(r.got) >= maxRepeats {
		for old, x := range r.got {
			if !now.Before(x.until) {
				delete(r.got, old)
			}
		}
	}
	if len(r.got) >= maxRepeats {
		return nil, false
	}
	x = &repeated{body: sum, until: now.Add(repeatTime), done: make(chan struct{})}
	r.got[k] = x
	return x, true
}

func (r *repeats) drop(k repeat) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.got, k)
}
