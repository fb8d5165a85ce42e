package mirror

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/bailiwick-net/bailiwick/controller/store"
	"github.com/bailiwick-net/bailiwick/directory/guard"
)

// persistDelay joins the changes of a second into one write of the whole directory.
const persistDelay = time.Second

const (
	// storeTimeout bounds the first attempt beside the loop. One that is cut off is repeated with twice the time: a directory
	// of 100,000 machines takes a slow disk long, and would never be stored within any bound that stays.
	storeTimeout = 30 * time.Second
	// longestStore bounds every attempt.
	longestStore = 10 * time.Minute
	// storeWait is how long the loop itself waits for the store.
	storeWait = 10 * time.Second
	// longestRest is the longest time between an attempt that failed and the next.
	longestRest = time.Minute
)

// stored is what came of storing a version.
type stored struct {
	version uint64
	took    time.Duration
	allowed time.Duration
	err     error
}

// dirty says that what is in force is not stored yet. Before the first View there is nothing that the guard could compare
// with, nor anything to store.
func (m *Mirror) dirty() bool { return m.version != m.kept && m.view.Load() != nil }

// writing returns what writes, within the time that is allowed, the View in force with what the guard knows beside it: both as they are now, whenever it is
// called.
func (m *Mirror) writing(ctx context.Context, allowed time.Duration) func() stored {
	version, view, record := m.version, m.view.Load(), m.guard.Record()
	return func() stored {
		accepted, err := encode(view)
		began := time.Now()
		if err == nil {
			ctx, cancel := context.WithTimeout(ctx, allowed)
			defer cancel()
			accepted.Guard = record.Append(nil)
			err = m.config.Store.SetAcceptedDirectory(ctx, accepted)
		}
		return stored{version, time.Since(began), allowed, err}
	}
}

// recall gives the guard what the one before it knew. A state of before that was kept holds nothing.
func (m *Mirror) recall(text []byte) error {
	if len(text) == 0 {
		return nil
	}
	record, err := guard.ParseRecord(text)
	if err == nil {
		err = m.guard.Restore(record)
	}
	if err != nil {
		return fmt.Errorf("restoring what the guard holds: %w: %w", store.ErrCorrupt, err)
	}
	m.raised.Store(record.Raise)
	return nil
}

// keep stores at once what an administrator decided.
func (m *Mirror) keep(ctx context.Context) {
	m.version++
	m.persist(ctx)
}

// persist stores what is in force. A store that cannot be written does not stop the fleet: it is tried again, beside the
// loop.
func (m *Mirror) persist(ctx context.Context) {
	if m.storing {
		wait := time.NewTimer(storeWait)
		defer wait.Stop()
		select {
		case s := <-m.stored: // what is older must not come later
			m.noteStored(s)
		case <-wait.C:
			m.config.Log.Warn("the store takes long: what was decided is in force, and will be stored later")
			return
		}
	}
	if m.dirty() {
		m.noteStored(m.writing(ctx, storeWait)())
	}
}

// persistAside is persist without waiting: a directory that is large takes longer to write than a change of it may. It
// leaves most of the time to others.
func (m *Mirror) persistAside(ctx context.Context) {
	if !m.dirty() || m.storing || time.Now().Before(m.rested) {
		return
	}
	m.storing = true
	write := m.writing(ctx, m.allowed)
	go func() { m.stored <- write() }()
}

// storingShare is the inverse of the share of time in which a directory that keeps changing is written.
const storingShare = 10

func (m *Mirror) noteStored(s stored) {
	m.storing = false
	if errors.Is(s.err, context.Canceled) {
		return // by the end of the mirror, which makes a last attempt: that tells what became of it
	}
	rest := (storingShare - 1) * s.took
	if s.err != nil {
		m.rested = time.Now().Add(min(rest, longestRest))
		if s.took >= s.allowed {
			m.allowed = min(max(m.allowed, 2*s.allowed), longestStore)
		}
		m.config.Log.Error("cannot store the accepted directory, will try again", "error", s.err, "after", s.took, "allowed", s.allowed)
		text := s.err.Error()
		if m.unstored.Swap(&text) == nil {
			m.tell(Event{Kind: Unstored, Text: "what is in force could not be stored and would be lost by a restart: " + text})
		}
		return
	}
	m.rested = time.Now().Add(rest)
	if m.unstored.Swap(nil) != nil {
		m.tell(Event{Kind: Stored, Text: "what is in force can be stored again"})
	}
	m.kept = s.version
}
