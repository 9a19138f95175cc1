package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"virt-attest/attest"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
	"virt-attest/verifier/store"
)

// background starts what the Engine does beside what it is asked for. All of it may run at every replica: what
// only one is to do is settled in the database.
func (e *Engine) background() {
	e.supervise("notifications", e.listen)
	e.supervise("loading", e.load)
	e.supervise("webhooks", e.hooks)
	e.every("challenges that nobody was told of", lookEvery, e.forgotten)
	e.every("leases", e.lease/3, e.keepLeases)
	e.every("answers without an owner", min(e.lease/4, takeOverEvery), e.takeOver)
	e.every("challenges without an answer", overdueEvery, e.overdue)
	e.every("presence", presenceEvery, e.tellPresence)
	e.every("expired verdicts", lapseEvery, e.lapse)
	e.every("hosts", watchEvery, e.watchHosts)
	e.every("replicas", presenceEvery, e.lostReplicas)
	e.every("statistics", statsEvery, e.tellStats)
	e.every("what is old", pruneEvery, e.prune)
}

// Ready reports whether the Verifier can do its work: the database answers, and what an appraisal is made by has been read.
func (e *Engine) Ready(ctx context.Context) error {
	if err := e.store.Ready(ctx); err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	if !e.loaded.Load() {
		return fmt.Errorf("%w: policies and reference values are not loaded yet", ErrUnavailable)
	}
	return nil
}

// load makes the Engine ready, where the beginning did not.
func (e *Engine) load(ctx context.Context) error {
	if !e.loaded.Load() {
		if err := e.loadAll(ctx); err != nil {
			return err
		}
	}
	<-ctx.Done()
	return nil
}

// loadAll reads once what appraisals are made by, tells the others that this replica is there, and takes up what an
// earlier process has left.
func (e *Engine) loadAll(ctx context.Context) error {
	if err := e.store.Ready(ctx); err != nil {
		return err
	}
	if err := e.plant(ctx); err != nil {
		return err
	}
	if err := e.warm(ctx); err != nil {
		return err
	}
	if e.store.Dialect() == store.SQLite { // no other process is there that could own anything
		if err := e.store.FreeLeases(ctx, e.id); err != nil {
			return err
		}
	}
	if err := e.takeOver(ctx); err != nil {
		return err
	}
	if err := e.tellPresence(ctx); err != nil {
		return err
	}
	e.loaded.Store(true)
	return nil
}

// warm reads the documents in use, and fails where one of them cannot be read.
func (e *Engine) warm(ctx context.Context) error {
	_, _, err := e.subjects(ctx, []string{"-", ""}) // by the default policies
	return err
}

// listen hears what other replicas have done. What is lost on the way is found by looking.
func (e *Engine) listen(ctx context.Context) error {
	topics := []store.Topic{store.TopicChallenge, store.TopicReport, store.TopicActivated, store.TopicSettings, store.TopicDocument, store.TopicHost, store.TopicVerdict}
	notes := make(chan store.Note)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for _, topic := range topics {
		heard, stop := e.store.Subscribe(topic)
		defer stop()
		e.wg.Go(func() { forward(ctx, cancel, heard, notes) })
	}
	e.missed() // whatever came before
	for {
		select {
		case n := <-notes:
			e.heard(n)
		case <-ctx.Done():
			return errors.New("the database does not notify any more")
		}
	}
}

