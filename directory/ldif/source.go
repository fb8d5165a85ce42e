package ldif

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sys/unix"

	"github.com/bailiwick-net/bailiwick/directory"
)

// MaxFile is the largest file that is read, in bytes: about a million machines.
const MaxFile = 1 << 30

// Options say what a file holds. The zero value is a file of OpenLDAP's schema whose base is its top entry.
type Options struct {
	// Schema defaults to directory.OpenLDAP with derived identities.
	Schema *directory.Schema
	// Base is the top of the tree; the zero DN means the one entry that all others are below.
	Base directory.DN
	// Settle is how long the file has to stay quiet after a change before it is read; 0 means 40 ms.
	Settle time.Duration
	// Poll is how often the file is looked at when the file system does not tell of changes; 0 means 1 s.
	Poll time.Duration
}

func (o Options) withDefaults() Options {
	if o.Schema == nil {
		s := directory.OpenLDAP()
		s.DeriveIdentity = true
		o.Schema = &s
	}
	if o.Settle <= 0 {
		o.Settle = 40 * time.Millisecond
	}
	if o.Poll <= 0 {
		o.Poll = time.Second
	}
	return o
}

// Snapshot parses data and builds the tree that it holds.
func Snapshot(file string, data []byte, o Options) (*directory.Snapshot, error) {
	o = o.withDefaults()
	records, err := Parse(file, data)
	if err != nil {
		return nil, err
	}
	b := directory.NewBuilder(o.Base)
	for _, r := range records {
		object, problems, err := o.Schema.Map(r.Entry)
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", file, r.Line, err)
		}
		b.AddProblem(problems...)
		if object != nil {
			b.Add(object)
		}
	}
	s, err := b.Build()
	if err != nil {
		return nil, fmt.Errorf("build the tree of %s: %w", file, err)
	}
	return s, nil
}

// A Source is a watched LDIF file; it implements directory.Source.
type Source struct {
	path    string
	opts    Options
	watcher *fsnotify.Watcher // nil when the system has no watches left: then Poll alone notices changes

	// Owned by the goroutine that calls Next.
	started   bool
	settled   bool        // the settling time of a freshly changed file has been waited for
	seen      fingerprint // what the last read found, whatever came of it
	seenAt    time.Time
	failed    bool // the last read failed
	delivered directory.Digest

	closeOnce sync.Once
	closed    chan struct{}
	state     guardedStatus
}

type guardedStatus struct {
	sync.Mutex
	directory.Status
}

// Open watches the file at path, which need not exist yet.
func Open(path string, o Options) (*Source, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("find LDIF file %q: %w", path, err)
	}
	s := &Source{path: abs, opts: o.withDefaults(), closed: make(chan struct{})}
	s.state.Status = directory.Status{Protocol: "watched file", Kind: "ldif", Location: abs, Base: o.Base.String()}
	// The directory is watched, not the file: a file renamed over another is a new file, and a ConfigMap changes by a
	// symbolic link beside it.
	if w, err := fsnotify.NewWatcher(); err == nil {
		s.watcher = w
		s.watch()
	}
	return s, nil
}

// watch (re)starts the watch when there is none: the folder may appear late, or go and come back.
func (s *Source) watch() {
	if s.watcher != nil && len(s.watcher.WatchList()) == 0 {
		// Without a watch the poll still notices every change.
		_ = s.watcher.Add(filepath.Dir(s.path))
	}
}

// Status describes the source.
func (s *Source) Status() directory.Status {
	s.state.Lock()
	defer s.state.Unlock()
	return s.state.Status
}

// Close stops watching; a waiting Next returns ErrClosed.
func (s *Source) Close() error {
	var err error
	s.closeOnce.Do(func() {
		close(s.closed)
		if s.watcher != nil {
			err = s.watcher.Close()
		}
	})
	return err
}

