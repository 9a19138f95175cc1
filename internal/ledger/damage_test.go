package ledger

import (
	"bytes"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// filled makes a store of a few lines and gives its directory, file and head.
func filled(t *testing.T) (dir, file string, seq uint64, head [32]byte) {
	t.Helper()
	dir = t.TempDir()
	c := newClock()
	w := open(t, dir, Options{Now: c.now})
	_, err := w.PowerOn("cold")
	must(t, err)
	must(t, w.Expect(quoteN(1).ExtraData, c.t.Add(time.Minute)))
	must(t, w.Quote(quoteN(1)))
	must(t, w.Quote(quoteN(2)))
	seq, head = w.Head()
	kill(t, w)
	return dir, segmentPath(dir, 1), seq, head
}

func TestVerify_sees_every_changed_byte(t *testing.T) {
	dir, file, seq, head := filled(t)
	good := contents(t, file)
	must(t, Verify(dir, vm1, seq, head))
	for i := range good {
		for _, flip := range []byte{1, 0x20} {
			bad := bytes.Clone(good)
			bad[i] ^= flip
			must(t, os.WriteFile(file, bad, 0o640))
			if err := Verify(dir, vm1, seq, head); err == nil {
				t.Fatalf("byte %d changed from %q to %q unseen", i, good[i], bad[i])
			}
			if r, err := Find(dir, vm1, quoteN(1).ExtraData); err == nil && r.Hash != quoteN(1).Hash {
				t.Fatalf("byte %d changed and Find gives a wrong hash", i)
			}
		}
	}
}

func TestVerify_sees_lines_removed_repeated_swapped_and_cut_off(t *testing.T) {
	dir, file, seq, head := filled(t)
	lines := bytes.SplitAfter(contents(t, file), []byte("\n"))
	lines = lines[:len(lines)-1]
	check := func(t *testing.T, ls [][]byte) {
		t.Helper()
		must(t, os.WriteFile(file, bytes.Join(ls, nil), 0o640))
		wantErr(t, Verify(dir, vm1, seq, head), ErrDamaged)
	}
	clone := func() [][]byte { return append([][]byte(nil), lines...) }
	for i := range lines {
		check(t, append(clone()[:i], lines[i+1:]...))
		check(t, append(append(clone()[:i], lines[i]), lines[i:]...))
		check(t, lines[:i])
		check(t, append(clone()[:i], lines[i][:len(lines[i])/2])) // in the middle of a line
		if i > 0 {
			ls := clone()
			ls[i], ls[i-1] = ls[i-1], ls[i]
			check(t, ls)
		}
	}
	wantErr(t, Verify(dir, vm1, seq, [32]byte{}), ErrDamaged)
	must(t, os.Remove(file))
	wantErr(t, Verify(dir, vm1, seq, head), ErrNotFound)
}

func TestFind_tells_damage_from_absence(t *testing.T) {
	dir, file, _, _ := filled(t)
	good := contents(t, file)
	must(t, os.WriteFile(file, bytes.Replace(good, []byte(`"awaited":true`), []byte(`"awaited":false`), 1), 0o640))
	_, err := Find(dir, vm1, quoteN(1).ExtraData)
	wantErr(t, err, ErrDamaged)
	must(t, os.WriteFile(file, good, 0o640))
	_, err = Find(dir, vm1, quoteN(5).ExtraData)
	wantErr(t, err, ErrNotFound)
}

func TestSegments_missing_or_of_another_VM_are_seen(t *testing.T) {
	dir, c := t.TempDir(), newClock()
	w := open(t, dir, small(c))
	for range 60 {
		_, err := w.PowerOn("reset")
		must(t, err)
	}
	must(t, verify(dir, w))
	middle := segmentPath(dir, w.number-1)
	saved := contents(t, middle)
	must(t, os.Remove(middle))
	wantErr(t, verify(dir, w), ErrDamaged)
	_, err := Find(dir, vm1, quoteN(1).ExtraData)
	wantErr(t, err, ErrDamaged)
	must(t, os.WriteFile(middle, contents(t, segmentPath(dir, w.number)), 0o640))
	wantErr(t, verify(dir, w), ErrDamaged)
	must(t, os.WriteFile(middle, saved[:len(saved)-10], 0o640))
	wantErr(t, verify(dir, w), ErrDamaged)
	must(t, os.WriteFile(middle, saved, 0o640))
	must(t, verify(dir, w))

	must(t, os.Rename(filepath.Join(dir, vm1.String()), filepath.Join(dir, vm2.String())))
	_, err = Find(dir, vm2, quoteN(1).ExtraData)
	wantErr(t, err, ErrDamaged)
}

func TestOpenWriter_cuts_off_a_torn_last_line_and_says_so(t *testing.T) {
	dir, file, seq, head := filled(t)
	good := contents(t, file)
	start := bytes.LastIndexByte(good[:len(good)-1], '\n') + 1
	for cut := start + 1; cut < len(good); cut += 37 {
		must(t, os.WriteFile(file, good[:cut], 0o640))
		w := open(t, dir, Options{})
		rs := records(t, dir)
		if last := rs[len(rs)-1]; last.Kind != KindRepaired || last.Count != uint64(cut-start) {
			t.Fatalf("last record %+v", last)
		}
		must(t, verify(dir, w))
		wantErr(t, Verify(dir, vm1, seq, head), ErrDamaged) // what the sidecar wrote before is gone
		kill(t, w)
	}
}

func TestOpenWriter_sets_a_damaged_file_aside_and_the_VM_still_starts(t *testing.T) {
	for name, spoil := range map[string]func(file string, good []byte) error{
		"edited":     func(f string, b []byte) error { b[len(b)/2] ^= 1; return os.WriteFile(f, b, 0o640) },
		"emptied":    func(f string, _ []byte) error { return os.Truncate(f, 0) },
		"huge":       func(f string, _ []byte) error { return os.Truncate(f, 1<<40) },
		"zeroed end": func(f string, b []byte) error { return os.WriteFile(f, append(b, make([]byte, 99)...), 0o640) },
		"a link": func(f string, _ []byte) error {
			return reallyReplace(f, func() error { return os.Symlink("/etc/passwd", f) })
		},
		"a pipe": func(f string, _ []byte) error {
			return reallyReplace(f, func() error { return syscall.Mkfifo(f, 0o640) })
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir, file, _, _ := filled(t)
			must(t, spoil(file, contents(t, file)))
			w := open(t, dir, Options{})
			_, err := w.PowerOn("cold")
			must(t, err)
			must(t, w.Expect(quoteN(9).ExtraData, time.Now().Add(time.Minute)))
			must(t, w.Quote(quoteN(9)))
			if name == "zeroed end" { // a torn line as a file system may leave it after a power loss
				must(t, verify(dir, w))
				return
			}
			_, err = Find(dir, vm1, quoteN(9).ExtraData)
			must(t, err)
			wantErr(t, verify(dir, w), ErrDamaged)
			must(t, os.Remove(file+damagedSuffix))
			must(t, verify(dir, w))
			if name == "edited" && w.Epoch() != 2 {
				t.Fatalf("epoch %d after damage, want 2", w.Epoch())
			}
		})
	}
}

