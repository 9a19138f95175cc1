package store

import (
	"strings"
	"sync"
)

// Topic is a kind of notification.
type Topic string

// The topics, with what the key is.
const (
	TopicChallenge Topic = "challenge" // host ID: there is a challenge for it
	TopicReport    Topic = "report"    // nonce in hexadecimal: its report is committed
	TopicActivated Topic = "activated" // nonce in hexadecimal: the host has opened credentials
	TopicEvent     Topic = "event"     // ID of the newest event
	TopicDocument  Topic = "document"  // kind/name: another version is active
	TopicSettings  Topic = "settings"  // machine
	TopicHost      Topic = "host"      // ID: it introduced itself, was approved or removed
	TopicWebhook   Topic = "webhook"   // ID: made or changed
	TopicVerdict   Topic = "verdict"   // host ID: there are other verdicts on its machines, or what they were made by has changed; "": on many hosts
)

// Note is a notification: something was committed under Key. One with Missed stands for all that may have
// been published and was not heard: whoever waits looks at the database.
type Note struct {
	Topic  Topic
	Key    string
	Missed bool
}

// bus hands notes to the subscribers within this process.
type bus struct {
	mu     sync.Mutex
	closed bool
	subs   map[*subscriber]struct{}
}

type subscriber struct {
	topic Topic
	notes chan Note
}

// Subscribe gives the notes of a topic from now on, until cancel or Close closes the channel. A subscriber
// that falls behind loses notes and gets one with Missed.
func (s *Store) Subscribe(topic Topic) (notes <-chan Note, cancel func()) {
	b, sub := &s.bus, &subscriber{topic: topic, notes: make(chan Note, maxNotes+1)}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		close(sub.notes)
		return sub.notes, func() {}
	}
	if b.subs == nil {
		b.subs = make(map[*subscriber]struct{})
	}
	b.subs[sub] = struct{}{}
	return sub.notes, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		if _, ok := b.subs[sub]; ok {
			delete(b.subs, sub)
			close(sub.notes)
		}
	}
}

// publish never waits. Only publishers send, and under the lock: the channel's last place is for Missed, and
// while that is not read nothing more has to be said.
func (b *bus) publish(n Note) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for sub := range b.subs {
		if sub.topic == n.Topic || n.Topic == "" {
			sub.put(Note{Topic: sub.topic, Key: n.Key, Missed: n.Missed})
		}
	}
}

func (sub *subscriber) put(n Note) {
	switch len(sub.notes) {
	case maxNotes + 1:
	case maxNotes:
		sub.notes <- Note{Topic: sub.topic, Missed: true}
	default:
		sub.notes <- n
	}
}

// missed tells every subscriber that notes may have been lost.
func (b *bus) missed() { b.publish(Note{Missed: true}) }

func (b *bus) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	for sub := range b.subs {
		close(sub.notes)
	}
	b.subs = nil
}

// encode gives a note as a payload of NOTIFY, which PostgreSQL bounds.
func (n Note) encode() string {
	if len(n.Topic)+1+len(n.Key) > maxPayload {
		return string(n.Topic) // the subscribers look at everything
	}
	return string(n.Topic) + " " + n.Key
}

func decodeNote(payload string) Note {
	topic, key, ok := strings.Cut(payload, " ")
	return Note{Topic: Topic(topic), Key: key, Missed: !ok}
}