// forward hands on notes until there are no more.
func forward(ctx context.Context, end func(), from <-chan store.Note, to chan<- store.Note) {
	defer end()
	for {
		select {
		case n, ok := <-from:
			if !ok {
				return
			}
			select {
			case to <- n:
			case <-ctx.Done():
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

func (e *Engine) heard(n store.Note) {
	if n.Missed {
		e.missed()
		return
	}
	nonce, ok := parseNonce(n.Key)
	switch n.Topic {
	case store.TopicChallenge:
		e.lines.alert(n.Key)
	case store.TopicReport:
		if ok {
			e.waits.wake(nonce, nil)
		}
	case store.TopicActivated:
		if ok {
			e.running.wake(nonce)
		}
	case store.TopicHost:
		e.lines.revoke(n.Key)
		e.plans.drop(n.Key)
	case store.TopicVerdict:
		e.lines.judged(n.Key)
	case store.TopicSettings, store.TopicDocument:
		e.plans.drop("")
	}
}

// missed makes everybody look.
func (e *Engine) missed() {
	e.lines.alertAll()
	e.waits.wakeAll()
	e.running.wake(attest.Nonce{})
	e.plans.drop("")
}

// forgotten wakes the polls of hosts that have challenges, by one read for all hosts: a notification may be lost.
func (e *Engine) forgotten(ctx context.Context) error {
	hosts, err := e.store.Undelivered(ctx, time.Now())
	for _, h := range hosts {
		e.lines.alert(h)
	}
	return err
}

// takeOver appraises what other replicas have left behind.
func (e *Engine) takeOver(ctx context.Context) error {
	for ctx.Err() == nil {
		rows, err := e.store.Orphans(ctx, e.id, time.Now(), e.lease, orphansAtOnce)
		if err != nil {
			return err
		}
		for i := range rows {
			if err := e.adopt(ctx, &rows[i]); err != nil {
				return err
			}
		}
		if len(rows) < orphansAtOnce {
			return nil
		}
	}
	return ctx.Err()
}

// adopt appraises one answer that another process has begun with. It is counted first: one that ends every process
// that touches it must not end them all.
func (e *Engine) adopt(ctx context.Context, row *store.OpenChallenge) error {
	if e.running.get(row.Challenge.Nonce) != nil {
		return nil // its own: the lease was extended too late
	}
	ev, err := attest.DecodeEvidence(row.Evidence)
	if err != nil {
		return e.give(ctx, row, err)
	}
	a, err := e.appraisal(row, ev)
	if err != nil {
		return e.give(ctx, row, err)
	}
	a.orphan = true
	a.secrets.Tries++
	b, err := json.Marshal(a.secrets)
	if err != nil {
		return err
	}
	if err := e.store.PutSecrets(ctx, row.Challenge.Nonce, b); err != nil {
		if errors.Is(err, store.ErrNotFound) { // its report is there
			return nil
		}
		return err
	}
	if !e.enter() {
		return nil
	}
	e.log.Warn("an answer that another Verifier began to appraise is taken over", "report", row.Challenge.Nonce.String(), "host", row.Challenge.Host, "tries", a.secrets.Tries)
	a.step("another replica took the answer over")
	e.running.add(a)
	go func() {
		defer e.wg.Done()
		a.run()
	}()
	return nil
}

// give ends an answer on record that cannot be read.
func (e *Engine) give(ctx context.Context, row *store.OpenChallenge, cause error) error {
	k, err := decodeKnown(row.Known)
	if err != nil {
		k = &known{}
	}
	a := &appraisal{e: e, row: row, known: k, orphan: true, since: time.Now(), keys: make(chan struct{}, 1), settled: make(chan struct{})}
	a.begin()
	a.finish(ctx, &store.Outcome{Report: a.fault(fmt.Errorf("what is on record of an answer cannot be read: %w", cause))})
	return nil
}

// overdue ends challenges that nobody answered and nobody waits for here.
func (e *Engine) overdue(ctx context.Context) error {
	rows, err := e.store.Overdue(ctx, e.id, time.Now().Add(-overdueGrace), e.lease, orphansAtOnce)
	if err != nil {
		return err
	}
	for i := range rows {
		row := &rows[i]
		k, err := decodeKnown(row.Known)
		if err != nil {
			k = &known{}
		}
		name := k.names()[attest.UUID{}]
		e.unanswered(ctx, row, k, noAnswerReason(name, row.Challenge.NotAfter, row.Created))
	}
	return nil
}

func noAnswerReason(host string, notAfter int64, created time.Time) appraise.Reason {
	return appraise.Reason{Code: appraise.CodeNoAnswer, Layer: appraise.LayerHost,
		Text: fmt.Sprintf("host %s did not answer within %v", host, time.Unix(notAfter, 0).Sub(created).Round(time.Second)),
		Hint: "Is virt-attest-hostd running there, and does it reach the Verifier? Its journal tells."}
}

// tellPresence writes which hosts were heard here since the last time, in one transaction, and that this replica is there.
func (e *Engine) tellPresence(ctx context.Context) error {
	now := time.Now()
	heard, connected := e.lines.presence(now)
	if err := e.store.PutPresence(ctx, e.id, heard); err != nil {
		return err
	}
	e.lines.toldOf(heard)
	known, err := e.store.PutReplica(ctx, api.Replica{ID: e.id, Host: e.conf.Hostname, Version: e.conf.Version, Started: e.started, LastSeen: now, Hosts: connected})
	if err != nil || known {
		return err
	}
	return e.store.PutEvents(ctx, []api.Event{{Time: now, Kind: api.EventReplica, Machine: "", Name: e.id, Text: "Verifier " + e.id + " on " + e.conf.Hostname + " is here"}})
}

// lostReplicas tells of replicas that do not say anything any more. What they had under way is free at once.
func (e *Engine) lostReplicas(ctx context.Context) error {
	now := time.Now()
	lost, err := e.store.DropReplicas(ctx, now.Add(-replicaFor))
	if err != nil || len(lost) == 0 {
		return err
	}
	var events []api.Event
	for _, r := range lost {
		e.log.Warn("a Verifier is gone", "replica", r.ID, "host", r.Host, "last", r.LastSeen)
		events = append(events, api.Event{Time: now, Kind: api.EventReplica, Name: r.ID, Text: "Verifier " + r.ID + " on " + r.Host + " is gone"})
	}
	return e.store.PutEvents(ctx, events)
}

// lapse tells of verdicts that have expired.
func (e *Engine) lapse(ctx context.Context) error {
	for {
		n, err := e.store.Lapsed(ctx, time.Now(), lapseAtOnce)
		if err != nil || n < lapseAtOnce {
			return err
		}
	}
}

// tellStats writes what was counted.
func (e *Engine) tellStats(ctx context.Context) error {
	var errs []error
	for minute, b := range e.stats.changed(time.Now()) {
		data, err := json.Marshal(b)
		if err == nil {
			err = e.store.PutStat(ctx, store.Stat{Minute: minute, Replica: e.id, Data: data})
		}
		if err != nil {
			e.stats.again(minute)
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// prune drops what retention does not keep.
func (e *Engine) prune(ctx context.Context) error {
	now := time.Now()
	return e.store.Prune(ctx, e.conf.Retention, now)
}

// stage is a place in the life of a challenge where a test stops a replica.
type stage int32

const (
	stagePut stage = iota
	stageDeliver
	stageTake
	stageAppraise
	stageActivate
	stageCommit
	stageDone
)

func (e *Engine) at(s stage) {
	if f := e.stage.Load(); f != nil {
		(*f)(s)
	}
}