// Next implements directory.Source. One content that cannot be used is one error: the next call waits for another.
func (s *Source) Next(ctx context.Context) (*directory.Snapshot, error) {
	poll := time.NewTicker(s.opts.Poll)
	defer poll.Stop()
	// settle fires when the file may be read: at once for the first time, later when it has been quiet.
	settle := time.NewTimer(0)
	if s.started {
		settle.Stop()
	}
	defer settle.Stop()
	waiting := !s.started // settle is running
	s.started = true
	var events chan fsnotify.Event
	var lost chan error
	if s.watcher != nil {
		events, lost = s.watcher.Events, s.watcher.Errors
	}
	for {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-s.closed:
			return nil, ErrClosed
		case _, ok := <-events:
			if !ok {
				return nil, ErrClosed
			}
			// Any event in the folder makes us look: which one replaced the file behind a symbolic link is not to be told.
			if s.changed() {
				settle.Reset(s.opts.Settle)
				waiting = true
			}
		case _, ok := <-lost:
			if !ok {
				return nil, ErrClosed
			}
			// Events were lost: look at the file itself.
			if s.changed() {
				settle.Reset(s.opts.Settle)
				waiting = true
			}
		case <-poll.C:
			s.watch()
			switch {
			case !s.changed():
				s.confirm()
			case !waiting:
				settle.Reset(s.opts.Settle)
				waiting = true
			}
		case <-settle.C:
			waiting = false
			snap, err := s.read()
			if errors.Is(err, errChanged) {
				settle.Reset(s.opts.Settle)
				waiting = true
				continue
			}
			if snap != nil || err != nil {
				return snap, err
			}
		}
	}
}

// changed says whether the file may differ from what was last read. A file that was changed shortly before it was read
// may have changed again without any trace in its times, which are as coarse as its file system's clock.
func (s *Source) changed() bool {
	return look(s.path) != s.seen || !s.seen.missing && s.seenAt.Sub(time.Unix(0, s.seen.changed)) < 2*time.Second
}

// confirm notes that the file is still the one that was read.
func (s *Source) confirm() {
	s.state.Lock()
	defer s.state.Unlock()
	if s.state.Failures == 0 && !s.state.LastRead.IsZero() {
		s.state.LastRead = time.Now()
	}
}

// errChanged says that the file is still being written.
var errChanged = errors.New("the file changed while it was read")

// read reads the file once; both results are nil when there is nothing new to tell.
func (s *Source) read() (*directory.Snapshot, error) {
	began := time.Now()
	before := look(s.path)
	if age := began.Sub(time.Unix(0, before.changed)); !s.settled && !before.missing && age >= 0 && age < s.opts.Settle {
		s.settled = true
		return nil, errChanged
	}
	s.settled = false
	snap, err := s.load()
	if after := look(s.path); after != before {
		return nil, errChanged
	}
	s.seen, s.seenAt = before, began
	at := time.Now()
	s.state.Lock()
	defer s.state.Unlock()
	if err != nil {
		repeated := s.failed && s.state.LastError == err.Error()
		s.failed = true
		if repeated {
			return nil, nil
		}
		s.state.Failed(at, err)
		return nil, err
	}
	s.state.Succeeded(at, at.Sub(began), snap)
	if !s.failed && snap.Digest() == s.delivered {
		return nil, nil
	}
	s.failed = false
	s.delivered = snap.Digest()
	return snap, nil
}

func (s *Source) load() (*directory.Snapshot, error) {
	f, err := os.Open(s.path)
	if err != nil {
		return nil, fmt.Errorf("open directory file: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, MaxFile+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read directory file: %w", err)
	case len(data) > MaxFile:
		return nil, fmt.Errorf("read directory file %s: it is larger than %d bytes", s.path, MaxFile)
	}
	return Snapshot(s.path, data, s.opts)
}

// A fingerprint tells one state of a file from another without reading it.
type fingerprint struct {
	missing      bool
	device, file uint64
	size         int64
	changed      int64 // Unix nanoseconds of the inode's change time, which a writer cannot set
}

// look follows symbolic links. What cannot be looked at counts as missing: reading it gives the reason.
func look(path string) fingerprint {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return fingerprint{missing: true}
	}
	return fingerprint{device: st.Dev, file: st.Ino, size: st.Size, changed: st.Ctim.Nano()}
}
