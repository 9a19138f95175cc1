package engine

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"virt-attest/attest"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
	"virt-attest/verifier/evaluate"
	"virt-attest/verifier/store"
)

// What deferred work there is, by River's kind.
const (
	taskReappraise = "reappraise"       // object: ID of a job, "" the sweep
	taskHosts      = "reappraise-hosts" // object: chunk
	taskImpact     = "impact"           // object: ID of a job
	taskWebhook    = "webhook"          // object: ID of a webhook
	taskPrune      = "prune"
	taskKeys       = "keys"
)

// chunk is a part of a re-appraisal: the results on some hosts.
type chunk struct {
	Job   string   `json:"job"` // "" the sweep
	N     int      `json:"n"`
	Hosts []string `json:"hosts"`
}

// reappraise has all results judged again that are outdated, from stored Evidence. They read PENDING where they were
// TRUSTED, from the moment of the change until then.
func (e *Engine) reappraise(ctx context.Context, who api.Caller, why string) (*api.Job, error) {
	n, err := e.store.CountOutdated(ctx)
	if err != nil {
		return nil, fromStore(err, "results")
	}
	if n == 0 {
		return e.nothingToDo(ctx, who)
	}
	return e.newJob(ctx, who, taskReappraise, map[string]string{"of": why}, n)
}

// doReappraise divides a re-appraisal among the replicas, by hosts.
func (e *Engine) doReappraise(ctx context.Context, job string) error {
	after, n := "", 0
	for {
		hosts, err := e.store.OutdatedHosts(ctx, after, hostsPerChunk)
		if err != nil {
			return err
		}
		if len(hosts) == 0 {
			break
		}
		after = hosts[len(hosts)-1]
		c := chunk{Job: job, N: n, Hosts: hosts}
		n++
		if job != "" {
			if err := e.store.PutChunk(ctx, job, c.N); err != nil {
				return err
			}
		}
		b, err := json.Marshal(c)
		if err != nil {
			return err
		}
		if err := e.jobs.Add(ctx, taskHosts, string(b)); err != nil {
			return err
		}
	}
	if job == "" {
		return nil
	}
	return e.chunkDone(ctx, job, -1, 0)
}

// doHosts does a chunk. What was judged is not outdated any more, so that a second run goes on after it.
func (e *Engine) doHosts(ctx context.Context, object string) error {
	var c chunk
	if err := json.Unmarshal([]byte(object), &c); err != nil {
		return err
	}
	total := 0
	for _, h := range c.Hosts {
		n, err := e.reappraiseHost(ctx, h)
		if err != nil {
			return err
		}
		total += n
	}
	if c.Job == "" {
		return nil
	}
	return e.chunkDone(ctx, c.Job, c.N, total)
}

// chunkDone counts a chunk of a job, once, and ends the job when all are done. Chunk -1 says that all chunks are known.
func (e *Engine) chunkDone(ctx context.Context, job string, n, machines int) error {
	ended, err := e.store.ChunkDone(ctx, job, n, machines, time.Now())
	if errors.Is(err, store.ErrNotFound) { // the job is long gone
		return nil
	}
	if err != nil || !ended {
		return err
	}
	return e.store.PutEvents(ctx, []api.Event{{Time: time.Now(), Kind: api.EventReconcile, Name: job, Text: "a re-appraisal has ended"}})
}

// reappraiseHost judges the outdated results on a host again, and says how many there were.
func (e *Engine) reappraiseHost(ctx context.Context, host string) (int, error) {
	rows, err := e.store.ResultsOn(ctx, host)
	if err != nil {
		return 0, err
	}
	hostOutdated := slices.ContainsFunc(rows, func(r store.OnHost) bool { return r.Outdated && r.Result.UUID == (attest.UUID{}) })
	byReport := make(map[string][]store.OnHost)
	n := 0
	for _, r := range rows {
		again := r.Outdated || hostOutdated && saysHost(r.Result)
		if r.Outdated {
			n++
		}
		if again && r.Result.Report != "" {
			byReport[r.Result.Report] = append(byReport[r.Result.Report], r)
		}
	}
	for report, list := range byReport {
		if err := e.rejudge(ctx, host, report, list); err != nil {
			return n, err
		}
	}
	return n, nil
}

// saysHost reports whether a VM is what it is because of its host.
func saysHost(r appraise.Result) bool {
	return slices.ContainsFunc(r.Reasons, func(w appraise.Reason) bool { return w.Code == appraise.CodeHostNotTrusted })
}

