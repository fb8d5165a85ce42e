package controller

import (
	"context"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/bailiwick-net/bailiwick/controller/mirror"
	"github.com/bailiwick-net/bailiwick/controller/store"
	"github.com/bailiwick-net/bailiwick/directory/guard"
)

// maxWaitingEvents bounds what waits for a store that cannot be written.
const maxWaitingEvents = 10_000

// eventStore is where events go.
type eventStore interface {
	AppendDirectoryEvent(ctx context.Context, e store.DirectoryEvent) error
}

// eventLog records what happens to the directories. What cannot be stored waits, in its order, until it can.
type eventLog struct {
	store eventStore
	log   hclog.Logger
	wake  chan struct{}
	queue struct {
		sync.Mutex
		events []store.DirectoryEvent
		lost   uint64
	}
}

func newEventLog(s eventStore, log hclog.Logger) *eventLog {
	return &eventLog{store: s, log: log, wake: make(chan struct{}, 1)}
}

// of returns what a source's mirror tells its events to; it does not block.
func (l *eventLog) of(source string) func(mirror.Event) {
	return func(e mirror.Event) {
		record := store.DirectoryEvent{At: e.At.UTC(), Source: source, Kind: e.Kind.String(), By: e.By, Text: e.Text}
		if e.ID != (guard.ID{}) {
			record.Change = e.ID.String()
		}
		l.queue.Lock()
		if len(l.queue.events) < maxWaitingEvents {
			l.queue.events = append(l.queue.events, record)
		} else {
			l.queue.lost++
		}
		l.queue.Unlock()
		select {
		case l.wake <- struct{}{}:
		default:
		}
	}
}

// first returns the event that waits longest, and how many were lost since it was asked last.
func (l *eventLog) first() (e store.DirectoryEvent, ok bool, lost uint64) {
	l.queue.Lock()
	defer l.queue.Unlock()
	lost, l.queue.lost = l.queue.lost, 0
	if len(l.queue.events) == 0 {
		return store.DirectoryEvent{}, false, lost
	}
	return l.queue.events[0], true, lost
}

func (l *eventLog) drop() {
	l.queue.Lock()
	defer l.queue.Unlock()
	l.queue.events = l.queue.events[1:]
}

// eventRetry is how long after a failed write the next one is tried.
const eventRetry = time.Second

// run stores events until ctx ends, and then what still waits, as far as a moment goes.
func (l *eventLog) run(ctx context.Context) error {
	retry := time.NewTimer(eventRetry)
	retry.Stop()
	defer retry.Stop()
	for {
		if !l.flush(ctx) {
			retry.Reset(eventRetry)
		}
		select {
		case <-l.wake:
		case <-retry.C:
		case <-ctx.Done():
			last, stop := context.WithTimeout(context.WithoutCancel(ctx), eventRetry)
			defer stop()
			l.flush(last)
			return nil
		}
	}
}

// flush stores what waits; it reports whether all of it is stored.
func (l *eventLog) flush(ctx context.Context) bool {
	for {
		e, ok, lost := l.first()
		if lost > 0 {
			l.log.Error("directory events were lost, the store could not be written for too long", "number", lost)
		}
		if !ok {
			return true
		}
		if err := l.store.AppendDirectoryEvent(ctx, e); err != nil {
			if ctx.Err() == nil {
				l.log.Error("cannot record a directory event, will try again", "kind", e.Kind, "error", err)
			}
			return false
		}
		l.drop()
	}
}
