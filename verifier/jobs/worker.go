package jobs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/rivertype"
)

// worker does tasks.
type worker struct {
	river.WorkerDefaults[task]
	q *Queue
}

// Work does one task.
func (w *worker) Work(ctx context.Context, j *river.Job[task]) error {
	work, ok := w.q.work[j.Args.What]
	if !ok { // of another release: one that knows it may be there
		return fmt.Errorf("jobs: this release knows no task %q", j.Args.What)
	}
	defer func() {
		if p := recover(); p != nil {
			_ = w.ended(ctx, j, work, fmt.Errorf("panic: %v", p))
			panic(p)
		}
	}()
	return w.ended(ctx, j, work, work.Do(ctx, j.Args.Object))
}

// ended gives River's answer to what came of a run.
func (w *worker) ended(ctx context.Context, j *river.Job[task], work Work, err error) error {
	var again *errAgain
	if errors.As(err, &again) {
		return river.JobSnooze(again.after)
	}
	if err == nil || j.Attempt < j.MaxAttempts {
		return err
	}
	if errors.Is(ctx.Err(), context.Canceled) { // the Verifier stops: the last attempt is still to come
		return river.JobSnooze(0)
	}
	if work.GiveUp == nil {
		return err
	}
	note, cancel := context.WithTimeout(context.WithoutCancel(ctx), giveUpTime)
	defer cancel()
	if e := work.GiveUp(note, j.Args.Object, err); e != nil {
		w.q.log.Warn("deferred work cannot be given up, and is tried again", "task", j.Args.What, "object", j.Args.Object, "err", errors.Join(err, e))
		return river.JobSnooze(maxBackoff)
	}
	return err
}

func decode(j *rivertype.JobRow) (t task, err error) {
	return t, json.Unmarshal(j.EncodedArgs, &t)
}

// backoff is how long a task that failed waits.
type backoff struct{}

// NextRetry doubles the time with every failure.
func (backoff) NextRetry(j *rivertype.JobRow) time.Time {
	d := firstBackoff << min(max(len(j.Errors), 0), 20)
	return time.Now().Add(min(d, maxBackoff))
}

// faults writes failures to the log.
type faults struct{ log *slog.Logger }

// HandleError is called after a task has failed.
func (f *faults) HandleError(_ context.Context, j *rivertype.JobRow, err error) *river.ErrorHandlerResult {
	t, _ := decode(j)
	what := "deferred work has failed, and is tried again"
	if j.Attempt >= j.MaxAttempts {
		what = "deferred work has failed too often, and is given up"
	}
	f.log.Warn(what, "task", t.What, "object", t.Object, "attempt", j.Attempt, "err", err)
	return nil
}

// HandlePanic is called after a task has panicked: it fails like any other, and nothing else does.
func (f *faults) HandlePanic(_ context.Context, j *rivertype.JobRow, p any, trace string) *river.ErrorHandlerResult {
	t, _ := decode(j)
	f.log.Error("deferred work has failed by our own fault", "task", t.What, "object", t.Object, "attempt", j.Attempt, "panic", p, "trace", trace)
	return nil
}

// quiet passes warnings and errors only: River tells every step, and failures are told by faults.
type quiet struct{ slog.Handler }

// Enabled reports whether a line is worth its place.
func (q quiet) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= slog.LevelWarn && q.Handler.Enabled(ctx, l)
}

// WithAttrs keeps the handler quiet.
func (q quiet) WithAttrs(a []slog.Attr) slog.Handler { return quiet{q.Handler.WithAttrs(a)} }

// WithGroup keeps the handler quiet.
func (q quiet) WithGroup(name string) slog.Handler { return quiet{q.Handler.WithGroup(name)} }
