// Package slots says which CAs a fleet has and what each one may do: it owns the way of a CA from its making to its end,
// and the trust bundle that follows from it.
//
// A slot is an issuing CA with the root above it:
//
//	(begin) ----------------------------------------------> active
//	requested -- certified --> prepared -- activate --> active -- another is activated --> superseded -- retire --> retired
//	    |                         |
//	    +---- retire (given up) --+--> retired
//
// The first CA of a fleet may begin as requested, and is active once it is certified.
//
// Invariants: exactly one slot is active, unless the first waits for its root; at most one is on its way there; every slot but requested and retired ones is
// trusted, and its certificates are in the bundle, so a CA is trusted before it issues and for as long as what it issued
// counts; the revision grows whenever the bundle changes; a retired slot has no keys.
//
// It leaves to others: making keys and certificates (pki/ca), keeping the state (controller/store), who may rotate and
// whether every node is ready (controller/authority). It is pure: time is an argument.
package slots

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/trust"
)

var (
	// ErrState is wrapped when a state is none that this package makes.
	ErrState = errors.New("state of the CA does not hold together")
	// ErrStep is wrapped when a step of a rotation cannot be taken from where it is.
	ErrStep = errors.New("the rotation is not there")
)

// Status is where a slot is on its way.
type Status string

// The statuses.
const (
	Requested  Status = "requested"  // its key exists, its certificate is to be signed by a root that is kept off line
	Prepared   Status = "prepared"   // trusted, and issues nothing yet
	Active     Status = "active"     // issues
	Superseded Status = "superseded" // issues no more; what it issued counts
	Retired    Status = "retired"    // not trusted any more
)

// Slot is an issuing CA and its root. It encodes as JSON.
type Slot struct {
	// ID is the beginning of the issuing key's id.
	ID     string `json:"id"`
	Status Status `json:"status"`
	// Root and Issuing are certificates in DER. A requested slot has no Issuing, and no Root if that is not known.
	Root    []byte `json:"root,omitempty"`
	Issuing []byte `json:"issuing,omitempty"`
	// Bridge is a second certificate for the issuing key, by the root before this one: who trusts that alone believes
	// what is issued here. Empty where the root is the same, or not to be trusted.
	Bridge []byte `json:"bridge,omitempty"`
	// Key is where the issuing key is: sealed PEM, or the URI of a token (RFC 7512). Empty once retired.
	Key string `json:"key,omitempty"`
	// RootKey is the root's sealed key; empty where it is kept off line.
	RootKey string `json:"rootKey,omitempty"`
	// Request is the certificate request (PKCS #10) of a requested slot.
	Request []byte `json:"request,omitempty"`
	// The times of the steps, on the controller's clock.
	Made       time.Time `json:"made"`
	Activated  time.Time `json:"activated,omitzero"`
	Superseded time.Time `json:"superseded,omitzero"`
	Retired    time.Time `json:"retired,omitzero"`
}

// IDOf is the ID of the slot of an issuing key.
func IDOf(key pki.KeyID) string { return key.String()[:16] }

// State is all slots, in the order of their making. It encodes as JSON.
type State struct {
	// Revision is that of the trust bundle. It grows with every change, also past what a backup has forgotten.
	Revision uint64 `json:"revision"`
	Slots    []Slot `json:"slots"`
	// Forgotten are the IDs of retired slots that are not among Slots any more, in the order of their retirement.
	Forgotten []string `json:"forgotten,omitempty"`
}

// maxRetired is how many retired slots are remembered here as a whole, those that were retired last; of the others the IDs alone.
const maxRetired = 8

// maxForgotten bounds the IDs. A fleet that replaces its CA every month has them for eighty years.
const maxForgotten = 1000

// Begin is the state of a fleet with its first CA.
func Begin(now time.Time, s Slot) State {
	s.Status, s.Made, s.Activated = Active, now.UTC(), now.UTC()
	return State{Revision: 1, Slots: []Slot{s}}
}

// Await is the state of a fleet whose first CA waits for a root that is kept off line.
func Await(now time.Time, s Slot) State {
	s.Status, s.Made = Requested, now.UTC()
	return State{Slots: []Slot{s}}
}

// Awaiting reports whether the first CA waits for its root.
func (s State) Awaiting() bool { return len(s.Slots) == 1 && s.Slots[0].Status == Requested }

