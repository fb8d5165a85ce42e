package mirror

import (
	"context"
	"fmt"
	"time"

	"github.com/bailiwick-net/bailiwick/controller/store"
	"github.com/bailiwick-net/bailiwick/directory/guard"
)

// persistDelay joins the changes of a second into one write of the whole directory.
const persistDelay = time.Second

// persistTimeout bounds one attempt.
const persistTimeout = 10 * time.Second

// stored is what came of storing a version.
type stored struct {
	version uint64
	took    time.Duration
	err     error
}

// dirty says that what is in force is not stored yet. Before the first View there is nothing that the guard could compare
// with, nor anything to store.
func (m *Mirror) dirty() bool { return m.version != m.kept && m.view.Load() != nil }

// writing returns what writes the View in force with what the guard knows beside it: both as they are now, whenever it is
// called.
func (m *Mirror) writing(ctx context.Context) func() stored {
	version, view, record := m.version, m.view.Load(), m.guard.Record()
	return func() stored {
		ctx, cancel := context.WithTimeout(ctx, persistTimeout)
		defer cancel()
		began := time.Now()
		accepted, err := encode(view)
		if err == nil {
			accepted.Guard = record.Append(nil)
			err = m.config.Store.SetAcceptedDirectory(ctx, accepted)
		}
		return stored{version, time.Since(began), err}
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

// persist stores what is in force. A store that cannot be written does not stop the fleet: it is tried again.
func (m *Mirror) persist(ctx context.Context) {
	if m.storing {
		m.noteStored(<-m.stored) // what is older must not come later
	}
	if m.dirty() {
		m.noteStored(m.writing(ctx)())
	}
}

// persistAside is persist without waiting: a directory that is large takes longer to write than a change of it may. It
// leaves most of the time to others.
func (m *Mirror) persistAside(ctx context.Context) {
	if !m.dirty() || m.storing || time.Now().Before(m.rested) {
		return
	}
	m.storing = true
	write := m.writing(ctx)
	go func() { m.stored <- write() }()
}

// storingShare is the inverse of the share of time in which a directory that keeps changing is written.
const storingShare = 10

func (m *Mirror) noteStored(s stored) {
	m.storing = false
	m.rested = time.Now().Add((storingShare - 1) * s.took)
	if s.err != nil {
		m.config.Log.Error("cannot store the accepted directory, will try again", "error", s.err)
		return
	}
	m.kept = s.version
}
