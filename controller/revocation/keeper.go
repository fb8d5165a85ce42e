package revocation

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/bailiwick-net/bailiwick/controller/mirror"
	"github.com/bailiwick-net/bailiwick/controller/store"
	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/ca"
	"github.com/bailiwick-net/bailiwick/pki/journal"
	"github.com/bailiwick-net/bailiwick/pki/revocation"
	"github.com/bailiwick-net/bailiwick/pki/trust"
)

var (
	// ErrNothing is wrapped when an order fits no certificate.
	ErrNothing = errors.New("no certificate fits")
	// ErrPermanent is wrapped when a revocation would be lifted that is no hold.
	ErrPermanent = errors.New("only a certificate that is on hold can be released (RFC 5280 5.3.1)")
	// ErrDirectory is wrapped when a hold would be lifted that the directory is the cause of.
	ErrDirectory = errors.New("the machine is disabled in the directory; enable its account, and the hold ends by itself")
	// ErrAuthority is wrapped when the certificate or key of a CA would be revoked that the fleet trusts.
	ErrAuthority = errors.New("it is that of a CA which the fleet trusts, and with it everybody would be shut out; replace the CA by a rotation, which ends the trust in it")
	// ErrKeyRevoked is wrapped when a certificate is asked for with a key, or by the holder of a certificate, that is revoked.
	ErrKeyRevoked = errors.New("revoked")
	// ErrNotAdmitted is wrapped when the directory stopped admitting a machine while its certificate was being made.
	ErrNotAdmitted = errors.New("its account in the directory is disabled or gone")
)

// Store is where the records are.
type Store interface {
	Revocations(ctx context.Context) (store.Revocations, error)
	ChangeRevocations(ctx context.Context, c store.RevocationChange) (uint64, error)
	PruneRevocations(ctx context.Context, before time.Time) (int, error)
	NextCRLNumber(ctx context.Context) (uint64, error)
	RootLists(ctx context.Context) ([]store.RootList, error)
	PutRootList(ctx context.Context, l store.RootList, e journal.Event) error
	IndexIssuances(ctx context.Context) error
	Issuance(ctx context.Context, serial string) (ca.Entry, error)
	IssuancesTo(ctx context.Context, subject string) ([]ca.Entry, error)
	IssuancesOf(ctx context.Context, key pki.KeyID) ([]ca.Entry, error)
	IssuedSubjects(ctx context.Context, beginning string) ([]string, error)
	Holdings(ctx context.Context) ([]store.Holding, error)
	PutHolding(ctx context.Context, h store.Holding) error
	RecordEvent(ctx context.Context, e journal.Event) error
}

// Config is what a Keeper works with.
type Config struct {
	Store Store
	// View returns the directory in force, nil before the first.
	View func() *mirror.View
	// TrustDomain is that of the machines.
	TrustDomain string
	// Issuers are the CAs whose lists are made.
	Issuers func() []Issuer
	// Roots are the roots whose keys are at hand: each signs the list of the CAs below it. Nil means none.
	Roots func() []Issuer
	// OfflineRoots are the trusted roots whose keys are kept elsewhere: their lists are handed in. Nil means none.
	OfflineRoots func() []*x509.Certificate
	// Trusted are the CAs below roots that the fleet trusts: no list that revokes one of them is taken. Nil means none.
	Trusted func() []*x509.Certificate
	// Responder returns who signs OCSP responses for an issuer.
	Responder func(ctx context.Context, issuer Issuer) (Responder, error)
	// Pointers are the places that certificates name.
	Pointers revocation.Pointers
	// ListLifetime is how long a list is good for; 0 means DefaultListLifetime. ResponseLifetime is that of responses; 0
	// means DefaultResponseLifetime.
	ListLifetime, ResponseLifetime time.Duration
	Now                            func() time.Time
	Log                            hclog.Logger
}

// A Keeper is safe for concurrent use.
type Keeper struct {
	config Config
	// gate is held for writing while revocations are worked out and change, and for reading by whoever decides about issuing.
	gate    sync.RWMutex
	current atomic.Pointer[state]
	// changed is told of every new state; it is set before Run.
	changed func()
	wake    chan struct{}
	tend    chan struct{}
	lists   lists
	health  health
	busy    chan struct{} // one place for each response that is being made
}