// Check refuses a state that breaks the invariants. Errors wrap ErrState.
func (s State) Check() error {
	active, coming := 0, 0
	seen := map[string]bool{}
	for _, slot := range s.Slots {
		if slot.ID == "" || seen[slot.ID] {
			return fmt.Errorf("the CA %q is there twice, or has no name: %w", slot.ID, ErrState)
		}
		seen[slot.ID] = true
		switch slot.Status {
		case Requested, Prepared:
			coming++
		case Active:
			active++
		case Superseded, Retired:
		default:
			return fmt.Errorf("the CA %s has the status %q: %w", slot.ID, slot.Status, ErrState)
		}
		if slot.Status.trusted() && (len(slot.Root) == 0 || len(slot.Issuing) == 0) {
			return fmt.Errorf("the CA %s is %s and has no certificates: %w", slot.ID, slot.Status, ErrState)
		}
	}
	if len(s.Slots) == 1 && s.Slots[0].Status == Requested {
		return nil // the first CA waits for its root
	}
	if active != 1 || coming > 1 {
		return fmt.Errorf("%d CAs are active and %d to become so, wanted one and at most one: %w", active, coming, ErrState)
	}
	return nil
}

func (s Status) trusted() bool { return s == Prepared || s == Active || s == Superseded }

// Active is the slot that issues. A state that passed Check has one.
func (s State) Active() Slot {
	slot, _ := s.find(func(x Slot) bool { return x.Status == Active })
	return slot
}

// Coming is the slot that is to become active, requested or prepared.
func (s State) Coming() (Slot, bool) {
	return s.find(func(x Slot) bool { return x.Status == Requested || x.Status == Prepared })
}

// Slot finds a slot by its ID.
func (s State) Slot(id string) (Slot, bool) {
	return s.find(func(x Slot) bool { return x.ID == id })
}

func (s State) find(is func(Slot) bool) (Slot, bool) {
	if i := slices.IndexFunc(s.Slots, is); i >= 0 {
		return s.Slots[i], true
	}
	return Slot{}, false
}

// Add puts a slot on its way: prepared if it has certificates, else requested. Errors wrap ErrStep.
func (s State) Add(now time.Time, slot Slot) (State, error) {
	if coming, ok := s.Coming(); ok {
		return State{}, fmt.Errorf("the CA %s is %s already: activate it, or give it up with retire: %w", coming.ID, coming.Status, ErrStep)
	}
	slot.Made = now.UTC()
	slot.Status = Requested
	next := s.clone()
	if len(slot.Issuing) > 0 {
		slot.Status = Prepared
		next.renumber(now)
	}
	next.Slots = append(next.Slots, slot)
	return next.told()
}

// Certificates are what a slot was certified with, in DER, as in Slot; Bridge may be empty.
type Certificates struct{ Root, Issuing, Bridge []byte }

// Certify gives a requested slot its certificates; the first CA of a fleet is active then. Errors wrap ErrStep.
func (s State) Certify(now time.Time, id string, c Certificates) (State, error) {
	first := s.Awaiting()
	next := s.clone()
	slot, err := next.at(id, "certify", Requested)
	if err != nil {
		return State{}, err
	}
	slot.Status, slot.Root, slot.Issuing, slot.Bridge, slot.Request = Prepared, c.Root, c.Issuing, c.Bridge, nil
	if first {
		slot.Status, slot.Activated = Active, now.UTC()
	}
	next.renumber(now)
	return next.told()
}

// told returns a state that has another CA to trust, if nodes can be told so: a bundle has a bound.
func (s State) told() (State, error) {
	if err := s.Check(); err != nil || s.Awaiting() {
		return s, err
	}
	if _, err := s.Bundle(); err != nil {
		return State{}, fmt.Errorf("another CA cannot be trusted beside those that are, retire those that are superseded: %w: %w", ErrStep, err)
	}
	return s, nil
}

// Activate makes the prepared slot issue, and the present one superseded. Errors wrap ErrStep.
func (s State) Activate(now time.Time, id string) (State, error) {
	next := s.clone()
	if _, err := next.at(id, "activate", Prepared); err != nil {
		return State{}, err
	}
	for i := range next.Slots {
		switch slot := &next.Slots[i]; {
		case slot.ID == id:
			slot.Status, slot.Activated = Active, now.UTC()
		case slot.Status == Active:
			slot.Status, slot.Superseded = Superseded, now.UTC()
		}
	}
	return next, next.Check()
}

