package journal

import (
	"log/slog"
	"strings"
	"testing"
)

func Test_lines_for_the_journal_carry_their_priority_and_nothing_twice(t *testing.T) {
	var b strings.Builder
	log := newLogger(&b, slog.LevelInfo, true).With("vm", "x")
	log.Debug("not wanted")
	log.Info("fine", "level", "own")
	log.WithGroup("g").Warn("odd", "n", 1)
	log.Error("bad\nline")
	want := "<6>msg=fine vm=x level=own\n<4>msg=odd vm=x g.n=1\n<3>msg=\"bad\\nline\" vm=x\n"
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
}

func Test_lines_elsewhere_have_time_and_level(t *testing.T) {
	var b strings.Builder
	newLogger(&b, slog.LevelInfo, false).Warn("odd")
	if s := b.String(); !strings.Contains(s, "time=") || !strings.Contains(s, "level=WARN msg=odd") {
		t.Error(s)
	}
}
