package labcli

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"virt-attest/test/lab"
)

func Test_a_wrong_command_line_has_exit_code_2(t *testing.T) {
	for _, args := range [][]string{{}, {"nonsense"}, {"--nonsense"}, {"clean", "everything"}, {"status", "x"}, {"down", "x"}} {
		if code := Main(args); code != exitCannot {
			t.Errorf("%q: exit code %d", args, code)
		}
	}
}

func Test_a_lab_that_is_not_up_is_named(t *testing.T) {
	c := &cli{name: "no-such-lab", cache: t.TempDir(), out: &bytes.Buffer{}, err: &bytes.Buffer{}}
	_, err := c.command(context.Background(), "exec", []string{"host", "--", "true"})
	if !errors.Is(err, lab.ErrDown) && !errors.Is(err, lab.ErrCannot) || err == nil {
		t.Errorf("got %v", err)
	}
}

func Test_progress_is_one_line_per_step_with_seconds(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(&lineHandler{out: &out, since: time.Now(), mu: &sync.Mutex{}})
	log.Info("measured", "host", "good", "took", 1500*time.Millisecond, "files", 3)
	log.Warn("some units failed")
	want := "   0.0s  good: measured (1.5s) files=3\n   0.0s  warning: some units failed\n"
	if out.String() != want {
		t.Errorf("got %q", out.String())
	}
	if strings.Count(out.String(), "\n") != 2 {
		t.Error("not one line per step")
	}
}
