// Package imalog reads the kernel's binary IMA measurement list in pieces of whole entries,
// from any entry on. The list only grows and has no index, so a reader that starts at entry
// n pays for all before it; Log keeps the places where earlier readings ended, and a reading
// that goes on at one of them costs what is new.
package imalog

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"

	"virt-attest/attest"
	"virt-attest/attest/measurement"
)

// ErrTooLarge says that one entry alone is larger than the reader takes.
var ErrTooLarge = errors.New("imalog: entry over the size limit")

// Log is one measurement list. Its methods may be called by any goroutine.
type Log struct {
	path string
	alg  attest.Alg

	mu    sync.Mutex
	kept  []*cursor // most recently used last
	reads uint64    // bytes read from the kernel, for tests
}

// New is the list at path, whose template digests are of alg (attest.SHA1 for
// /sys/kernel/security/ima/binary_runtime_measurements).
func New(path string, alg attest.Alg) *Log { return &Log{path: path, alg: alg} }

// Chunk is a run of whole entries. More says that at least one follows.
type Chunk struct {
	From, Count uint64
	Data        []byte
	More        bool
}

// Read gives the entries from index from on, at most maxBytes of them. A list that is shorter
// than from gives an empty chunk at its end: Chunk.From says where it is.
func (l *Log) Read(from uint64, maxBytes int) (*Chunk, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c, err := l.at(from)
	if err != nil {
		return nil, err
	}
	chunk, err := l.read(c, from, maxBytes)
	if err != nil {
		return nil, errors.Join(err, c.f.Close())
	}
	l.keep(c)
	return chunk, nil
}

// Close forgets every kept place.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var err error
	for _, c := range l.kept {
		err = errors.Join(err, c.f.Close())
	}
	l.kept = nil
	return err
}

// at takes the kept place closest before index from, or the beginning.
func (l *Log) at(from uint64) (*cursor, error) {
	best := -1
	for i, c := range l.kept {
		if c.index <= from && (best < 0 || c.index > l.kept[best].index) {
			best = i
		}
	}
	if best >= 0 {
		c := l.kept[best]
		l.kept = slices.Delete(l.kept, best, best+1)
		return c, nil
	}
	f, err := os.Open(l.path)
	if err != nil {
		return nil, err
	}
	return &cursor{f: f, hash: l.alg.Size()}, nil
}

func (l *Log) keep(c *cursor) {
	l.kept = append(l.kept, c)
	if len(l.kept) > maxKept {
		l.kept[0].f.Close()
		l.kept = slices.Delete(l.kept, 0, 1)
	}
}

func (l *Log) read(c *cursor, from uint64, maxBytes int) (*Chunk, error) {
	defer func() { l.reads += c.read; c.read = 0 }()
	for c.index < from {
		n, err := c.peek()
		if err != nil {
			return nil, err
		}
		if n == 0 {
			return &Chunk{From: c.index}, nil
		}
		c.take(n)
	}
	chunk := &Chunk{From: c.index}
	for {
		n, err := c.peek()
		if err != nil {
			return nil, err
		}
		if n > maxBytes && chunk.Count == 0 {
			return nil, fmt.Errorf("%w: entry %d has %d bytes, at most %d", ErrTooLarge, c.index, n, maxBytes)
		}
		if n == 0 || len(chunk.Data)+n > maxBytes {
			chunk.More = n > 0
			return chunk, nil
		}
		chunk.Data = append(chunk.Data, c.take(n)...)
		chunk.Count++
	}
}

// cursor is a place in the list: an open file and what was read ahead.
type cursor struct {
	f     *os.File
	hash  int
	index uint64 // of the entry that buf begins with
	buf   []byte
	read  uint64
}

// peek gives the size of the next whole entry, 0 at the list's present end.
func (c *cursor) peek() (int, error) {
	for {
		n, err := measurement.NextEntry(c.buf, c.hash)
		if err == nil {
			return n, nil
		}
		if !errors.Is(err, measurement.ErrIncomplete) {
			return 0, fmt.Errorf("imalog: entry %d: %w", c.index, err)
		}
		if len(c.buf) > measurement.MaxEntry {
			return 0, fmt.Errorf("%w: entry %d", ErrTooLarge, c.index)
		}
		switch err := c.fill(); {
		case errors.Is(err, io.EOF):
			return 0, nil // the kernel hands out whole entries: the rest comes with the next reading
		case err != nil:
			return 0, err
		}
	}
}

func (c *cursor) fill() error {
	c.buf = slices.Grow(c.buf, readSize)
	n, err := c.f.Read(c.buf[len(c.buf) : len(c.buf)+readSize])
	c.buf = c.buf[:len(c.buf)+n]
	c.read += uint64(n)
	if n > 0 {
		return nil
	}
	return err
}

func (c *cursor) take(n int) []byte {
	b := c.buf[:n]
	c.buf = c.buf[n:]
	c.index++
	if len(c.buf) == 0 {
		c.buf = nil // an idle place holds no memory
	}
	return b
}
