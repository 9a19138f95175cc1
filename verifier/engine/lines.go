package engine

import (
	"sync"
	"time"

	"virt-attest/verifier/store"
)

// lines are the hosts that this replica hears, each with what its polls wait for.
type lines struct {
	mu   sync.Mutex
	host map[string]*line
}

// line is a host's end at this replica.
type line struct {
	wake  chan struct{} // closed and replaced when a challenge may wait
	look  bool          // a challenge may wait that no poll has looked for yet
	polls int           // under way
	heard time.Time     // its last call
	told  time.Time     // that the database knows
	who   string        // instance of the hostd that is there, as far as this replica knows
	may   *permit       // what its polls are let in by, nil: to be read
	turn  int64         // counts what may have changed verdicts on its machines
	news  *told         // verdicts that a poll here has given last, nil: none yet
}

// permit is who may poll for a host, as it was read.
type permit struct {
	client   string
	approved bool
	until    time.Time
}

// of finds or makes a host's line. A new one does not know whether challenges wait. l.mu is held.
func (l *lines) of(host string) *line {
	if l.host == nil {
		l.host = make(map[string]*line)
	}
	n := l.host[host]
	if n == nil {
		n = &line{wake: make(chan struct{}), look: true}
		l.host[host] = n
	}
	return n
}

// enter counts a poll in, or out with -1.
func (l *lines) enter(host string, n int, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	x := l.of(host)
	x.polls += n
	x.heard = now
}

// hear notes that a host called.
func (l *lines) hear(host string, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.of(host).heard = now
}

// is notes which run of hostd is there.
func (l *lines) is(host, instance string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.of(host).who = instance
}

// wait gives what tells when to look for challenges, and whether to look now.
func (l *lines) wait(host string) (wake <-chan struct{}, look bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := l.of(host)
	look, n.look = n.look, false
	return n.wake, look
}

// alert wakes the polls of a host, if it has a line here.
func (l *lines) alert(host string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := l.host[host]; n != nil {
		n.alert()
	}
}

// alertAll wakes everybody, as when notifications may have been lost.
func (l *lines) alertAll() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, n := range l.host {
		n.turn++
		n.alert()
		n.may = nil
	}
}

func (n *line) alert() {
	n.look = true
	n.ring()
}

// ring wakes whoever polls.
func (n *line) ring() {
	close(n.wake)
	n.wake = make(chan struct{})
}

// judged wakes the polls of a host because there may be other verdicts on its machines; all hosts' with "".
func (l *lines) judged(host string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, n := range l.host {
		if host == "" || id == host {
			n.turn++
			n.ring()
		}
	}
}

// newsOf gives what a host was told of verdicts here, and the turn now.
func (l *lines) newsOf(host string) (t *told, turn int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := l.of(host)
	return n.news, n.turn
}

// tell notes what a host is told of verdicts.
func (l *lines) tell(host string, t *told) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.of(host).news = t
}

// revoke makes the next poll of a host read anew who may poll; every line's with "".
func (l *lines) revoke(host string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, n := range l.host {
		if host == "" || id == host {
			n.may = nil
			n.turn++
			n.alert()
		}
	}
}

func (l *lines) permit(host string, now time.Time) *permit {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := l.host[host]
	if n == nil || n.may == nil || now.After(n.may.until) {
		return nil
	}
	return n.may
}

func (l *lines) allow(host string, p *permit) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.of(host).may = p
}

// online reports whether a host polls here, or called a moment ago.
func (l *lines) online(host string, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := l.host[host]
	return n != nil && (n.polls > 0 || now.Sub(n.heard) < onlineFor)
}

// presence gives the hosts that were heard since they were last told of, with when; the lines of those that
// are long gone are dropped. connected counts those that are there.
func (l *lines) presence(now time.Time) (heard []store.Seen, connected int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, n := range l.host {
		if n.polls > 0 {
			n.heard = now
		}
		switch {
		case n.heard.After(n.told):
			heard = append(heard, store.Seen{Host: id, Instance: n.who, At: n.heard})
		case now.Sub(n.heard) > lineFor:
			delete(l.host, id)
			continue
		}
		if now.Sub(n.heard) < onlineFor {
			connected++
		}
	}
	return heard, connected
}

// toldOf notes what the database knows by now.
func (l *lines) toldOf(heard []store.Seen) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, h := range heard {
		if n := l.host[h.Host]; n != nil {
			n.told = h.At
		}
	}
}

// heard is when a host called here last.
func (l *lines) heard(host string) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := l.host[host]; n != nil {
		return n.heard
	}
	return time.Time{}
}