// state is what is in force. It is immutable.
type state struct {
	number  uint64
	records map[string]store.Revocation
	set     trust.Revocations
	// last is when a person last revoked a certificate of a subject.
	last map[string]time.Time
}

// Open reads the records.
func Open(ctx context.Context, c Config) (*Keeper, error) {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = hclog.NewNullLogger()
	}
	if c.Roots == nil {
		c.Roots = func() []Issuer { return nil }
	}
	if c.OfflineRoots == nil {
		c.OfflineRoots = func() []*x509.Certificate { return nil }
	}
	if c.Trusted == nil {
		c.Trusted = func() []*x509.Certificate { return nil }
	}
	if c.ListLifetime == 0 {
		c.ListLifetime = DefaultListLifetime
	}
	if c.ResponseLifetime == 0 {
		c.ResponseLifetime = DefaultResponseLifetime
	}
	k := &Keeper{config: c, changed: func() {}, wake: make(chan struct{}, 1), tend: make(chan struct{}, 1), busy: make(chan struct{}, maxResponses), health: newHealth()}
	k.lists.byScope, k.lists.signing = map[revocation.Scope]SignedList{}, map[revocation.Scope]*signature{}
	k.DirectoryChanged()
	if err := c.Store.IndexIssuances(ctx); err != nil {
		return nil, err
	}
	if err := errors.Join(k.read(ctx), k.readHanded(ctx)); err != nil {
		return nil, err
	}
	return k, nil
}

// Notify sets who is told of every change. It is called before anything changes.
func (k *Keeper) Notify(changed func()) { k.changed = changed }

// Set is what no controller, node or administrator must believe. Machines that the directory put on hold are not in it:
// they are refused by name, and thousands of them would be sent to every node for nothing.
func (k *Keeper) Set() trust.Revocations { return k.current.Load().set }

// Record returns the revocation of a certificate.
func (k *Keeper) Record(serial string) (store.Revocation, bool) {
	r, ok := k.current.Load().records[serial]
	return r, ok
}

// Records are all revocations, in the order of their names.
func (k *Keeper) Records() []store.Revocation {
	s := k.current.Load()
	out := make([]store.Revocation, 0, len(s.records))
	for _, r := range s.records {
		out = append(out, r)
	}
	slices.SortFunc(out, func(a, b store.Revocation) int { return strings.Compare(a.ID(), b.ID()) })
	return out
}

// read takes what the store has.
func (k *Keeper) read(ctx context.Context) error {
	all, err := k.config.Store.Revocations(ctx)
	if err != nil {
		return err
	}
	next, err := newState(all)
	if err != nil {
		return err
	}
	k.current.Store(next)
	return nil
}

func newState(all store.Revocations) (*state, error) {
	s := &state{number: all.Number, records: make(map[string]store.Revocation, len(all.Records)), last: map[string]time.Time{}}
	for _, r := range all.Records {
		s.records[r.ID()] = r
		if r.Subject != "" && !r.Automatic && r.Reason != revocation.Superseded.String() && r.At.After(s.last[r.Subject]) {
			s.last[r.Subject] = r.At
		}
	}
	var err error
	s.set, err = set(all.Number, s.records)
	return s, err
}

// set is what is pushed of the records.
func set(number uint64, records map[string]store.Revocation) (trust.Revocations, error) {
	var serials []trust.Serial
	var keys []pki.KeyID
	for _, r := range records {
		if r.Automatic && r.Reason == revocation.CertificateHold.String() {
			continue
		}
		if r.Block {
			keys = append(keys, r.Key)
		}
		if r.Serial == "" {
			continue
		}
		number, ok := new(big.Int).SetString(r.Serial, 16)
		if !ok {
			return trust.Revocations{}, fmt.Errorf("revocation of the serial number %q: %w", r.Serial, store.ErrCorrupt)
		}
		s, err := trust.NewSerial(r.Issuer, number)
		if err != nil {
			return trust.Revocations{}, err
		}
		serials = append(serials, s)
	}
	return trust.NewRevocations(number, serials, keys)
}

