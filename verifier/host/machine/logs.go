package machine

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"sync"

	"virt-attest/attest"
	"virt-attest/attest/measurement"
	"virt-attest/internal/tpmkeys"
)

const (
	stride   = 256       // entries between two known places
	maxEntry = 4 << 20   // bytes of one entry; the kernel's own limit is lower
	chunk    = 256 << 10 // bytes of one read
)

// IMALog reads a machine's binary IMA list by index. Places are remembered, so what a reading costs
// depends on what is new and not on what was read before.
type IMALog struct {
	path, bootIDPath string

	mu     sync.Mutex
	bootID string
	file   os.FileInfo
	count  uint64  // entries known
	end    int64   // where they end
	places []int64 // of entries 0, stride, 2*stride, …
}

// NewIMALog reads the list at path; bootID is the file with the boot's ID. Neither need exist.
func NewIMALog(path, bootID string) *IMALog { return &IMALog{path: path, bootIDPath: bootID} }

// From gives the entries from resume.Count on if resume is of the running boot and not beyond the list's
// end, else from 0; whole entries, at most limit bytes. A list that does not exist is empty.
func (l *IMALog) From(resume attest.Resume, limit int) (attest.LogSegment, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f, err := os.Open(l.path)
	if errors.Is(err, fs.ErrNotExist) || l.path == "" {
		return attest.LogSegment{}, nil
	}
	if err != nil {
		return attest.LogSegment{}, err
	}
	defer func() { _ = f.Close() }()
	if err := l.catchUp(f); err != nil {
		return attest.LogSegment{}, err
	}
	seg := attest.LogSegment{BootID: l.bootID, TemplateHash: l.templateHash()}
	if resume.BootID == l.bootID && resume.Count <= l.count {
		seg.From = resume.Count
	}
	seg.Data, seg.Count, err = l.read(f, seg.From, limit)
	return seg, err
}

// moment finds the values of a quote after one of the list's entries, or gives nil.
func (l *IMALog) moment(a *tpmkeys.Attempt) ([]attest.PCRBank, error) {
	if l == nil {
		return nil, nil
	}
	seg, err := l.From(attest.Resume{}, attest.MaxIMAData)
	if err != nil || seg.Count == 0 {
		return nil, err
	}
	m, err := measurement.NewMoment(seg.TemplateHash, a.Banks, a.Covers)
	if err != nil {
		return nil, err
	}
	return m.Look(seg.Data)
}

// templateHash follows the kernel's names: binary_runtime_measurements_sha256 and so on.
func (l *IMALog) templateHash() attest.Alg {
	if i := strings.LastIndexByte(l.path, '_'); i >= 0 {
		if alg, err := attest.ParseAlg(l.path[i+1:]); err == nil {
			return alg
		}
	}
	return attest.SHA1
}

// catchUp indexes what is new. Another boot, another file, and a list that became shorter, start it anew.
func (l *IMALog) catchUp(f *os.File) error {
	id, err := readBounded(l.bootIDPath, attest.MaxText)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	bootID := attest.Clean(strings.TrimSpace(string(id)))
	st, err := f.Stat()
	if err != nil {
		return err
	}
	// Files of securityfs have no size; there a list never becomes shorter in a boot.
	if bootID != l.bootID || !os.SameFile(l.file, st) || st.Size() != 0 && st.Size() < l.end {
		l.bootID, l.count, l.end, l.places = bootID, 0, 0, nil
	}
	l.file = st
	var index indexer
	return index.run(l, f)
}

// indexer takes a list in pieces and notes where entries begin.
type indexer struct{ rest []byte }

func (x *indexer) run(l *IMALog, f io.ReaderAt) error {
	for at := l.end; ; {
		buf := make([]byte, chunk)
		n, err := f.ReadAt(buf, at)
		at += int64(n)
		x.rest = append(x.rest, buf[:n]...)
		if err2 := x.take(l); err2 != nil {
			return err2
		}
		if errors.Is(err, io.EOF) {
			return nil // an entry that is being written is not there yet
		}
		if err != nil {
			return err
		}
	}
}

func (x *indexer) take(l *IMALog) error {
	hash := l.templateHash().Size()
	for {
		n, err := measurement.NextEntry(x.rest, hash)
		if errors.Is(err, measurement.ErrIncomplete) && len(x.rest) <= maxEntry {
			return nil
		}
		if err != nil {
			return fmt.Errorf("machine: IMA list %s, entry %d: %w", l.path, l.count, err)
		}
		if l.count%stride == 0 {
			l.places = append(l.places, l.end)
		}
		l.count++
		l.end += int64(n)
		x.rest = x.rest[n:]
	}
}

// read gives whole entries from index from to the known end, at most limit bytes.
func (l *IMALog) read(f io.ReaderAt, from uint64, limit int) ([]byte, uint64, error) {
	if from == l.count {
		return nil, 0, nil
	}
	place := from / stride
	start := l.places[place]
	skip := from - place*stride
	want := min(l.end-start, int64(limit)+maxEntry)
	b := make([]byte, want)
	if n, err := f.ReadAt(b, start); err != nil && (!errors.Is(err, io.EOF) || int64(n) != want) {
		return nil, 0, err
	}
	hash := l.templateHash().Size()
	for ; skip > 0; skip-- {
		n, err := measurement.NextEntry(b, hash)
		if err != nil {
			return nil, 0, err
		}
		b = b[n:]
	}
	end, count := 0, uint64(0)
	for count < l.count-from {
		n, err := measurement.NextEntry(b[end:], hash)
		if errors.Is(err, measurement.ErrIncomplete) || err == nil && end+n > limit {
			break
		}
		if err != nil {
			return nil, 0, err
		}
		end += n
		count++
	}
	return b[:end:end], count, nil
}

// BootLog reads the TCG event log at path, nil where there is none.
func BootLog(path string) ([]byte, error) {
	b, err := readBounded(path, attest.MaxBootLog)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return b, err
}

// readBounded reads a file of at most limit bytes; a longer one is an error.
func readBounded(path string, limit int) ([]byte, error) {
	if path == "" {
		return nil, fs.ErrNotExist
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, int64(limit)+1))
	if err == nil && len(b) > limit {
		err = fmt.Errorf("machine: %s has over %d bytes", path, limit)
	}
	return b, err
}
