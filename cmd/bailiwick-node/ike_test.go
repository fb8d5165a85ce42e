package main

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/ike/trace"
	"github.com/bailiwick-net/bailiwick/node/localapi"
)

// daemon answers at a socket as the node does, with a trace of its own.
type daemon struct {
	localapi.Source
	hub    *trace.Hub
	asked  chan localapi.TraceRequest
	refuse error
}

func (d *daemon) Trace(ctx context.Context, request localapi.TraceRequest, emit func(trace.Line) error) error {
	d.asked <- request
	if d.refuse != nil {
		return d.refuse
	}
	before, reader := d.hub.Watch(trace.Filter{})
	defer reader.Close()
	for _, r := range before {
		if err := emit(r.Line()); err != nil {
			return err
		}
	}
	for request.Follow {
		select {
		case r := <-reader.Records():
			if err := emit(r.Line()); err != nil {
				return err
			}
		case <-ctx.Done():
			return nil
		}
	}
	return nil
}

// start serves d and returns the socket, and what ends it.
func (d *daemon) start(t *testing.T) (socket string, stop func()) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "s")
	listener, err := localapi.Listen(t.Context(), socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- localapi.Serve(ctx, listener, socket, d) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(stop)
	return socket, stop
}

func newDaemon() *daemon {
	d := &daemon{hub: trace.NewHub(), asked: make(chan localapi.TraceRequest, 1)}
	d.add("one")
	return d
}

func (d *daemon) add(text string) {
	d.hub.Add(time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC), &ike.Trace{
		IKE: 1, Remote: netip.MustParseAddrPort("10.0.0.2:500"), Known: true, Kind: ike.TraceDecided, Text: ike.Sentence{Format: text},
	})
}

// output collects what a command prints, and tells of every write.
type output struct {
	mu    sync.Mutex
	text  bytes.Buffer
	wrote chan struct{}
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.text.Write(b)
	o.wrote <- struct{}{}
	return len(b), nil
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// begin runs a command; it returns its output and, at its end, its error.
func begin(ctx context.Context, args ...string) (*output, <-chan error) {
	o, done := &output{wrote: make(chan struct{}, 100)}, make(chan error, 1)
	root := command()
	root.SetArgs(args)
	root.SetOut(o)
	go func() { done <- root.ExecuteContext(ctx) }()
	return o, done
}

const lineOne = "2030-01-01T00:00:00.000000Z 0000000000000001 10.0.0.2:500 - decided one\n"

func TestTraceHistory(t *testing.T) {
	d := newDaemon()
	socket, _ := d.start(t)
	o, done := begin(t.Context(), "--socket", socket, "ike", "trace", "10.0.0.2", "--history")
	if err := <-done; err != nil || exitCode(err) != exitOK {
		t.Fatal(err)
	}
	if o.String() != lineOne {
		t.Errorf("printed %q, want %q", o, lineOne)
	}
	if r := <-d.asked; r.Peer != "10.0.0.2" || !r.History || r.Follow {
		t.Errorf("asked for %+v", r)
	}
	o, done = begin(t.Context(), "--socket", socket, "ike", "trace", "--history", "--output", "json")
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if want := `{"time":"2030-01-01T00:00:00Z","ike":"0000000000000001","remote":"10.0.0.2:500","kind":"decided","text":"one"}` + "\n"; o.String() != want {
		t.Errorf("printed %q, want %q", o, want)
	}
}

func TestTraceFollowsUntilItIsEnded(t *testing.T) {
	d := newDaemon()
	socket, stop := d.start(t)
	ctx, interrupt := context.WithCancel(t.Context())
	o, done := begin(ctx, "--socket", socket, "ike", "trace")
	<-o.wrote
	d.add("two")
	<-o.wrote
	if want := lineOne + strings.Replace(lineOne, "one", "two", 1); o.String() != want {
		t.Errorf("printed %q, want %q", o, want)
	}
	if r := <-d.asked; r.History || !r.Follow {
		t.Errorf("asked for %+v", r)
	}
	interrupt() // Ctrl-C
	if err := <-done; err != nil || exitCode(err) != exitOK {
		t.Errorf("after Ctrl-C: %v, exit code %d", err, exitCode(err))
	}
	o, done = begin(t.Context(), "--socket", socket, "ike", "trace", "--history", "--follow")
	<-o.wrote
	stop()
	if err := <-done; !errors.Is(err, localapi.ErrEnded) || exitCode(err) != exitUnreachable {
		t.Errorf("after the end of the daemon: %v, exit code %d", err, exitCode(err))
	}
}

func TestTraceFails(t *testing.T) {
	d := newDaemon()
	d.refuse = errors.New("nothing is remembered of \"x\"")
	socket, _ := d.start(t)
	for _, c := range []struct {
		name string
		args []string
		text string
		code int
	}{
		{"refused", []string{"--socket", socket, "ike", "trace", "192.0.2.1", "--history"}, "nothing is remembered", exitFailed},
		{"no daemon", []string{"--socket", socket + "none", "ike", "trace"}, "not running", exitUnreachable},
		{"two peers", []string{"--socket", socket, "ike", "trace", "a", "b"}, `"b" is not expected`, exitUsage},
		{"output", []string{"--socket", socket, "ike", "trace", "--output", "xml"}, "want text or json", exitUsage},
		{"flag", []string{"--socket", socket, "ike", "trace", "--forever"}, "unknown flag", exitUsage},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, done := begin(t.Context(), c.args...)
			if err := <-done; err == nil || !strings.Contains(err.Error(), c.text) || exitCode(err) != c.code {
				t.Errorf("%v, exit code %d, want %q and %d", err, exitCode(err), c.text, c.code)
			}
		})
	}
}
