package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"virt-attest/verifier/api"
	"virt-attest/verifier/jobs"
	"virt-attest/verifier/store"
)

// jobReappraise is the kind of job that a re-appraisal is, for api.Job.
const jobReappraise = taskReappraise

// startDeferred opens the queue of deferred work.
func (e *Engine) startDeferred(ctx context.Context) error {
	sent, err := newSender(e.conf.Webhooks)
	if err != nil {
		return err
	}
	e.sender = sent
	e.jobs, err = jobs.Open(ctx, jobs.Config{Pool: e.store.Pool(), Path: e.store.JobsPath(), ID: e.id, Log: e.log, Tries: e.conf.tries, Work: map[string]jobs.Work{
		taskReappraise: {Do: e.doReappraise, GiveUp: e.giveUp, Every: sweepEvery},
		taskHosts:      {Do: e.doHosts, GiveUp: e.giveUpHosts},
		taskImpact:     {Do: e.doImpact, GiveUp: e.giveUp},
		taskWebhook:    {Do: e.doHook, After: e.afterHook, Calls: true},
		taskKeys:       {Do: e.doKeys, Every: keysEvery},
	}})
	return err
}

// closeDeferred ends what is under way of deferred work; it goes on elsewhere, or later.
func (e *Engine) closeDeferred() {
	if e.jobs != nil {
		if err := e.jobs.Close(); err != nil {
			e.log.Warn("deferred work did not end well", "err", err)
		}
	}
	if e.sender != nil {
		e.sender.Close()
	}
}

// newJob records a job and adds its task.
func (e *Engine) newJob(ctx context.Context, who api.Caller, kind string, input any, total int) (*api.Job, error) {
	n := random()
	j := &api.Job{ID: n.String(), Kind: kind, State: "queued", Total: total, Created: time.Now().UTC()}
	b, err := json.Marshal(input)
	if err != nil {
		return nil, err
	}
	j.Result = b // until it ends: what it is to do
	if err := e.store.PutJob(ctx, j, who.Tenant); err != nil {
		return nil, fromStore(err, "job")
	}
	if err := e.jobs.Add(ctx, kind, j.ID); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	j.Result = nil
	return j, nil
}

// nothingToDo records a re-appraisal that had nothing to judge.
func (e *Engine) nothingToDo(ctx context.Context, who api.Caller) (*api.Job, error) {
	now := time.Now().UTC()
	n := random()
	j := &api.Job{ID: n.String(), Kind: jobReappraise, State: "done", Created: now, Finished: now}
	return j, fromStore(e.store.PutJob(ctx, j, who.Tenant), "job")
}

// Job tells what has become of deferred work, or of an attestation that nobody waited for.
func (e *Engine) Job(ctx context.Context, who api.Caller, id string) (*api.Job, error) {
	if checkWord(id) != nil {
		return nil, said(ErrNotFound, "this job is not known")
	}
	j, tenant, err := e.store.Job(ctx, id)
	if errors.Is(err, store.ErrNotFound) {
		return e.attestation(ctx, who, id)
	}
	if err != nil {
		return nil, fromStore(err, "this job")
	}
	if who.Tenant != "" && tenant != who.Tenant {
		return nil, said(ErrNotFound, "this job is not known")
	}
	if j.State != "done" || j.Kind == jobReappraise {
		j.Result = nil
	}
	return j, nil
}

// attestation gives an attestation as a job: its ID is the report's.
func (e *Engine) attestation(ctx context.Context, who api.Caller, id string) (*api.Job, error) {
	r, err := e.Report(ctx, who, id)
	if err == nil {
		b, err := json.Marshal(r)
		return &api.Job{ID: id, Kind: "attest", State: "done", Done: 1, Total: 1, Result: b, Created: r.Host.Time.UTC(), Finished: r.Host.Time.UTC()}, err
	}
	nonce, ok := parseNonce(id)
	if !errors.Is(err, ErrNotFound) || !ok {
		return nil, err
	}
	open, err := e.store.Challenge(ctx, nonce)
	if err != nil || who.Tenant != "" && open.AskedBy != who.Name {
		return nil, first(fromStore(err, "this job"), said(ErrNotFound, "this job is not known"))
	}
	return &api.Job{ID: id, Kind: "attest", State: "running", Total: 1, Created: open.Created.UTC()}, nil
}

// giveUp ends a job that cannot be done. The sweep ("") has none, and comes again.
func (e *Engine) giveUp(ctx context.Context, job string, why error) error {
	if job == "" {
		return nil
	}
	failed, err := e.store.FailJob(ctx, job, why.Error(), time.Now())
	if err != nil || !failed {
		return err
	}
	return e.store.PutEvents(ctx, []api.Event{{Time: time.Now(), Kind: api.EventReconcile, Name: job, Text: fmt.Sprintf("job %s has failed: %v", job, why)}})
}

// giveUpHosts ends the job that a chunk is of. Results that are outdated stay so until the sweep comes to them.
func (e *Engine) giveUpHosts(ctx context.Context, object string, why error) error {
	var c chunk
	if err := json.Unmarshal([]byte(object), &c); err != nil {
		return err
	}
	return e.giveUp(ctx, c.Job, why)
}