// Retire ends the trust in a slot, or gives one up that never issued, and forgets its keys. Errors wrap ErrStep.
func (s State) Retire(now time.Time, id string) (State, error) {
	next := s.clone()
	slot, err := next.at(id, "retire", Requested, Prepared, Superseded)
	if err != nil {
		return State{}, err
	}
	if slot.Status.trusted() {
		next.renumber(now)
	}
	slot.Status, slot.Retired = Retired, now.UTC()
	// The bridge stays: what leads to a root that is trusted still is to be revoked.
	slot.Key, slot.RootKey, slot.Request = "", "", nil
	// A bridge of a root that is trusted no more leads nowhere.
	roots, err := next.rootKeys()
	if err != nil {
		return State{}, err
	}
	for i := range next.Slots {
		if next.Slots[i].Bridge == nil {
			continue
		}
		bridge, err := trust.ParseCertificate(next.Slots[i].Bridge)
		if err != nil {
			return State{}, fmt.Errorf("%w: %w", ErrState, err)
		}
		if !roots[string(bridge.RawIssuer)] {
			next.Slots[i].Bridge = nil
		}
	}
	next.forget()
	return next, next.Check()
}

// forget reduces the slots that were retired first to their IDs. Nothing is trusted by a retired slot, and its keys are gone: what
// is lost is its description.
func (s *State) forget() {
	for {
		first, retired := -1, 0
		for i, slot := range s.Slots {
			if slot.Status != Retired {
				continue
			}
			if retired++; first < 0 || slot.Retired.Before(s.Slots[first].Retired) {
				first = i
			}
		}
		if retired <= maxRetired {
			return
		}
		s.Forgotten = append(s.Forgotten, s.Slots[first].ID)
		s.Forgotten = s.Forgotten[max(0, len(s.Forgotten)-maxForgotten):]
		s.Slots = slices.Delete(s.Slots, first, first+1)
	}
}

// Knows reports whether a slot is or was one of this fleet.
func (s State) Knows(id string) bool {
	_, ok := s.Slot(id)
	return ok || slices.Contains(s.Forgotten, id)
}

// Trusts reports whether a root is that of a CA which is trusted.
func (s State) Trusts(root *x509.Certificate) bool {
	_, ok := s.find(func(x Slot) bool { return x.Status.trusted() && bytes.Equal(x.Root, root.Raw) })
	return ok
}

// rootKeys are the names of the roots that are trusted.
func (s State) rootKeys() (map[string]bool, error) {
	names := map[string]bool{}
	for _, slot := range s.Slots {
		if !slot.Status.trusted() {
			continue
		}
		root, err := trust.ParseCertificate(slot.Root)
		if err != nil {
			return nil, fmt.Errorf("root of the CA %s: %w: %w", slot.ID, ErrState, err)
		}
		names[string(root.RawSubject)] = true
	}
	return names, nil
}

// renumber gives the bundle its next revision: one more than before, and at least the seconds of the Unix epoch. A state that
// comes back from a backup has an older revision than nodes have heard of, who refuse what is older; the clock is ahead of all
// that was numbered before.
func (s *State) renumber(now time.Time) {
	s.Revision = max(s.Revision+1, uint64(max(0, now.Unix())))
}

func (s State) clone() State {
	return State{s.Revision, slices.Clone(s.Slots), slices.Clone(s.Forgotten)}
}

// at finds a slot that is in one of the statuses.
func (s State) at(id, step string, statuses ...Status) (*Slot, error) {
	i := slices.IndexFunc(s.Slots, func(x Slot) bool { return x.ID == id })
	if i < 0 {
		return nil, fmt.Errorf("there is no CA %q: %w", id, ErrStep)
	}
	if !slices.Contains(statuses, s.Slots[i].Status) {
		return nil, fmt.Errorf("cannot %s the CA %s: it is %s, wanted %v: %w", step, id, s.Slots[i].Status, statuses, ErrStep)
	}
	return &s.Slots[i], nil
}

// Bundle is what the fleet trusts. Errors wrap ErrState.
func (s State) Bundle() (trust.Bundle, error) {
	var roots, intermediates []*x509.Certificate
	for _, slot := range s.Slots {
		if !slot.Status.trusted() {
			continue
		}
		for _, c := range []struct {
			der  []byte
			list *[]*x509.Certificate
		}{{slot.Root, &roots}, {slot.Issuing, &intermediates}, {slot.Bridge, &intermediates}} {
			if len(c.der) == 0 {
				continue
			}
			parsed, err := trust.ParseCertificate(c.der)
			if err != nil {
				return trust.Bundle{}, fmt.Errorf("certificate of the CA %s: %w: %w", slot.ID, ErrState, err)
			}
			*c.list = append(*c.list, parsed)
		}
	}
	bundle, err := trust.NewBundle(s.Revision, roots, intermediates)
	if err != nil {
		return trust.Bundle{}, fmt.Errorf("%w: %w", ErrState, err)
	}
	return bundle, nil
}
