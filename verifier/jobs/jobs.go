package jobs

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/riverdriver/riversqlite"
	"github.com/riverqueue/river/rivermigrate"
	"github.com/riverqueue/river/rivertype"
	_ "modernc.org/sqlite" // the driver of the file
)

// Config is what Open needs.
type Config struct {
	Pool *pgxpool.Pool // PostgreSQL; nil: the SQLite file Path
	Path string
	ID   string // of this replica
	Log  *slog.Logger
	Work map[string]Work // by kind

	Tries int // of a task that fails; 0: DefaultTries
}

// Work is how tasks of a kind are done.
type Work struct {
	// Do does a task for at most MaxRun. An error that is not Again's is a failure: the task is done again later.
	Do func(ctx context.Context, object string) error
	// After is called when a task has ended well, at this replica; nil: never.
	After func(ctx context.Context, object string)
	// GiveUp is called when the last attempt at a task has failed, with its error: nobody tries again. Where it fails itself
	// there is one more attempt, later. nil: the log tells.
	GiveUp func(ctx context.Context, object string, why error) error
	// Every is how often a task with no object is to be done, by one replica; 0: only when added.
	Every time.Duration
	// Calls says that the work is waiting for others: more of it goes on at a time.
	Calls bool
}

// errAgain says when a task is to go on.
type errAgain struct{ after time.Duration }

func (e *errAgain) Error() string { return fmt.Sprintf("more to do, in %v", e.after) }

// Again ends a run of a task that has not failed, and is to go on after some time.
func Again(after time.Duration) error { return &errAgain{after} }

// Queue takes and does tasks. It may be used by many goroutines.
type Queue struct {
	insert func(ctx context.Context, t task, o *river.InsertOpts) error
	stop   func(ctx context.Context) error
	log    *slog.Logger
	work   map[string]Work
	db     *sql.DB // SQLite

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// task is River's view of all that is to be done.
type task struct {
	What   string `json:"what" river:"unique"`
	Object string `json:"object" river:"unique"`
}

// Kind is River's name of a task.
func (task) Kind() string { return "task" }

// The queues.
const (
	queueOwn  = "own"   // work of this process
	queueCall = "calls" // calls to others
)

// Open brings the tables up to date and begins to do what is waiting.
func Open(ctx context.Context, c Config) (*Queue, error) {
	if c.Tries == 0 {
		c.Tries = DefaultTries
	}
	q := &Queue{log: c.Log, work: c.Work}
	q.ctx, q.cancel = context.WithCancel(context.WithoutCancel(ctx))
	var err error
	if c.Pool != nil {
		err = start(ctx, q, riverpgxv5.New(c.Pool), q.config(c))
	} else if q.db, err = openFile(c.Path); err == nil {
		err = start(ctx, q, alone{riversqlite.New(q.db)}, q.config(c))
	}
	if err != nil {
		q.cancel()
		if q.db != nil {
			_ = q.db.Close()
		}
		return nil, fmt.Errorf("jobs: %w", err)
	}
	return q, nil
}

// alone is SQLite's driver without notifications, which it would look for twenty times a second: all tasks
// come from this process, and River wakes its own workers.
type alone struct{ *riversqlite.Driver }

func (alone) SupportsListener() bool     { return false }
func (alone) SupportsListenNotify() bool { return false }

func openFile(path string) (*sql.DB, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600) // SQLite itself would leave it to the umask
	if err != nil {
		return nil, err
	}
	if err := f.Close(); err != nil {
		return nil, err
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	v := url.Values{"_txlock": {"immediate"}, "_pragma": {
		fmt.Sprintf("busy_timeout(%d)", busyTimeout.Milliseconds()), "journal_mode(WAL)", "synchronous(FULL)", "foreign_keys(ON)", "trusted_schema(OFF)"}}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Path: abs, RawQuery: v.Encode()}).String())
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	return db, nil
}

