// Package keyring holds the preshared keys of a node: those in files that its administrator put there, and those that the
// controller delivered.
//
// Its invariant: a file of the machine's own counts before a delivered key of the same name, and the status says so;
// delivered keys are on the disk only for their owner, as the machine's private key is, and are forgotten there and in
// memory when no policy of the node names them. It leaves what a key is to policies/preshared and which ones the policies
// name to node/agent. One goroutine owns a Ring.
package keyring

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/node/statefile"
	"github.com/bailiwick-net/bailiwick/policies/preshared"
	nodev1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/node/v1"
)

const (
	storeFile = "delivered-secrets.json"
	maxStore  = 16 << 20
	// maxDelivered bounds how many keys a node takes.
	maxDelivered = 4096
)

// Ring is the keys of a node.
type Ring struct {
	path      string
	files     map[string]sa.Secret
	delivered map[string]entry
	// told are the names in the controller's last message.
	told map[string]bool
}

// entry is one delivered key.
type entry struct {
	kind     preshared.Kind
	current  preshared.Key
	previous preshared.Key // empty without one
	until    time.Time
	changed  time.Time
}

// stored is an entry in the file.
type stored struct {
	Name     string    `json:"name"`
	Kind     string    `json:"kind"`
	Value    []byte    `json:"value"`
	Previous []byte    `json:"previous,omitempty"`
	Until    time.Time `json:"until,omitzero"`
	Changed  time.Time `json:"changed"`
}

// Open reads the keys in files (one file each, named as rules name them, readable by its owner only) and the delivered
// ones that were kept in the state directory.
func Open(state, files string) (*Ring, error) {
	r := &Ring{path: filepath.Join(state, storeFile), delivered: map[string]entry{}, told: map[string]bool{}}
	var err error
	if r.files, err = readFiles(files); err != nil {
		return nil, err
	}
	content, err := statefile.Read(r.path, maxStore)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err == nil {
		defer clear(content)
		r.delivered, err = parseStore(content)
	}
	if err != nil {
		return nil, fmt.Errorf("read the preshared keys of the controller from %s, remove the file to start without until the controller delivers them again: %w", r.path, err)
	}
	return r, nil
}

func readFiles(dir string) (map[string]sa.Secret, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read preshared keys: %w", err)
	}
	out := map[string]sa.Secret{}
	for _, e := range entries {
		if e.IsDir() || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		path := filepath.Join(dir, e.Name())
		content, err := statefile.Read(path, 2*preshared.MaxLength)
		if err != nil {
			return nil, fmt.Errorf("read preshared key: %w", err)
		}
		key, err := preshared.ParseKey(content, preshared.PSK)
		clear(content)
		if err != nil {
			return nil, fmt.Errorf("preshared key %s: %w", path, err)
		}
		out[e.Name()] = sa.NewSecret(key.Expose())
	}
	return out, nil
}

// parseStore reads the content of the file.
func parseStore(content []byte) (map[string]entry, error) {
	var list []stored
	if err := json.Unmarshal(content, &list); err != nil {
		// The library's words may hold a part of what it could not read.
		return nil, errors.New("it is not the JSON that this program writes")
	}
	out := map[string]entry{}
	for _, s := range list {
		e, err := newEntry(s)
		if err != nil {
			return nil, err
		}
		out[s.Name] = e
	}
	return out, nil
}

func newEntry(s stored) (entry, error) {
	e := entry{until: s.Until, changed: s.Changed}
	err := preshared.CheckName(s.Name)
	if err == nil {
		e.kind, err = preshared.ParseKind(s.Kind)
	}
	if err == nil {
		e.current, err = preshared.ParseKey(s.Value, e.kind)
	}
	if err == nil && len(s.Previous) > 0 {
		e.previous, err = preshared.ParseKey(s.Previous, e.kind)
	}
	if err != nil {
		return entry{}, fmt.Errorf("secret %q: %w", s.Name, err)
	}
	return e, nil
}

func (r *Ring) save() error {
	list := []stored{}
	for _, name := range slices.Sorted(maps.Keys(r.delivered)) {
		e := r.delivered[name]
		list = append(list, stored{name, e.kind.String(), e.current.Expose(), e.previous.Expose(), e.until, e.changed})
	}
	if len(list) == 0 {
		return statefile.Remove(r.path)
	}
	content, err := json.Marshal(list)
	if err != nil {
		return errors.New("the preshared keys cannot be encoded")
	}
	defer clear(content)
	return statefile.Write(r.path, content)
}

// Remove forgets the delivered keys of a machine that leaves its fleet; files of its own stay.
func Remove(state string) error { return statefile.Remove(filepath.Join(state, storeFile)) }

// PreviousOf is under which name the former value of a key is in the result of Keys. No file has such a name.
func PreviousOf(name string) string { return name + "/previous" }

