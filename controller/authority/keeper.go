package authority

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"io/fs"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/bailiwick-net/bailiwick/controller/store"
	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/ca"
	"github.com/bailiwick-net/bailiwick/pki/enroll"
	"github.com/bailiwick-net/bailiwick/pki/journal"
	"github.com/bailiwick-net/bailiwick/pki/slots"
	"github.com/bailiwick-net/bailiwick/pki/trust"
)

var (
	// ErrNone is wrapped when there is no CA, and none was to be made.
	ErrNone = errors.New("there is no CA")
	// ErrAwaiting is wrapped by *AwaitingError.
	ErrAwaiting = errors.New("the issuing CA waits for a certificate of the root, which is kept off line")
	// ErrKey is wrapped when the key of a CA cannot be opened.
	ErrKey = errors.New("the key of the CA cannot be opened")
	// ErrOther is wrapped when folder and store hold different CAs.
	ErrOther = errors.New("there are two CAs")
	// ErrNotReady is wrapped when a step of a rotation must wait.
	ErrNotReady = errors.New("the rotation is not ready for this")
)

// AwaitingError says that the first CA of the fleet is to be certified by a root that is kept off line.
type AwaitingError struct {
	// ID names the CA, Request is the certificate request in DER.
	ID      string
	Request []byte
}

// Error says what to do.
func (e *AwaitingError) Error() string { return fmt.Sprintf("CA %s: %v", e.ID, ErrAwaiting) }

// Unwrap returns ErrAwaiting.
func (e *AwaitingError) Unwrap() error { return ErrAwaiting }

// Store is where the CAs and the journal are.
type Store interface {
	ca.Journal
	Authorities(ctx context.Context) (slots.State, int64, error)
	PutAuthorities(ctx context.Context, state slots.State, revision int64, e journal.Event) error
	Issuances(ctx context.Context) ([]ca.Entry, error)
	JournalHead(ctx context.Context) (journal.Head, error)
	ReadJournal(ctx context.Context, from uint64, each func(line []byte) error) (journal.Head, error)
}

// Tokens make and open keys that never leave a token (PKCS #11).
type Tokens interface {
	// Generate makes a key and returns its URI (RFC 7512).
	Generate(ctx context.Context, algorithm ca.Algorithm) (uri string, key crypto.Signer, err error)
	// Open finds the key of a URI.
	Open(ctx context.Context, uri string) (crypto.Signer, error)
}

// Config is what a Keeper works with.
type Config struct {
	Store Store
	// Unlock seals and opens the keys that are kept in the store.
	Unlock ca.Unlock
	// Tokens, where not nil, is where issuing keys are made and kept instead.
	Tokens Tokens
	// Folder is where a controller alone kept its CA before there was one in the store; it is taken over.
	Folder string
	// Init makes a CA when there is none. OfflineRoot then makes a request only, for a root that is kept elsewhere.
	Init, OfflineRoot bool
	// Certificates are those that the root answered the request with, in PEM; empty without any.
	Certificates []byte
	// CA says what CAs to make.
	CA ca.Config
	// RenewalGrace is how long after its end a machine's certificate can still be renewed.
	RenewalGrace time.Duration

	Now func() time.Time
	Log hclog.Logger
}

// Keeper issues with the active CA. It is safe for concurrent use.
type Keeper struct {
	config  Config
	current atomic.Pointer[view]
	// stepping is sent to by whoever takes a step of a rotation, and received from at its end: who waits for a step that the store
	// does not answer keeps its own deadline.
	stepping chan struct{}
	// followed reports whether all who are told of changes know of the present state. Owned by whoever takes a step.
	followed bool
	// changed is called after each step, in its goroutine.
	changed func(context.Context) error
	// revoked returns what is revoked.
	revoked func() trust.Revocations
}

// view is what is known at one revision of the state. It is immutable.
type view struct {
	state    slots.State
	revision int64
	bundle   trust.Bundle
	active   *ca.CA
	// others are the CAs that are trusted and issue no certificates, by the ID of their slot.
	others map[string]*ca.CA
}

