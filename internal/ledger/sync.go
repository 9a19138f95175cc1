package ledger

import "os"

// syncer flushes power-ons to the disk beside the caller: a reset of the guest, during which QEMU
// stands still, must not wait for a slow disk. It owns one goroutine from start to stop.
type syncer struct {
	work chan *os.File
	done chan struct{}
}

func (s *syncer) start(dir vmDir) {
	s.work, s.done = make(chan *os.File, 1), make(chan struct{})
	go func() {
		defer close(s.done)
		for f := range s.work {
			// A failed flush is not the caller's: the records are in the page cache, and a
			// disk that cannot take them fails the next write. A file that was closed
			// meanwhile is followed by one that begins with the same epoch.
			_ = f.Sync()
			_ = dir.f.Sync()
		}
	}()
}

// wake asks for a flush of f; one that is asked for already is enough, unless it is for another file.
func (s *syncer) wake(f *os.File) {
	for {
		select {
		case s.work <- f:
			return
		default:
		}
		select {
		case <-s.work:
		default:
		}
	}
}

func (s *syncer) stop() {
	close(s.work)
	<-s.done
}