// Keys returns what there is to negotiate with, by name.
func (r *Ring) Keys(now time.Time) map[string]sa.Secret {
	out := maps.Clone(r.files)
	if out == nil {
		out = map[string]sa.Secret{}
	}
	for name, e := range r.delivered {
		if _, own := r.files[name]; own {
			continue
		}
		out[name] = secretOf(e.current)
		if e.accepted(now) {
			out[PreviousOf(name)] = secretOf(e.previous)
		}
	}
	return out
}

// secretOf copies: the ring may wipe its own while an engine still holds the other.
func secretOf(k preshared.Key) sa.Secret { return sa.NewSecret(slices.Clone(k.Expose())) }

// accepted reports whether the former value counts.
func (e entry) accepted(now time.Time) bool { return e.previous.Len() > 0 && now.Before(e.until) }

// Deliver takes what the controller tells. Keys that it does not tell stay if a policy of the node names them: the
// controller may have none to tell. A message that is not valid changes nothing. changed reports whether Keys gives
// something else; the keys count also when the error says that they could not be stored (ErrNotStored).
func (r *Ring) Deliver(m *nodev1.Secrets, named func(name string) bool) (changed bool, err error) {
	if len(m.GetSecrets()) > maxDelivered {
		return false, fmt.Errorf("the controller tells %d preshared keys, more than %d", len(m.GetSecrets()), maxDelivered)
	}
	next, told := map[string]entry{}, map[string]bool{}
	for _, s := range m.GetSecrets() {
		e, err := newEntry(stored{s.GetName(), s.GetKind(), s.GetValue(), s.GetPrevious(), time.Time{}, s.GetChanged().AsTime()})
		if err != nil {
			return false, err
		}
		if s.GetPreviousUntil() != nil {
			e.until = s.GetPreviousUntil().AsTime()
		}
		if told[s.GetName()] {
			return false, fmt.Errorf("the controller tells the preshared key %q twice", s.GetName())
		}
		next[s.GetName()], told[s.GetName()] = e, true
	}
	r.told = told
	return r.replace(next, named)
}

// Forget removes the delivered keys that neither the controller's last message nor a policy of the node names.
func (r *Ring) Forget(named func(name string) bool) (changed bool, err error) {
	return r.replace(nil, named)
}

// replace puts entries into the ring and forgets those that nobody wants.
func (r *Ring) replace(next map[string]entry, named func(name string) bool) (changed bool, err error) {
	for name, old := range r.delivered {
		if _, ok := next[name]; !ok && !r.told[name] && !named(name) {
			old.current.Wipe()
			old.previous.Wipe()
			delete(r.delivered, name)
			changed = true
		}
	}
	for name, e := range next {
		if old, ok := r.delivered[name]; !ok || !old.same(e) {
			old.current.Wipe()
			old.previous.Wipe()
			r.delivered[name] = e
			changed = true
		}
	}
	return changed, r.store(changed)
}

// ErrNotStored is wrapped when delivered keys count but are not on the disk: a restart would bring back older ones.
var ErrNotStored = errors.New("preshared keys could not be stored")

// store keeps what was changed on the disk.
func (r *Ring) store(changed bool) error {
	if !changed {
		return nil
	}
	if err := r.save(); err != nil {
		return fmt.Errorf("%w: %w", ErrNotStored, err)
	}
	return nil
}

func (e entry) same(o entry) bool {
	return e.kind == o.kind && e.current.Equal(o.current) && e.previous.Equal(o.previous) && e.until.Equal(o.until)
}

// Expire forgets former values whose time is over; changed reports whether there were any.
func (r *Ring) Expire(now time.Time) (changed bool, err error) {
	for name, e := range r.delivered {
		if e.previous.Len() > 0 && !now.Before(e.until) {
			e.previous.Wipe()
			e.previous, e.until = preshared.Key{}, time.Time{}
			r.delivered[name] = e
			changed = true
		}
	}
	return changed, r.store(changed)
}

// State describes one key, without its value.
type State struct {
	Name string `json:"name"`
	// Source is "file" or "controller".
	Source string `json:"source"`
	// Hides says that the controller delivered one of the same name, which does not count.
	Hides   bool      `json:"hidesDelivered,omitempty"`
	Changed time.Time `json:"changed,omitzero"`
	// Until is how long the former value is accepted from peers.
	Until time.Time `json:"previousUntil,omitzero"`
}

// States describes all keys by name.
func (r *Ring) States(now time.Time) []State {
	out := []State{}
	for name := range r.files {
		_, hides := r.delivered[name]
		out = append(out, State{Name: name, Source: "file", Hides: hides})
	}
	for name, e := range r.delivered {
		if _, own := r.files[name]; own {
			continue
		}
		s := State{Name: name, Source: "controller", Changed: e.changed}
		if e.accepted(now) {
			s.Until = e.until
		}
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b State) int { return strings.Compare(a.Name, b.Name) })
	return out
}
