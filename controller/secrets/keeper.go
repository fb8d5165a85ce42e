package secrets

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/bailiwick-net/bailiwick/controller/store"
	"github.com/bailiwick-net/bailiwick/pki/ca"
	"github.com/bailiwick-net/bailiwick/policies/preshared"
)

// MaxOverlap bounds how long the old value of a changed secret is accepted.
const MaxOverlap = 30 * 24 * time.Hour

// Store is where the sealed records are.
type Store interface {
	Secrets(ctx context.Context) ([]store.SecretRecord, error)
	PutSecret(ctx context.Context, r store.SecretRecord) error
	DeleteSecret(ctx context.Context, name string, revision, documents int64) error
	WatchSecrets(ctx context.Context) <-chan struct{}
}

// Config is what a Keeper works with.
type Config struct {
	Store Store
	// Path is the file of the key that seals, Unlock what opens it.
	Path   string
	Unlock ca.Unlock
	Now    func() time.Time
	Log    hclog.Logger
}

// A Keeper is safe for concurrent use.
type Keeper struct {
	config Config
	// present is what the store held when it was read last.
	present atomic.Pointer[snapshot]
	// changed wakes Run's caller; it has room for one hint.
	changed chan struct{}

	// writing is held from reading the store to publishing what was read or written.
	writing struct {
		sync.Mutex
		sealer *sealer // nil without a key
	}
}

// snapshot is immutable.
type snapshot struct {
	list   []Secret
	byName map[string]int
}

// A Secret is one secret; what is exported of it is for administrators.
type Secret struct {
	Name    string
	Kind    preshared.Kind
	Changed time.Time
	By      string
	// Until is how long the value before is accepted; the zero time without one.
	Until time.Time
	// Problem is why the secret cannot be opened; nil when it can.
	Problem error

	record            store.SecretRecord
	current, previous preshared.Key
}

// Open reads the key's file and the secrets. A missing file is no error here: without secrets it is made with the first
// one, and with secrets each of them has a Problem until the file is restored.
func Open(ctx context.Context, c Config) (*Keeper, error) {
	k := &Keeper{config: c, changed: make(chan struct{}, 1)}
	k.present.Store(&snapshot{})
	sealer, err := loadKey(c.Path, c.Unlock)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	k.writing.sealer = sealer
	if err := k.Read(ctx); err != nil {
		return nil, err
	}
	for _, s := range k.List() {
		if s.Problem != nil {
			c.Log.Error("secret cannot be opened, nodes keep the value that they have", "secret", s.Name, "error", s.Problem)
		}
	}
	return k, nil
}

// Run follows the store until ctx ends, and calls changed after each difference; changed must not block.
func (k *Keeper) Run(ctx context.Context, changed func()) error {
	hints := k.config.Store.WatchSecrets(ctx)
	for {
		select {
		case _, ok := <-hints:
			if !ok {
				return nil
			}
			if err := k.Read(ctx); err != nil && ctx.Err() == nil {
				k.config.Log.Error("cannot read the secrets, the last state counts", "error", err)
			}
		case <-k.changed:
			changed()
		case <-ctx.Done():
			return nil
		}
	}
}

// Read reads the store now.
func (k *Keeper) Read(ctx context.Context) error {
	k.writing.Lock()
	defer k.writing.Unlock()
	return k.readLocked(ctx)
}

func (k *Keeper) readLocked(ctx context.Context) error {
	records, err := k.config.Store.Secrets(ctx)
	if err != nil {
		return err
	}
	old := k.present.Load()
	next := &snapshot{byName: map[string]int{}}
	same := len(old.list) == len(records)
	slices.SortFunc(records, func(a, b store.SecretRecord) int { return cmp.Compare(a.Name, b.Name) })
	for i, r := range records {
		s := k.openLocked(r)
		same = same && old.list[i].Name == s.Name && old.list[i].record.Revision == r.Revision && (old.list[i].Problem == nil) == (s.Problem == nil)
		next.byName[s.Name] = i
		next.list = append(next.list, s)
	}
	k.present.Store(next)
	if !same {
		select {
		case k.changed <- struct{}{}:
		default:
		}
	}
	return nil
}

func (k *Keeper) openLocked(r store.SecretRecord) Secret {
	s := Secret{Name: r.Name, Changed: r.Changed, By: r.By, record: r}
	s.Kind, s.Problem = preshared.ParseKind(r.Kind)
	switch {
	case s.Problem != nil:
	case k.writing.sealer == nil:
		s.Problem = fmt.Errorf("%w: %s is not there; restore it from a backup of the state directory, or delete the secret and set it again", ErrLocked, k.config.Path)
	default:
		s.current, s.Problem = k.writing.sealer.open(r, placeCurrent, r.Current)
	}
	if r.Previous == nil || s.Problem != nil {
		return s
	}
	// An old value that cannot be opened is as good as ended: the new one counts.
	if previous, err := k.writing.sealer.open(r, placePrevious, *r.Previous); err == nil {
		s.previous, s.Until = previous, r.Previous.Until
	} else {
		k.config.Log.Error("the old value of a secret cannot be opened and is not accepted any more", "secret", r.Name, "error", err)
	}
	return s
}

// List returns all secrets by name.
func (k *Keeper) List() []Secret { return slices.Clone(k.present.Load().list) }

// Get returns one secret; false when there is none of the name.
func (k *Keeper) Get(name string) (Secret, bool) {
	p := k.present.Load()
	if i, ok := p.byName[name]; ok {
		return p.list[i], true
	}
	return Secret{}, false
}

