package lab

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func Test_cleaning_spares_the_base_system_of_a_lab_that_is_up(t *testing.T) {
	cache := t.TempDir()
	for _, d := range []string{"base-used", "base-free", "guest/image", "labs"} {
		if err := os.MkdirAll(filepath.Join(cache, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	lock, err := os.Create(filepath.Join(cache, "base-used.lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_SH); err != nil {
		t.Fatal(err)
	}
	if err := removeCache(cache); !errors.Is(err, ErrBusy) {
		t.Errorf("nobody is told that something stayed: %v", err)
	}
	for name, stays := range map[string]bool{"base-used": true, "base-free": false, "guest": false, "labs": true} {
		if _, err := os.Stat(filepath.Join(cache, name)); (err == nil) != stays {
			t.Errorf("%s: stays %v, want %v", name, err == nil, stays)
		}
	}
}

func Test_a_lab_s_name_is_free_again_when_its_holder_is_gone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.lock")
	first, err := lockFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !isLocked(path) {
		t.Error("a name that is held looks free")
	}
	if _, err := lockFile(path); !errors.Is(err, ErrBusy) {
		t.Errorf("a name was given twice: %v", err)
	}
	first.Close()
	if isLocked(path) {
		t.Error("a name that nobody holds looks held")
	}
	second, err := lockFile(path)
	if err != nil {
		t.Fatal(err)
	}
	second.Close()
}