func (q *Queue) config(c Config) *river.Config {
	all := river.NewWorkers()
	river.AddWorker(all, &worker{q: q})
	conf := &river.Config{
		ID: c.ID, Logger: slog.New(quiet{c.Log.Handler()}), Workers: all, ErrorHandler: &faults{c.Log}, RetryPolicy: backoff{}, MaxAttempts: c.Tries,
		FetchCooldown: fetchEvery, FetchPollInterval: pollEvery, JobTimeout: MaxRun, RescueStuckJobsAfter: rescueAfter, SoftStopTimeout: stopTime,
		CompletedJobRetentionPeriod: keepDone, CancelledJobRetentionPeriod: keepDone, DiscardedJobRetentionPeriod: keepFailed,
		Queues: map[string]river.QueueConfig{queueOwn: {MaxWorkers: workers}, queueCall: {MaxWorkers: callWorkers}},
	}
	for _, what := range slices.Sorted(maps.Keys(c.Work)) {
		if w := c.Work[what]; w.Every > 0 {
			conf.PeriodicJobs = append(conf.PeriodicJobs, river.NewPeriodicJob(river.PeriodicInterval(w.Every),
				func() (river.JobArgs, *river.InsertOpts) { return task{What: what}, options(w) }, &river.PeriodicJobOpts{ID: what, RunOnStart: true}))
		}
	}
	return conf
}

func start[T any](ctx context.Context, q *Queue, driver riverdriver.Driver[T], conf *river.Config) error {
	m, err := rivermigrate.New(driver, &rivermigrate.Config{Logger: conf.Logger})
	if err != nil {
		return err
	}
	if err := migrate(ctx, m); err != nil {
		return err
	}
	client, err := river.NewClient(driver, conf)
	if err != nil {
		return err
	}
	ended, unsubscribe := client.SubscribeConfig(&river.SubscribeConfig{ChanSize: afterBuffer, Kinds: []river.EventKind{river.EventKindJobCompleted}})
	if err := client.Start(q.ctx); err != nil {
		unsubscribe()
		return err
	}
	q.insert = func(ctx context.Context, t task, o *river.InsertOpts) error {
		_, err := client.Insert(ctx, t, o)
		return err
	}
	q.stop = client.Stop
	q.wg.Go(func() { q.follow(ended) })
	q.stop = func(ctx context.Context) error {
		err := client.Stop(ctx)
		unsubscribe() // closes ended
		return err
	}
	return nil
}

// migrate brings River's tables up to date. Replicas that start together get in each other's way: the later one looks again.
func migrate[T any](ctx context.Context, m *rivermigrate.Migrator[T]) error {
	var err error
	for range 5 {
		if _, err = m.Migrate(ctx, rivermigrate.DirectionUp, nil); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
	return err
}

// follow calls After for tasks that have ended, until Close.
func (q *Queue) follow(ended <-chan *river.Event) {
	for e := range ended {
		t, err := decode(e.Job)
		if w := q.work[t.What]; err == nil && w.After != nil {
			w.After(q.ctx, t.Object)
		}
	}
}

func options(w Work) *river.InsertOpts {
	o := &river.InsertOpts{Queue: queueOwn, UniqueOpts: river.UniqueOpts{ByArgs: true, ByState: []rivertype.JobState{
		rivertype.JobStateAvailable, rivertype.JobStatePending, rivertype.JobStateRunning, rivertype.JobStateRetryable, rivertype.JobStateScheduled}}}
	if w.Calls {
		o.Queue = queueCall
	}
	return o
}

// Add puts a task on record, if it is not there.
func (q *Queue) Add(ctx context.Context, what, object string) error {
	w, ok := q.work[what]
	if !ok || len(object) > maxObject {
		return fmt.Errorf("jobs: no task %q, or its object has over %d bytes", what, maxObject)
	}
	if err := q.insert(ctx, task{what, object}, options(w)); err != nil {
		return fmt.Errorf("jobs: %w", err)
	}
	return nil
}

// Close lets the tasks under way end, the longer ones by their contexts, and waits for them.
func (q *Queue) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*stopTime)
	defer cancel()
	err := q.stop(ctx)
	q.cancel()
	q.wg.Wait()
	if q.db != nil {
		err = errors.Join(err, q.db.Close())
	}
	return err
}