// A Value is one secret for a node.
type Value struct {
	Name    string
	Kind    preshared.Kind
	Changed time.Time
	Current preshared.Key
	// Previous is empty without a value that is accepted beside the current one, until Until.
	Previous preshared.Key
	Until    time.Time
	// Revision changes with every change of the value.
	Revision int64
}

// Values returns what there is of the secrets that a policy uses. What is not there, cannot be opened or is of another
// kind than the policy uses it for is left out: the nodes then keep what they have.
func (k *Keeper) Values(uses []preshared.Use) []Value {
	now := k.config.Now()
	var values []Value
	for _, u := range uses {
		s, ok := k.Get(u.Name)
		if !ok || s.Problem != nil || s.Kind != u.Kind {
			continue
		}
		v := Value{Name: s.Name, Kind: s.Kind, Changed: s.Changed, Current: s.current, Revision: s.record.Revision}
		if now.Before(s.Until) {
			v.Previous, v.Until = s.previous, s.Until
		}
		values = append(values, v)
	}
	return values
}

// Outcome is what Set did.
type Outcome uint8

// The outcomes.
const (
	Created Outcome = iota + 1
	Replaced
	Unchanged
)

// Set keeps a value. The value before, if there is one of a PSK, is accepted for the overlap; 0 ends it at once. An
// error that wraps store.ErrConflict says that somebody else was faster.
func (k *Keeper) Set(ctx context.Context, name string, kind preshared.Kind, key preshared.Key, overlap time.Duration, by string) (Outcome, Secret, error) {
	if err := preshared.CheckName(name); err != nil {
		return 0, Secret{}, err
	}
	if overlap < 0 || overlap > MaxOverlap {
		return 0, Secret{}, fmt.Errorf("the old value shall be accepted for %v, wanted 0s to %v: %w", overlap, MaxOverlap, ErrOverlap)
	}
	k.writing.Lock()
	defer k.writing.Unlock()
	if err := k.readLocked(ctx); err != nil {
		return 0, Secret{}, err
	}
	if err := k.ensureKeyLocked(); err != nil {
		return 0, Secret{}, err
	}
	before, exists := k.Get(name)
	readable := exists && before.Problem == nil && before.Kind == kind
	same := readable && before.current.Equal(key)
	if same && (overlap > 0 || before.record.Previous == nil) {
		return Unchanged, before, nil
	}
	record := store.SecretRecord{
		Name: name, Kind: kind.String(), Key: k.writing.sealer.id, Changed: k.config.Now().UTC(), By: by, Revision: before.record.Revision,
	}
	record.Current = k.writing.sealer.seal(record, placeCurrent, time.Time{}, key)
	// RFC 8784 knows a PPK by its name, under which there is one value at a time.
	if readable && !same && overlap > 0 && kind == preshared.PSK {
		until := record.Changed.Add(overlap)
		previous := k.writing.sealer.seal(record, placePrevious, until, before.current)
		record.Previous = &previous
	}
	if err := k.config.Store.PutSecret(ctx, record); err != nil {
		return 0, Secret{}, err
	}
	if err := k.readLocked(ctx); err != nil {
		return 0, Secret{}, fmt.Errorf("the secret is stored, but cannot be read back: %w", err)
	}
	after, _ := k.Get(name)
	if !exists {
		return Created, after, nil
	}
	return Replaced, after, nil
}

// ensureKeyLocked makes the key with the first secret.
func (k *Keeper) ensureKeyLocked() error {
	if k.writing.sealer != nil {
		return nil
	}
	if n := len(k.present.Load().list); n > 0 {
		return fmt.Errorf("%w: %s is not there, and the store holds %d secrets sealed with it; restore the file from a backup of the state directory and restart the controller, or, where it is lost, delete those secrets first",
			ErrLocked, k.config.Path, n)
	}
	made, err := makeKey(k.config.Path, k.config.Unlock)
	if err != nil {
		return err
	}
	k.writing.sealer = made
	k.config.Log.Info("key of the secrets made; it belongs into the backup of the state directory", "file", k.config.Path)
	return nil
}

// Delete removes a secret, if the policy documents are still at the revision at which nobody referred to it; else the
// error wraps store.ErrConflict.
func (k *Keeper) Delete(ctx context.Context, name string, documents int64) error {
	k.writing.Lock()
	defer k.writing.Unlock()
	if err := k.readLocked(ctx); err != nil {
		return err
	}
	s, ok := k.Get(name)
	if !ok {
		return fmt.Errorf("secret %q: %w", name, ErrNotFound)
	}
	if err := k.config.Store.DeleteSecret(ctx, name, s.record.Revision, documents); err != nil {
		return err
	}
	return k.readLocked(ctx)
}

// Prune removes old values whose time ended before the given one from the store, and tells how many.
func (k *Keeper) Prune(ctx context.Context, before time.Time) (int, error) {
	k.writing.Lock()
	defer k.writing.Unlock()
	pruned := 0
	for _, s := range k.List() {
		if s.record.Previous == nil || !s.record.Previous.Until.Before(before) {
			continue
		}
		record := s.record
		record.Previous = nil
		if err := k.config.Store.PutSecret(ctx, record); err != nil && !errors.Is(err, store.ErrConflict) {
			return pruned, err
		}
		pruned++
	}
	if pruned == 0 {
		return 0, nil
	}
	return pruned, k.readLocked(ctx)
}
