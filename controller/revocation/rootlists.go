package revocation

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/bailiwick-net/bailiwick/controller/store"
	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/ca"
	"github.com/bailiwick-net/bailiwick/pki/journal"
	"github.com/bailiwick-net/bailiwick/pki/revocation"
)

var (
	// ErrOlderList is wrapped when the list of a root is handed in that is not newer than the present one.
	ErrOlderList = errors.New("it is not newer than the list that is here")
	// ErrEnded is wrapped when the list of a root that is kept off line is over.
	ErrEnded = errors.New("sign another one where the root is, with bailiwick ca crl sign, and hand it in with bailiwick ca crl import")
)

// handInWork bounds the writing of a list that was handed in.
const handInWork = 30 * time.Second

// handed is the list of a root that is kept off line, as the store has it.
type handed struct {
	store.RootList
	list revocation.List
}

// readHanded takes the lists that the store has. They were verified when they were handed in.
func (k *Keeper) readHanded(ctx context.Context) error {
	all, err := k.config.Store.RootLists(ctx)
	if err != nil {
		return err
	}
	byRoot := map[string]handed{}
	for _, l := range all {
		list, err := revocation.ReadList(l.DER)
		if err != nil {
			return fmt.Errorf("the list of the root %s: %w: %w", l.Root.String()[:16], store.ErrCorrupt, err)
		}
		byRoot[revocation.IssuerName(l.Root)] = handed{l, list}
	}
	k.lists.Lock()
	defer k.lists.Unlock()
	k.lists.handed = byRoot
	return nil
}

// handedOf is the list that was handed in of a root.
func (k *Keeper) handedOf(root string) (handed, bool) {
	k.lists.Lock()
	defer k.lists.Unlock()
	h, ok := k.lists.handed[root]
	return h, ok
}

// handedList is the list of a root that is kept off line, for as long as it is trusted.
func (k *Keeper) handedList(scope revocation.Scope) (SignedList, error) {
	h, ok := k.handedOf(scope.Issuer)
	trusted := func(root *x509.Certificate) bool {
		id, err := pki.KeyIDOf(root.PublicKey)
		return err == nil && id == h.Root
	}
	switch {
	case !ok || !scope.Whole() || !slices.ContainsFunc(k.config.OfflineRoots(), trusted):
		return SignedList{}, fmt.Errorf("issuer %s: %w", scope.Issuer, ErrNoList)
	case !k.config.Now().Before(h.list.NextUpdate):
		return SignedList{}, fmt.Errorf("the list %s of a root that is kept off line ended at %s: %w", scope.Path(), h.list.NextUpdate.Format(time.RFC3339), ErrEnded)
	}
	return SignedList{DER: h.DER, Number: h.list.Number, ThisUpdate: h.list.ThisUpdate, NextUpdate: h.list.NextUpdate}, nil
}

// HandIn takes the list of a root that is kept off line (DER), serves it from then on, and tells everybody which CAs are on it.
// A list that revokes a CA which the fleet trusts is refused, with ErrAuthority: everybody would be shut out. Errors wrap
// revocation.ErrList, ErrOlderList too.
func (k *Keeper) HandIn(ctx context.Context, der []byte, by string) (RootList, error) {
	list, root, err := revocation.ParseList(der, k.config.OfflineRoots(), k.config.Now())
	if err != nil {
		return RootList{}, fmt.Errorf("a list is taken of roots that are trusted and kept off line: %w", err)
	}
	id, err := pki.KeyIDOf(root.PublicKey)
	if err != nil {
		return RootList{}, err
	}
	k.gate.Lock()
	defer k.gate.Unlock()
	before, again := k.handedOf(revocation.IssuerName(id))
	same := again && bytes.Equal(before.DER, der)
	if again && !same && list.Number <= before.list.Number {
		return RootList{}, fmt.Errorf("list %d of the root %q, after number %d: %w", list.Number, root.Subject, before.list.Number, ErrOlderList)
	}
	for _, c := range k.config.Trusted() {
		if bytes.Equal(c.RawIssuer, root.RawSubject) && slices.ContainsFunc(list.Entries, func(e revocation.Entry) bool { return e.Serial.Cmp(c.SerialNumber) == 0 }) {
			return RootList{}, fmt.Errorf("list %d of the root %q revokes the certificate %s of %q: %w; then hand the list in again (without a rotation: bailiwick ca rotate retire)",
				list.Number, root.Subject, c.SerialNumber.Text(16), c.Subject, ErrAuthority)
		}
	}
	// In force before anybody hears of it from the list.
	if _, err := k.apply(ctx, k.onList(list, id, root, by), by); err != nil {
		return RootList{}, err
	}
	if !same {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), handInWork)
		defer cancel()
		err := k.config.Store.PutRootList(ctx, store.RootList{Root: id, DER: der, Revision: before.Revision}, journal.Event{
			Kind: "revocation", By: by, Key: id, What: fmt.Sprintf("list %d of the root handed in, with %d entries", list.Number, len(list.Entries)),
		})
		// A lost answer is seen by reading in any case.
		if err := errors.Join(err, k.readHanded(ctx)); err != nil {
			return RootList{}, err
		}
		k.config.Log.Info("the revocation list of a root was handed in", "root", root.Subject, "number", list.Number, "until", list.NextUpdate, "by", by)
	}
	return k.describeRoot(root, id, true), nil
}

