package audit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/bailiwick-net/bailiwick/node/ike"
)

const (
	// flushEvery is how often the counts of events without a line of their own are written.
	flushEvery = 5 * time.Second
	// limitQueue bounds the events that wait to be written.
	limitQueue = 1024
)

// Log takes the actions of the IKE engine and writes events. Observe is safe for concurrent use with Run.
type Log struct {
	logger hclog.Logger
	file   io.WriteCloser // nil: none
	queue  chan Event
	mu     struct {
		sync.Mutex
		translator *translator
		limiter    *limiter
	}
	failed bool // the file could not be written; Run's own
}

// New returns a log that writes to a logger, and to the file at path unless that is empty: one JSON object a line, which
// only its owner can read.
func New(logger hclog.Logger, path string) (*Log, error) {
	l := &Log{logger: logger, queue: make(chan Event, limitQueue)}
	l.mu.translator, l.mu.limiter = newTranslator(), newLimiter()
	if path != "" {
		f, err := openFile(path)
		if err != nil {
			return nil, fmt.Errorf("open the audit file: %w", err)
		}
		l.file = f
	}
	return l, nil
}

// Observe takes what the IKE engine has done. It never waits: what cannot be queued is counted.
func (l *Log) Observe(now time.Time, a ike.Action) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e, ok := l.mu.translator.event(now, a); ok {
		l.addLocked(e)
	}
}

// Started and Stopped tell of the IKE service itself.
func (l *Log) Started(now time.Time) { l.add(newEvent(now, ServiceStarted)) }

// Stopped tells that the IKE service ends in order.
func (l *Log) Stopped(now time.Time) { l.add(newEvent(now, ServiceStopped)) }

func (l *Log) add(e Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.addLocked(e)
}

func (l *Log) addLocked(e Event) {
	if l.mu.limiter.allow(e) {
		select {
		case l.queue <- e:
			return
		default:
		}
	}
	l.mu.limiter.count(e)
}

// Run writes until ctx ends, then what is left, and closes the file.
func (l *Log) Run(ctx context.Context) error {
	tick := time.NewTicker(flushEvery)
	defer tick.Stop()
	for {
		select {
		case e := <-l.queue:
			l.write(e)
		case <-tick.C:
			l.flush()
		case <-ctx.Done():
			for len(l.queue) > 0 {
				l.write(<-l.queue)
			}
			l.flush()
			if l.file != nil {
				return l.file.Close()
			}
			return nil
		}
	}
}

func (l *Log) flush() {
	l.mu.Lock()
	events := l.mu.limiter.take()
	l.mu.Unlock()
	for _, e := range events {
		l.write(e)
	}
}

// write writes an event to both places. The logger gets no address unless it is for debugging.
func (l *Log) write(e Event) {
	fields := []any{"id", uint16(e.ID), "event", e.Name}
	add := func(key, value string) {
		if value != "" {
			fields = append(fields, key, value)
		}
	}
	add("outcome", e.Outcome)
	add("peer", e.Peer)
	add("reason", e.Reason)
	add("fault", e.Fault)
	add("rule", e.Rule)
	add("ike", e.IKE)
	add("spiIn", e.In)
	add("authentication", e.Auth)
	add("suite", e.Suite)
	if e.Count > 1 || !e.Since.IsZero() {
		fields = append(fields, "count", e.Count, "since", e.Since)
	}
	if l.logger.IsDebug() {
		add("local", e.Local)
		add("remote", e.Remote)
		add("detail", e.Detail)
	}
	if e.Outcome == "failure" {
		l.logger.Warn("audit", fields...)
	} else {
		l.logger.Info("audit", fields...)
	}
	if l.file == nil {
		return
	}
	line, err := json.Marshal(e)
	if err == nil {
		_, err = l.file.Write(append(line, '\n'))
	}
	if err != nil && !l.failed { // once: a full disk must not fill the log as well
		l.logger.Error("audit file was not written, events are only in this log", "error", err)
	}
	l.failed = err != nil
}

// file appends to a path. When the path names another file, because the old one was rotated away, that is opened.
type file struct {
	path   string
	f      *os.File
	looked time.Time
}

func openFile(path string) (*file, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	return &file{path: path, f: f, looked: time.Now()}, nil
}

// lookEvery is how often a file is compared with its path.
const lookEvery = time.Second

// Write appends b.
func (w *file) Write(b []byte) (int, error) {
	if now := time.Now(); now.Sub(w.looked) >= lookEvery {
		w.looked = now
		if err := w.follow(); err != nil {
			return 0, err
		}
	}
	return w.f.Write(b)
}

// follow opens the path again where it names another file than the open one.
func (w *file) follow() error {
	open, err := w.f.Stat()
	if err != nil {
		return err
	}
	named, err := os.Stat(w.path)
	if err == nil && os.SameFile(open, named) {
		return nil
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	next, err := openFile(w.path)
	if err != nil {
		return err
	}
	old := w.f
	w.f = next.f
	return old.Close()
}

// Close closes the file.
func (w *file) Close() error { return w.f.Close() }
