package journal

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

func fresh(t *testing.T) *Journal {
	t.Helper()
	j, err := Create()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(j.Close)
	return j
}

func pair(t *testing.T) (a, b int) {
	t.Helper()
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return p[0], p[1]
}

func TestTransfer_counts_what_moved_over_several_calls(t *testing.T) {
	j := fresh(t)
	s, area, _ := j.Guest()
	a, b := pair(t)
	defer unix.Close(b)
	if err := s.Take.Receive(b, area, 10); !errors.Is(err, ErrAgain) {
		t.Errorf("nothing there: %v", err)
	}
	for i, part := range []string{"one", "two", "three"} {
		if _, err := unix.Write(a, []byte(part)); err != nil {
			t.Fatal(err)
		}
		if err := s.Take.Receive(b, area, len(area)); err != nil || s.Take.Done() != len("onetwothree"[:3*(i+1)+2*(i/2)]) {
			t.Fatalf("part %d: %d bytes, %v", i, s.Take.Done(), err)
		}
	}
	if got := area[:s.Take.Done()]; string(got) != "onetwothree" {
		t.Errorf("%q", got)
	}
	unix.Close(a)
	if err := s.Take.Receive(b, area, len(area)); !errors.Is(err, io.EOF) || s.Take.Done() != 11 {
		t.Errorf("end: %v, %d bytes", err, s.Take.Done())
	}
	s.Take.Reset()
	if s.Take.Done() != 0 {
		t.Error("not reset")
	}
}

func TestTransfer_never_takes_more_than_it_was_asked_for(t *testing.T) {
	s, area, _ := fresh(t).Guest()
	a, b := pair(t)
	defer unix.Close(a)
	defer unix.Close(b)
	if _, err := unix.Write(a, []byte("12345678")); err != nil {
		t.Fatal(err)
	}
	if err := s.Take.Receive(b, area, 5); err != nil || s.Take.Done() != 5 || area[5] != 0 {
		t.Errorf("%d bytes, %v", s.Take.Done(), err)
	}
}

func TestTransfer_sends_a_large_message_in_the_pieces_the_peer_makes_room_for(t *testing.T) {
	s, area, _ := fresh(t).Control()
	a, b := pair(t)
	defer unix.Close(b)
	for i := range area {
		area[i] = byte(i * 7)
	}
	var got []byte
	buf := make([]byte, 100_000)
	for s.Send.Done() < len(area) {
		if err := s.Send.Send(a, area, len(area)); err != nil && !errors.Is(err, ErrAgain) {
			t.Fatal(err)
		}
		n, err := unix.Read(b, buf)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, buf[:n]...)
	}
	unix.Close(a)
	rest, err := unix.Read(b, buf)
	for err == nil && rest > 0 {
		got = append(got, buf[:rest]...)
		rest, err = unix.Read(b, buf)
	}
	if !bytes.Equal(got, area) {
		t.Errorf("%d bytes of %d came, or others", len(got), len(area))
	}
}

func TestTransfer_to_a_peer_that_is_gone_fails_without_a_signal(t *testing.T) {
	s, area, _ := fresh(t).Guest()
	a, b := pair(t)
	defer unix.Close(a)
	unix.Close(b)
	if err := s.Send.Send(a, area, 10); !errors.Is(err, unix.EPIPE) || s.Send.Done() != 0 {
		t.Errorf("%v, %d bytes", err, s.Send.Done())
	}
}

func TestOpen_finds_what_the_process_before_left(t *testing.T) {
	j := fresh(t)
	if !j.Locked {
		t.Error("the journal's first page is not locked into memory")
	}
	s, area, _ := j.Guest()
	copy(area, "command")
	s.Step.Store(3)
	j.State().Quotes.Store(7)
	fd, err := unix.FcntlInt(uintptr(j.FD()), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Open(fd)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	s2, area2, _ := again.Guest()
	if s2.Step.Load() != 3 || again.State().Quotes.Load() != 7 || !bytes.HasPrefix(area2, []byte("command")) || &area[0] == &area2[0] {
		t.Error("something else")
	}
	if err := unix.Ftruncate(j.FD(), 0); err == nil {
		t.Error("the memory can be cut off under the process")
	}
}

func TestOpen_refuses_what_is_no_journal_of_this_layout(t *testing.T) {
	for name, size := range map[string]int64{"empty": 0, "short": totalSize - 1, "no magic": totalSize} {
		fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Ftruncate(fd, size); err != nil {
			t.Fatal(err)
		}
		if j, err := Open(fd); err == nil {
			j.Close()
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestTrim_gives_the_memory_of_large_messages_back_and_keeps_the_rest(t *testing.T) {
	j := fresh(t)
	_, request, reply := j.Control()
	request[0], request[len(request)-1], reply[len(reply)-1] = 1, 1, 1
	j.Trim()
	if request[0] != 1 || request[len(request)-1] != 0 || reply[len(reply)-1] != 0 {
		t.Error("not so")
	}
}

// The layout is read by the next version of the program: whoever changes it changes Version.
func TestLayout_is_the_one_of_its_version(t *testing.T) {
	got := [...]uintptr{
		unsafe.Offsetof(header{}.outline), unsafe.Sizeof(outline{}),
		unsafe.Offsetof(header{}.state), unsafe.Offsetof(header{}.guest), unsafe.Offsetof(header{}.own),
		unsafe.Offsetof(header{}.ctrl), unsafe.Offsetof(header{}.intent), unsafe.Sizeof(header{}), unsafe.Sizeof(Transfer{}), totalSize,
	}
	want := [...]uintptr{8, 56, 64, 136, 472, 808, 1144, 1344, 80, 2142208}
	if Version != 3 || got != want {
		t.Errorf("version %d: %v, want %v", Version, got, want)
	}
}