// An Order names certificates in one of three ways.
type Order struct {
	// Serial is a serial number in hexadecimal.
	Serial string
	// Subject is an identity URI: all certificates that were issued to it.
	Subject string
	// Key is a key: itself, and all certificates that it has.
	Key pki.KeyID
}

// ParseSerial reads a serial number as people copy it: hexadecimal in any case, with colons or 0x. It returns the
// spelling of the journal.
func ParseSerial(text string) (string, error) {
	number, ok := revocation.ParseSerial(text)
	if !ok {
		return "", fmt.Errorf("serial number %.60q is not a positive number of up to 40 hexadecimal digits: %w", text, ErrNothing)
	}
	return number.Text(16), nil
}

// find returns the certificates of an order.
func (k *Keeper) find(ctx context.Context, o Order) ([]ca.Entry, error) {
	switch {
	case o.Serial != "":
		e, err := k.config.Store.Issuance(ctx, o.Serial)
		return []ca.Entry{e}, err
	case o.Subject != "":
		entries, err := k.config.Store.IssuancesTo(ctx, o.Subject)
		if err == nil && len(entries) == 0 {
			err = fmt.Errorf("certificates issued to %s: %w", o.Subject, ErrNothing)
		}
		return entries, err
	case !o.Key.IsZero():
		return k.config.Store.IssuancesOf(ctx, o.Key)
	}
	return nil, ErrNothing
}

// An Outcome is what an order came to.
type Outcome struct {
	// Changed are the records that were written, or removed.
	Changed []store.Revocation
	// Before are the records that were there already, and stay.
	Before []store.Revocation
}

// Revoke revokes the certificates of an order, and their keys where the reason says so. What is revoked already stays as
// it is, except that a hold becomes final, and a hold of the directory that of whoever asked.
func (k *Keeper) Revoke(ctx context.Context, o Order, reason revocation.Reason, by string) (Outcome, error) {
	k.gate.Lock()
	defer k.gate.Unlock()
	entries, err := k.find(ctx, o)
	if err != nil {
		return Outcome{}, err
	}
	var wanted []store.Revocation
	for _, e := range entries {
		r := k.record(e, reason, by)
		wanted = append(wanted, r)
		if reason.Outlives() {
			wanted = append(wanted, k.blocked(r.Key, reason, by))
		}
	}
	if !o.Key.IsZero() {
		wanted = append(wanted, k.blocked(o.Key, reason, by))
	}
	for _, r := range wanted {
		_, issues := k.issuer(func(i Issuer) bool { return i.IssuerKeyID() == r.Key })
		if issues || r.Serial != "" && r.Issuer == r.Key { // a root signed itself
			return Outcome{}, fmt.Errorf("revoking %s: %w", r.ID(), ErrAuthority)
		}
	}
	return k.apply(ctx, wanted, by)
}

// byEnrolment is who revokes because a machine enrolled anew.
const byEnrolment = "enrolment"

// Supersede revokes the certificates that a machine had up to the former one, because it enrolled anew. The one with the serial
// number present, which it gets now, stays, whatever the clock said when the former one was issued.
func (k *Keeper) Supersede(ctx context.Context, former store.Holding, present string) error {
	k.gate.Lock()
	defer k.gate.Unlock()
	entries, err := k.config.Store.IssuancesTo(ctx, pki.MachineURI(k.config.TrustDomain, former.Machine))
	if err != nil {
		return err
	}
	var wanted []store.Revocation
	for _, e := range entries {
		if e.Intention.Serial != present && !e.Intention.Prepared.After(former.Issued) && e.Intention.NotAfter.After(k.config.Now()) {
			wanted = append(wanted, k.record(e, revocation.Superseded, byEnrolment))
		}
	}
	_, err = k.apply(ctx, wanted, byEnrolment)
	return err
}

func (k *Keeper) record(e ca.Entry, reason revocation.Reason, by string) store.Revocation {
	i := e.Intention
	return store.Revocation{
		Serial: i.Serial, Issuer: i.Issuer, Key: i.Key, Block: reason.BlocksKey(), Profile: i.Profile, Subject: i.Subject, NotAfter: i.NotAfter,
		Reason: reason.String(), At: k.config.Now().UTC(), By: by,
	}
}

