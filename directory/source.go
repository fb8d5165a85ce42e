package directory

import (
	"context"
	"time"
)

// A Source delivers the directory as it is, again and again. It is the contract that every way of reading one keeps:
// a watched file, polling over LDAP, and protocols that send changes.
type Source interface {
	// Next waits until there is something to tell and returns it: a complete snapshot that the directory really had,
	// or the error of a read that failed. The first call reads at once. A snapshot is returned when its content differs
	// from the last returned one, and after an error, to tell that reading works again. After an error the source is
	// still usable and the next call tries again, by its own back-off; an error says nothing about the content of the
	// directory, least of all that it is empty.
	// Next returns the error of ctx when ctx ends. It is called by one goroutine.
	Next(ctx context.Context) (*Snapshot, error)
	// Status may be called by any goroutine at any time.
	Status() Status
	// Close releases what the source holds; a waiting Next returns an error.
	Close() error
}

// Status describes a source for people. It holds no secrets.
type Status struct {
	// Kind is "ldif" or "ldap".
	Kind string
	// Location is the path or the URL, without credentials.
	Location string
	// Base is the top of the tree as configured or, once read, as found.
	Base string
	// Protocol says how changes are noticed; ProtocolNote why it is no better one, or what it is about to do.
	Protocol, ProtocolNote string
	// LastRead is when the last complete read ended, or when its result was last seen to be still current; zero when
	// there was none. LastDuration is how long the read took.
	LastRead     time.Time
	LastDuration time.Duration
	// LastFull is when the whole directory was last read entry by entry, whatever a protocol of changes says.
	LastFull time.Time
	// Containers, Machines, Groups and Problems count what it held.
	Containers, Machines, Groups, Problems int
	// Digest is the content's.
	Digest Digest
	// LastError is the error of the latest read when that failed, "" when it succeeded; LastErrorAt is its time and
	// Failures how many reads have failed since the last success.
	LastError   string
	LastErrorAt time.Time
	Failures    int
	// NextRead is when a polling source reads again, zero for sources that are told of changes.
	NextRead time.Time
}

// Lag returns for how long the directory has not been read successfully; ok is false when it never was.
func (s Status) Lag(now time.Time) (lag time.Duration, ok bool) {
	if s.LastRead.IsZero() {
		return 0, false
	}
	return max(0, now.Sub(s.LastRead)), true
}

// Succeeded notes a complete read that ended at the given time.
func (s *Status) Succeeded(at time.Time, took time.Duration, snap *Snapshot) {
	s.LastRead, s.LastDuration = at, took
	s.Containers, s.Machines, s.Groups = snap.Len()
	s.Problems = len(snap.Problems())
	s.Digest = snap.Digest()
	s.Base = snap.Base().String()
	s.LastError, s.LastErrorAt, s.Failures = "", time.Time{}, 0
}

// Failed notes a read that failed at the given time.
func (s *Status) Failed(at time.Time, err error) {
	s.LastError, s.LastErrorAt = err.Error(), at
	s.Failures++
}