func reallyReplace(file string, with func() error) error {
	if err := os.Remove(file); err != nil {
		return err
	}
	return with()
}

func TestDamaged_files_do_not_pile_up(t *testing.T) {
	dir := t.TempDir()
	for range 3 * MaxDamaged {
		w := open(t, dir, Options{})
		n := w.number
		kill(t, w)
		must(t, os.Truncate(segmentPath(dir, n), 10))
	}
	if _, files := diskUse(t, dir); files > MaxDamaged+1 {
		t.Fatalf("%d files", files)
	}
}

// CVE-2020-28407 class: the directory belongs to the sidecar's user, the reader is root.
func TestReader_follows_no_link_and_waits_for_no_pipe(t *testing.T) {
	dir, file, _, _ := filled(t)
	elsewhere := filepath.Join(t.TempDir(), "real")
	must(t, os.Rename(file, elsewhere))

	must(t, os.Symlink(elsewhere, file))
	_, err := Find(dir, vm1, quoteN(1).ExtraData)
	wantErr(t, err, ErrDamaged)
	must(t, os.Remove(file))

	must(t, os.Link(elsewhere, file))
	_, err = Find(dir, vm1, quoteN(1).ExtraData)
	wantErr(t, err, ErrDamaged)
	must(t, os.Remove(file))

	must(t, syscall.Mkfifo(file, 0o640))
	_, err = Find(dir, vm1, quoteN(1).ExtraData)
	wantErr(t, err, ErrDamaged)
	must(t, os.Remove(file))

	must(t, os.Symlink(filepath.Join(dir, vm1.String()), filepath.Join(dir, vm2.String())))
	if _, err = Find(dir, vm2, quoteN(1).ExtraData); err == nil {
		t.Fatal("a VM's directory may be a link")
	}
	if _, err = OpenWriter(dir, vm2, Options{}); err == nil {
		t.Fatal("a VM's directory may be a link")
	}
}

// CVE-2020-28407 class: a link that waits under the name of the next file.
func TestRotation_writes_through_no_link(t *testing.T) {
	dir, c := t.TempDir(), newClock()
	w := open(t, dir, small(c))
	victim := filepath.Join(t.TempDir(), "victim")
	must(t, os.WriteFile(victim, []byte("precious"), 0o600))
	must(t, os.Symlink(victim, filepath.Join(dir, vm1.String(), freshName)))
	must(t, os.Symlink(victim, segmentPath(dir, 2)))
	for range 60 {
		_, err := w.PowerOn("reset")
		must(t, err)
	}
	must(t, verify(dir, w))
	if string(contents(t, victim)) != "precious" {
		t.Fatal("the victim was written")
	}
}

func TestReader_of_a_directory_full_of_files_stops(t *testing.T) {
	dir, _, seq, head := filled(t)
	for i := range maxFiles {
		must(t, os.WriteFile(filepath.Join(dir, vm1.String(), "x"+segmentName(uint64(i))), nil, 0o600))
	}
	wantErr(t, Verify(dir, vm1, seq, head), ErrDamaged)
}
