package lab

import (
	"crypto/sha256"
	"fmt"
	"io"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// digestCache spares hashing the base system's files once for each host.
type digestCache struct {
	mu   sync.Mutex
	sums map[fileKey][sha256.Size]byte
}

// fileKey is one content: whatever changes a file changes its ctime.
type fileKey struct {
	path         string
	ino          uint64
	size         int64
	mtime, ctime unix.Timespec
}

func (c *digestCache) sum(key fileKey, r io.Reader) (d [sha256.Size]byte, err error) {
	c.mu.Lock()
	d, ok := c.sums[key]
	c.mu.Unlock()
	if ok {
		return d, nil
	}
	w := sha256.New()
	if n, err := io.Copy(w, io.LimitReader(r, maxFileSize+1)); err != nil || n > maxFileSize {
		return d, fmt.Errorf("lab: measure %s: %d bytes: %w", key.path, n, err)
	}
	w.Sum(d[:0])
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sums == nil {
		c.sums = map[fileKey][sha256.Size]byte{}
	}
	c.sums[key] = d
	return d, nil
}

// digest hashes a file of the container, which may be named by a link.
func (r *rootFS) digest(name string, seen *digestCache) (measured, error) {
	f, err := r.open(name)
	if err != nil {
		return measured{}, err
	}
	defer f.Close()
	path, err := realPath(f)
	if err != nil {
		return measured{}, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return measured{}, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return measured{}, fmt.Errorf("lab: measure %s: not a regular file", name)
	}
	d, err := seen.sum(fileKey{path, st.Ino, st.Size, st.Mtim, st.Ctim}, f)
	return measured{path, d}, err
}

// sorted gives the keys of a set, bounded.
func sorted(set map[string]bool) ([]string, error) {
	if len(set) > maxMeasured {
		return nil, fmt.Errorf("lab: %d files to measure, at most %d", len(set), maxMeasured)
	}
	var keys []string
	for k := range set {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys, nil
}
