package journal

import (
	"testing"

	"golang.org/x/sys/unix"
)

// later makes a journal one of a later version.
func later(t *testing.T, j *Journal) int {
	t.Helper()
	j.h.magic = j.h.magic&^0xff | 0x7f
	return j.FD()
}

func TestSucceed_knows_what_the_other_version_knew_and_what_is_to_be_ended(t *testing.T) {
	for _, c := range []struct {
		name string
		set  func(*Journal)
		want Left
	}{
		{"nothing under way", func(*Journal) {}, Left{}},
		{"a command in swtpm", func(j *Journal) { j.h.guest.Step.Store(2) }, Left{Guest: Answer, SWTPM: true}},
		{"a command that was taken", func(j *Journal) { j.h.guest.Take.count.Store(12) }, Left{Guest: Answer}},
		{"a response that was not delivered", func(j *Journal) { j.h.guest.Step.Store(GuestReplying); j.h.guest.Size.Store(10) }, Left{Guest: Answer}},
		{"a response that was delivered", func(j *Journal) {
			j.h.guest.Step.Store(GuestReplying)
			j.h.guest.Size.Store(10)
			j.h.guest.Reply.count.Store(10)
		}, Left{}},
		{"a part of a response", func(j *Journal) {
			j.h.guest.Step.Store(GuestReplying)
			j.h.guest.Size.Store(10)
			j.h.guest.Reply.count.Store(3<<32 | 2)
		}, Left{Guest: Break}},
		{"a command of our own", func(j *Journal) { j.h.own.Step.Store(1) }, Left{SWTPM: true}},
		{"a control command", func(j *Journal) {
			_, request, _ := j.Control()
			copy(request, []byte{0, 0, 0, 0x0c})
			j.h.ctrl.Step.Store(3)
		}, Left{Control: Answer, SWTPM: true, Command: 0x0c}},
	} {
		t.Run(c.name, func(t *testing.T) {
			old := fresh(t)
			old.State().Quotes.Store(7)
			old.State().Attached.Store(1)
			old.h.guest.Seq.Store(41)
			c.set(old)
			j, left, err := Succeed(later(t, old))
			if err != nil {
				t.Fatal(err)
			}
			defer j.Close()
			if left != c.want {
				t.Errorf("%+v, want %+v", left, c.want)
			}
			s, _, _ := j.Guest()
			if j.State().Quotes.Load() != 7 || j.State().Attached.Load() != 1 || s.Step.Load() != 0 || s.Seq.Load() <= 41 {
				t.Error("the state is another")
			}
		})
	}
}

func TestSucceed_refuses_outlines_that_lead_astray(t *testing.T) {
	for name, set := range map[string]func(*Journal){
		"no outline (version 1)":       func(j *Journal) { j.h.magic = j.h.magic&^0xff | 1 },
		"no journal":                   func(j *Journal) { j.h.magic = 0 },
		"a state behind the header":    func(j *Journal) { j.h.outline.state = pageSize - 8 },
		"a step behind the header":     func(j *Journal) { j.h.outline.own.step = pageSize - 4 },
		"a request behind the journal": func(j *Journal) { j.h.outline.ctrl.request = totalSize },
	} {
		old := fresh(t)
		fd := later(t, old)
		set(old)
		if j, _, err := Succeed(fd); err == nil {
			j.Close()
			t.Errorf("%s: accepted", name)
		}
	}
	fd, err := unix.MemfdCreate("empty", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if j, _, err := Succeed(fd); err == nil {
		j.Close()
		t.Error("empty: accepted")
	}
}