// Open opens the CAs of the store, takes over the one of the folder, or makes one. Errors wrap ErrNone, ErrAwaiting, ErrKey,
// ErrOther, or those of the store.
func Open(ctx context.Context, c Config) (*Keeper, error) {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = hclog.NewNullLogger()
	}
	k := &Keeper{config: c, followed: true, stepping: make(chan struct{}, 1), changed: func(context.Context) error { return nil }, revoked: func() trust.Revocations { return trust.Revocations{} }}
	// The second round reads what the first one made, or what another controller was faster to make.
	for range 2 {
		err := k.load(ctx)
		if err == nil {
			return k, nil
		}
		if !errors.Is(err, store.ErrNotFound) {
			return nil, err
		}
		if err := k.begin(ctx); err != nil && !errors.Is(err, store.ErrConflict) {
			return nil, err
		}
	}
	if err := k.load(ctx); err != nil {
		return nil, err
	}
	return k, nil
}

// load reads the state and opens what is in it.
func (k *Keeper) load(ctx context.Context) error {
	state, revision, err := k.config.Store.Authorities(ctx)
	if err != nil {
		return err
	}
	if err := state.Check(); err != nil {
		return err
	}
	if state.Awaiting() {
		if len(k.config.Certificates) == 0 {
			return &AwaitingError{state.Slots[0].ID, state.Slots[0].Request}
		}
		if err := k.certify(ctx, state, revision, k.config.Certificates, ""); err != nil {
			return err
		}
		return k.load(ctx)
	}
	if err := k.compareFolder(state); err != nil {
		return err
	}
	v, err := k.open(ctx, state, revision)
	if err != nil {
		return err
	}
	k.current.Store(v)
	return nil
}

// open makes the CAs of a state. That a superseded one cannot be opened is told and does not stop the fleet: it signs
// revocation lists at most.
func (k *Keeper) open(ctx context.Context, state slots.State, revision int64) (*view, error) {
	bundle, err := state.Bundle()
	if err != nil {
		return nil, err
	}
	v := &view{state: state, revision: revision, bundle: bundle, others: map[string]*ca.CA{}}
	for _, slot := range state.Slots {
		if slot.Status == slots.Retired || slot.Status == slots.Requested {
			continue
		}
		opened, err := k.openSlot(ctx, slot)
		switch {
		case err != nil && slot.Status == slots.Superseded:
			k.config.Log.Error("the key of a superseded CA cannot be opened, its revocation lists cannot be renewed", "ca", slot.ID, "error", err)
		case err != nil:
			return nil, err
		case slot.Status == slots.Active:
			v.active = opened
		default:
			v.others[slot.ID] = opened
		}
	}
	return v, nil
}

func (k *Keeper) openSlot(ctx context.Context, slot slots.Slot) (*ca.CA, error) {
	root, err := trust.ParseCertificate(slot.Root)
	if err != nil {
		return nil, err
	}
	issuing, err := trust.ParseCertificate(slot.Issuing)
	if err != nil {
		return nil, err
	}
	key, err := k.openKey(ctx, slot.Key)
	if err != nil {
		return nil, fmt.Errorf("CA %s (%s), which is %s: %w", slot.ID, issuing.Subject, slot.Status, err)
	}
	return ca.New(root, issuing, key, k.config.Store)
}

// openKey opens a key wherever it is, and says what is missing.
func (k *Keeper) openKey(ctx context.Context, kept string) (crypto.Signer, error) {
	if !inToken(kept) {
		key, err := ca.OpenKey([]byte(kept), k.config.Unlock)
		if err != nil {
			return nil, fmt.Errorf("%w: it is sealed in the store, and every controller of the cluster needs the same passphrase or key file for it "+
				"(ca.passphraseFile or ca.keyFile): %w", ErrKey, err)
		}
		return key, nil
	}
	if k.config.Tokens == nil {
		return nil, fmt.Errorf("%w: it is in a token, %s, and no PKCS #11 module is configured (ca.pkcs11): %w", ErrKey, kept, ca.ErrUnlock)
	}
	key, err := k.config.Tokens.Open(ctx, kept)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrKey, kept, err)
	}
	return key, nil
}

