package trace

import (
	"fmt"
	"sync"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
)

// limitQueue bounds the records that wait for one reader.
const limitQueue = 1024

// Hub keeps the history and hands records to readers. It is safe for concurrent use; Add never waits for a reader.
type Hub struct {
	mu struct {
		sync.Mutex
		history *History
		readers map[*Reader]struct{}
	}
}

// NewHub returns a hub without readers.
func NewHub() *Hub {
	h := &Hub{}
	h.mu.history = NewHistory()
	h.mu.readers = make(map[*Reader]struct{})
	return h
}

// Add keeps a record and gives it to the readers that want it.
func (h *Hub) Add(now time.Time, t *ike.Trace) {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := h.mu.history.Add(Record{Trace: t, Time: now})
	for reader := range h.mu.readers {
		if reader.filter.Matches(r, h.mu.history.names(r)) {
			reader.offer(r)
		}
	}
}

// Records are what the history has for a filter.
func (h *Hub) Records(f Filter) []Record {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.mu.history.Records(f)
}

// Watch begins to read. before is what the history has for the filter; nothing is missed or doubled in between. The
// reader must be closed.
func (h *Hub) Watch(f Filter) (before []Record, r *Reader) {
	r = &Reader{hub: h, filter: f, records: make(chan Record, limitQueue)}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mu.readers[r] = struct{}{}
	return h.mu.history.Records(f), r
}

// Reader receives the records that its filter wants. A reader that is too slow misses some, and is told how many.
type Reader struct {
	hub     *Hub
	filter  Filter
	records chan Record
	lost    int // guarded by the hub's lock
}

func (r *Reader) offer(x Record) {
	if r.lost > 0 {
		if len(r.records) > limitQueue/2 { // some room first, else every second line tells of lost ones
			r.lost++
			return
		}
		r.records <- Record{Time: x.Time, Trace: &ike.Trace{Kind: ike.TraceLost, Text: lost(r.lost)}}
		r.lost = 0
	}
	select {
	case r.records <- x:
	default:
		r.lost++
	}
}

// Records delivers the records. It is never closed.
func (r *Reader) Records() <-chan Record { return r.records }

// Close ends the reading.
func (r *Reader) Close() {
	r.hub.mu.Lock()
	defer r.hub.mu.Unlock()
	delete(r.hub.mu.readers, r)
}

// lost is the text of lines that a reader missed.
type lost int

// String tells how many.
func (l lost) String() string { return fmt.Sprintf("%d lines: this reader is too slow", int(l)) }