func (k *Keeper) blocked(key pki.KeyID, reason revocation.Reason, by string) store.Revocation {
	return store.Revocation{Key: key, Block: true, Reason: reason.String(), At: k.config.Now().UTC(), By: by}
}

// apply writes records, unless they say nothing new. The gate is held.
func (k *Keeper) apply(ctx context.Context, wanted []store.Revocation, by string) (Outcome, error) {
	var out Outcome
	seen := map[string]bool{}
	for _, r := range wanted {
		if seen[r.ID()] {
			continue
		}
		seen[r.ID()] = true
		if before, ok := k.current.Load().records[r.ID()]; ok && !supersedes(r, before) {
			out.Before = append(out.Before, before)
			continue
		}
		out.Changed = append(out.Changed, r)
	}
	return out, k.write(ctx, out.Changed, nil, by)
}

// supersedes reports whether a record says more than the one before.
func supersedes(r, before store.Revocation) bool {
	hold := revocation.CertificateHold.String()
	return before.Reason == hold && (r.Reason != hold || before.Automatic && !r.Automatic)
}

// write changes the store in steps and takes each into force. The gate is held.
func (k *Keeper) write(ctx context.Context, put, release []store.Revocation, by string) error {
	if len(put)+len(release) == 0 {
		return nil
	}
	if err := k.room(put, release); err != nil {
		return err
	}
	// Whoever hangs up must not leave a part of an order undone without anybody hearing of the rest.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	defer k.tendSoon()
	defer k.changed()
	for len(put)+len(release) > 0 {
		now := min(len(put), store.MaxRevocationChange)
		lift := min(len(release), store.MaxRevocationChange-now)
		_, err := k.config.Store.ChangeRevocations(ctx, store.RevocationChange{
			Base: k.current.Load().number, Put: put[:now], Release: release[:lift], At: k.config.Now().UTC(), By: by,
		})
		// What others wrote, or a lost answer, is seen by reading in any case.
		if err := errors.Join(err, k.read(ctx)); err != nil {
			return err
		}
		put, release = put[now:], release[lift:]
	}
	return nil
}

// room refuses a change that no node could be told.
func (k *Keeper) room(put, release []store.Revocation) error {
	next := map[string]store.Revocation{}
	for id, r := range k.current.Load().records {
		next[id] = r
	}
	for _, r := range put {
		next[r.ID()] = r
	}
	for _, r := range release {
		delete(next, r.ID())
	}
	_, err := set(0, next)
	return err
}

// Release lifts holds.
func (k *Keeper) Release(ctx context.Context, o Order, by string) (Outcome, error) {
	k.gate.Lock()
	defer k.gate.Unlock()
	entries, err := k.find(ctx, o)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return Outcome{}, err
	}
	var ids []string
	for _, e := range entries {
		ids = append(ids, e.Intention.Serial)
	}
	if !o.Key.IsZero() {
		ids = append(ids, store.Revocation{Key: o.Key}.ID())
	}
	var out Outcome
	for _, id := range ids {
		r, ok := k.current.Load().records[id]
		switch {
		case !ok:
		case r.Reason != revocation.CertificateHold.String():
			out.Before = append(out.Before, r)
		case r.Automatic:
			return Outcome{}, fmt.Errorf("certificate %s of %s: %w", r.Serial, r.Subject, ErrDirectory)
		default:
			out.Changed = append(out.Changed, r)
		}
	}
	switch {
	case len(out.Changed) > 0:
		return out, k.write(ctx, nil, out.Changed, by)
	case len(out.Before) > 0:
		return Outcome{}, fmt.Errorf("%s is revoked for %s: %w", out.Before[0].ID(), out.Before[0].Reason, ErrPermanent)
	}
	return Outcome{}, fmt.Errorf("revoked certificates: %w", ErrNothing)
}

// Prune removes the records of certificates that ended before the given time.
func (k *Keeper) Prune(ctx context.Context, before time.Time) (int, error) {
	k.gate.Lock()
	defer k.gate.Unlock()
	if err := k.remember(ctx, before); err != nil {
		return 0, err
	}
	pruned, err := k.config.Store.PruneRevocations(ctx, before)
	if pruned == 0 {
		return 0, err
	}
	defer k.changed()
	return pruned, errors.Join(err, k.read(ctx))
}