// compareFolder refuses to go on with the CA of the store where the folder holds another one: somebody pointed a controller
// at the wrong store, or at the wrong folder.
func (k *Keeper) compareFolder(state slots.State) error {
	if k.config.Folder == "" {
		return nil
	}
	files, err := ca.ReadFolder(k.config.Folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	key, err := pki.KeyIDOf(files.Issuing.PublicKey)
	if err != nil {
		return err
	}
	if state.Knows(slots.IDOf(key)) {
		return nil
	}
	return fmt.Errorf("the store holds the CA %s, and the folder %s another one, %s: this is the wrong store or the wrong folder; "+
		"if the store is right, move the folder away: %w", state.Active().ID, k.config.Folder, slots.IDOf(key), ErrOther)
}

// Prepare implements enrollment.Authority with the active CA.
func (k *Keeper) Prepare(now time.Time, profile ca.Profile, request enroll.Request, subject pki.Subject) (*ca.Prepared, error) {
	return k.current.Load().active.Prepare(now, profile, request, subject)
}

// Issue implements enrollment.Authority. What was prepared a moment before a rotation is issued by the CA that prepared it,
// which is still trusted.
func (k *Keeper) Issue(ctx context.Context, p *ca.Prepared) (ca.Issued, error) {
	if p == nil {
		return k.current.Load().active.Issue(ctx, p)
	}
	return p.Issuer().Issue(ctx, p)
}

// Pin is the key id of the active root.
func (k *Keeper) Pin() pki.KeyID { return k.current.Load().active.Pin() }

// Active is the CA that issues.
func (k *Keeper) Active() *ca.CA { return k.current.Load().active }

// Others are the CAs that are trusted and do not issue: prepared and superseded ones whose key can be opened.
func (k *Keeper) Others() []*ca.CA {
	v := k.current.Load()
	var out []*ca.CA
	for _, slot := range v.state.Slots {
		if other, ok := v.others[slot.ID]; ok {
			out = append(out, other)
		}
	}
	return out
}

// Trust is the trust bundle of the fleet.
func (k *Keeper) Trust() trust.Bundle { return k.current.Load().bundle }

// State is the state of all CAs.
func (k *Keeper) State() slots.State { return k.current.Load().state }

// ServerChain is what a server presents: its certificate and issuers with the root, for machines that know that by its pin,
// and behind them the way to the root before, for machines that have not heard of this one yet.
func (k *Keeper) ServerChain(issued ca.Issued) [][]byte {
	chain := issued.ChainWithRoot()
	state := k.current.Load().state
	active := state.Active()
	if len(active.Bridge) == 0 || len(issued.Issuers) == 0 || string(issued.Issuers[0].Raw) != string(active.Issuing) {
		return chain
	}
	bridge, err := trust.ParseCertificate(active.Bridge)
	if err != nil {
		return chain
	}
	for _, slot := range state.Slots {
		root, err := trust.ParseCertificate(slot.Root)
		if err == nil && slot.Status != slots.Retired && string(root.RawSubject) == string(bridge.RawIssuer) && len(chain)+2 <= trust.MaxChain {
			return append(chain, active.Bridge, slot.Root)
		}
	}
	return chain
}

// OnChange sets what is called after each step of a rotation. It must be set before the first step.
func (k *Keeper) OnChange(changed func(context.Context) error) { k.changed = changed }

// ConsiderRevoked sets what tells of revocations: a certificate that is revoked does not hold back the retirement of its CA. It
// must be set before the first step.
func (k *Keeper) ConsiderRevoked(revoked func() trust.Revocations) { k.revoked = revoked }