// rejudge judges results of one report again. A live verdict that comes meanwhile wins: it has another report.
func (e *Engine) rejudge(ctx context.Context, host, report string, rows []store.OnHost) error {
	var ids []string
	for _, r := range rows {
		ids = append(ids, machineID(host, r.Result.UUID))
	}
	if !slices.Contains(ids, host) {
		ids = append(ids, host)
	}
	bases, generation, err := e.subjects(ctx, ids) // before all else: a change that comes now is told by the generation
	if err != nil {
		return err
	}
	var judged []store.OnHost
	var as []appraise.Result // what no reference values change
	for _, r := range rows {
		if evaluate.Depends(r.Result) {
			judged = append(judged, r)
		} else if r.Result.State != appraise.Trusted {
			as = append(as, r.Result)
		}
	}
	if len(as) > 0 {
		if err := e.store.Rejudge(ctx, store.Again{Host: host, Results: as, Generation: generation, Alerts: alertsFor(as), Now: time.Now()}); err != nil {
			return err
		}
	}
	if len(judged) == 0 {
		return nil
	}
	s, err := e.reopen(ctx, report, judged[0].Result.Time)
	if errors.Is(err, errNoEvidence) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := e.restate(ctx, s, judged, bases, generation); !errors.Is(err, errNoEvidence) {
		return err
	}
	return nil
}

// restate judges rows by an Evidence and puts the outcome on record.
func (e *Engine) restate(ctx context.Context, s *stored, rows []store.OnHost, bases map[string]basis, generation int64) error {
	old := make(map[string]appraise.Result, len(rows))
	var vms []attest.UUID
	for _, r := range rows {
		id := machineID(s.host, r.Result.UUID)
		if s.overtaken(id) {
			continue // its state is of a later answer, whose verdict is there or comes
		}
		old[id] = r.Result
		if r.Result.UUID != (attest.UUID{}) {
			vms = append(vms, r.Result.UUID)
		}
	}
	return s.judge(ctx, vms, bases, func(out appraise.Output, logs map[attest.UUID]*attest.LogSegment) error {
		a := store.Again{Host: s.host, Generation: generation, Now: time.Now()}
		for _, o := range append([]appraise.Outcome{out.Host}, out.VMs...) {
			id := machineID(s.host, o.Result.UUID)
			was, wanted := old[id]
			if !wanted {
				continue
			}
			delete(old, id) // the host once
			a.Results = append(a.Results, asBefore(o.Result, was))
			if adv, changed := s.advance(o, logs[o.Result.UUID]); changed {
				a.Advances = append(a.Advances, adv)
			}
		}
		if len(a.Results) == 0 {
			return nil
		}
		a.Alerts = alertsFor(a.Results)
		return e.store.Rejudge(ctx, a)
	})
}

// asBefore gives a new verdict what the old one had besides: its name, and no longer life.
func asBefore(r, was appraise.Result) appraise.Result {
	if r.Name == "" {
		r.Name = was.Name
	}
	if r.Expires.After(was.Expires) {
		r.Expires = was.Expires
	}
	if r.Reasons == nil {
		r.Reasons = []appraise.Reason{}
	}
	return r
}

// advance gives a machine's record after it was judged again, so that its next increment goes on from there.
func (s *stored) advance(o appraise.Outcome, whole *attest.LogSegment) (store.Advance, bool) {
	id := machineID(s.host, o.Result.UUID)
	rec, before := s.records[id], s.states[id]
	b, err := appraise.EncodeMachine(o.Next)
	if err != nil || slices.Equal(b, rec.State) {
		return store.Advance{}, false
	}
	a := store.Advance{Machine: rec}
	a.ID, a.BootID, a.Entries, a.State = id, o.Next.Replay.BootID, o.Next.Replay.Count, b
	a.Boot = foundBoot(s.ev, o.Result.UUID, before, o.Next)
	if before.Replay.BootID != o.Next.Replay.BootID || before.Replay.Count != o.Next.Replay.Count {
		if a.Log = whole; whole == nil {
			a.Log = &s.ev.Host.IMA
			if o.Result.UUID != (attest.UUID{}) {
				a.Log = s.segment(o.Result.UUID)
			}
		}
	}
	return a, true
}

// alertsFor are the alerts that verdicts call for.
func alertsFor(results []appraise.Result) []api.Alert {
	r := &api.Report{}
	for _, v := range results {
		if v.UUID == (attest.UUID{}) {
			r.Host = v
		} else {
			r.VMs = append(r.VMs, v)
		}
	}
	return alertsOf(r)
}
