package mirror

import (
	"context"
	"time"
)

// persistDelay joins the changes of a second into one write of the whole directory.
const persistDelay = time.Second

// persistTimeout bounds one attempt.
const persistTimeout = 10 * time.Second

// stored is what came of storing a View.
type stored struct {
	view *View
	took time.Duration
	err  error
}

// store writes a View.
func (m *Mirror) store(ctx context.Context, v *View) stored {
	ctx, cancel := context.WithTimeout(ctx, persistTimeout)
	defer cancel()
	began := time.Now()
	accepted, err := encode(v)
	if err == nil {
		err = m.config.Store.SetAcceptedDirectory(ctx, accepted)
	}
	return stored{v, time.Since(began), err}
}

// persist stores the View in force. A store that cannot be written does not stop the fleet: it is tried again.
func (m *Mirror) persist(ctx context.Context) {
	if m.storing {
		m.noteStored(<-m.stored) // what is older must not come later
	}
	if m.dirty {
		m.noteStored(m.store(ctx, m.view.Load()))
	}
}

// persistAside is persist without waiting: a directory that is large takes longer to write than a change of it may. It
// leaves most of the time to others.
func (m *Mirror) persistAside(ctx context.Context) {
	if !m.dirty || m.storing || time.Now().Before(m.rested) {
		return
	}
	m.storing = true
	v := m.view.Load()
	go func() { m.stored <- m.store(ctx, v) }()
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
	if m.view.Load() == s.view {
		m.dirty = false
	}
}
