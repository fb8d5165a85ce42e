package guard

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/bailiwick-net/bailiwick/directory"
)

// A Record is what a guard knows beside the applied snapshot. Kept with that one and given back to the next guard, it lets
// a restart neither pass what is held nor forget what was announced or refused.
type Record struct {
	// Recent are the machines that admitted changes of the window affected, in the order of their UUIDs.
	Recent []Recent `json:"recent,omitempty"`
	// Raise is what is announced, nil when nothing is.
	Raise *Raise `json:"raise,omitempty"`
	// Held marks the change that waits, nil when none does.
	Held *Mark `json:"held,omitempty"`
	// Policy marks the change of Group Policy that waits, and Released the one that may come.
	Policy   *Mark `json:"policy,omitempty"`
	Released *ID   `json:"released,omitempty"`
}

// Recent is a machine that an admitted change affected.
type Recent struct {
	Machine directory.UUID `json:"machine"`
	At      time.Time      `json:"at"`
	// DN is the name that it had, as text.
	DN string `json:"dn"`
}

// A Mark tells which change is held. The change itself is in the directory, and found there again.
type Mark struct {
	ID        ID        `json:"id"`
	Since     time.Time `json:"since"`
	Discarded time.Time `json:"discarded,omitzero"`
}

// ErrRecord says that a record is none.
var ErrRecord = errors.New("invalid record of the mass-change guard")

// Append appends the encoding of r.
func (r Record) Append(dst []byte) []byte {
	text, err := json.Marshal(r)
	if err != nil {
		panic("guard: " + err.Error()) // times of years that no clock shows
	}
	return append(dst, text...)
}

// ParseRecord reads what Append wrote. The error wraps ErrRecord.
func ParseRecord(data []byte) (Record, error) {
	var r Record
	lines := json.NewDecoder(bytes.NewReader(data))
	lines.DisallowUnknownFields()
	if err := lines.Decode(&r); err != nil {
		return Record{}, fmt.Errorf("%w: %w", ErrRecord, err)
	}
	if lines.More() {
		return Record{}, fmt.Errorf("%w: there is more after its end", ErrRecord)
	}
	for _, m := range r.Recent {
		if _, err := directory.ParseDN(m.DN); err != nil {
			return Record{}, fmt.Errorf("%w: machine %s: %w", ErrRecord, m.Machine, err)
		}
	}
	return r, nil
}

// Record tells what the guard knows.
func (g *Guard) Record() Record {
	r := Record{Raise: g.raise, Released: g.policy.released}
	for u, m := range g.recent {
		r.Recent = append(r.Recent, Recent{u, m.at, m.dn.String()})
	}
	slices.SortFunc(r.Recent, func(a, b Recent) int { return bytes.Compare(a.Machine[:], b.Machine[:]) })
	if mark, ok := g.Mark(); ok {
		r.Held = &mark
	}
	if mark, ok := g.MarkPolicy(); ok {
		r.Policy = &mark
	}
	return r
}

// Mark tells which change waits: unlike Held also one of before a restart, until the directory is read again.
func (g *Guard) Mark() (Mark, bool) { return markOf(g.held, g.before) }

func markOf(held *Held, before *Mark) (Mark, bool) {
	switch {
	case held != nil:
		return Mark{held.ID, held.Since, held.Discarded}, true
	case before != nil:
		return *before, true
	}
	return Mark{}, false
}

// Restore gives a new guard what another one knew of the same applied snapshot. The error wraps ErrRecord; nothing changes
// then.
func (g *Guard) Restore(r Record) error {
	recent := make(map[directory.UUID]moment, len(r.Recent))
	for _, m := range r.Recent {
		dn, err := directory.ParseDN(m.DN)
		if err != nil {
			return fmt.Errorf("%w: machine %s: %w", ErrRecord, m.Machine, err)
		}
		recent[m.Machine] = moment{m.At, dn}
	}
	g.recent, g.raise, g.before = recent, r.Raise, r.Held
	g.policy = reassignment{before: r.Policy, released: r.Released}
	return nil
}