// onList are the records of what is on a list. Of a certificate that nobody here knows the end is that of the root at the latest.
func (k *Keeper) onList(list revocation.List, root pki.KeyID, issuer *x509.Certificate, by string) []store.Revocation {
	var wanted []store.Revocation
	for _, e := range list.Entries {
		r := k.record(ca.Entry{Intention: ca.Intention{
			Serial: e.Serial.Text(16), Issuer: root, Profile: ca.ProfileIssuing, Subject: "a CA of " + issuer.Subject.String(), NotAfter: issuer.NotAfter.UTC(),
		}}, e.Reason, by)
		r.Block, r.At = false, e.At // its key is not on the list
		wanted = append(wanted, r)
	}
	return wanted
}

// A RootList is how the list of a trusted root is.
type RootList struct {
	Root *x509.Certificate
	// Issuer names the root in the path of the list.
	Issuer string
	// Offline says that the root's key is not here, and its list handed in; Named that the certificate of a trusted CA below it
	// says where the list is.
	Offline, Named bool
	// Number is 0 while there is none.
	Number                 uint64
	ThisUpdate, NextUpdate time.Time
	// Revoked are the serial numbers that are on it, Lacking those that are revoked here and not on it, of CAs that have not ended.
	Revoked, Lacking []string
}

// RootLists are the lists of all trusted roots: those that are kept off line, and those that have one.
func (k *Keeper) RootLists() []RootList {
	var out []RootList
	for _, root := range k.config.Roots() {
		if l := k.describeRoot(root.Issuing(), root.IssuerKeyID(), false); l.Number > 0 {
			out = append(out, l)
		}
	}
	for _, root := range k.config.OfflineRoots() {
		if id, err := pki.KeyIDOf(root.PublicKey); err == nil { // the trust bundle has no other
			out = append(out, k.describeRoot(root, id, true))
		}
	}
	return out
}

func (k *Keeper) describeRoot(root *x509.Certificate, id pki.KeyID, offline bool) RootList {
	out := RootList{Root: root, Issuer: revocation.IssuerName(id), Offline: offline}
	for _, c := range k.config.Trusted() {
		out.Named = out.Named || bytes.Equal(c.RawIssuer, root.RawSubject) && len(c.CRLDistributionPoints) > 0
	}
	k.lists.Lock()
	signed := k.lists.byScope[revocation.Whole(id)]
	if h, ok := k.lists.handed[out.Issuer]; ok && offline {
		signed = SignedList{Number: h.list.Number, ThisUpdate: h.list.ThisUpdate, NextUpdate: h.list.NextUpdate, entries: h.list.Entries}
	}
	k.lists.Unlock()
	out.Number, out.ThisUpdate, out.NextUpdate = signed.Number, signed.ThisUpdate, signed.NextUpdate
	for _, e := range signed.entries {
		out.Revoked = append(out.Revoked, e.Serial.Text(16))
	}
	for _, r := range k.current.Load().records {
		if r.Serial != "" && r.Issuer == id && r.NotAfter.After(k.config.Now()) && !slices.Contains(out.Revoked, r.Serial) {
			out.Lacking = append(out.Lacking, r.Serial)
		}
	}
	slices.Sort(out.Lacking)
	return out
}
