package ca

import (
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"time"

	"github.com/bailiwick-net/bailiwick/pki/revocation"
)

// ErrNoIssuer is wrapped when the journal of a root has no such CA.
var ErrNoIssuer = errors.New("this root has certified no such CA")

// The lifetimes of the list of a root that is kept off line: somebody has to go there before its end.
const (
	DefaultRootListLifetime = 180 * day
	minRootListLifetime     = day
	maxRootListLifetime     = 397 * day
)

// RootList is a revocation list of a root that is kept off line, as its journal has it. It encodes as JSON.
type RootList struct {
	Number     uint64      `json:"number"`
	ThisUpdate time.Time   `json:"thisUpdate"`
	NextUpdate time.Time   `json:"nextUpdate"`
	Revoked    []RevokedCA `json:"revoked,omitempty"`
}

// RevokedCA is an issuing CA's certificate that is on a list.
type RevokedCA struct {
	Serial string    `json:"serial"` // as the journal spells it
	At     time.Time `json:"at"`
	Reason string    `json:"reason"`
}

// list is what is signed.
func (l RootList) list() (revocation.List, error) {
	out := revocation.List{Number: l.Number, ThisUpdate: l.ThisUpdate, NextUpdate: l.NextUpdate}
	for _, r := range l.Revoked {
		serial, ok := new(big.Int).SetString(r.Serial, 16)
		if !ok {
			return revocation.List{}, fmt.Errorf("revoked CA with the serial number %q: %w", r.Serial, ErrJournal)
		}
		reason, err := revocation.ParseReason(r.Reason)
		if err != nil {
			return revocation.List{}, fmt.Errorf("revoked CA %s: %w", r.Serial, err)
		}
		out.Entries = append(out.Entries, revocation.Entry{Serial: serial, At: r.At, Reason: reason})
	}
	return out, nil
}

// A RootListOrder says what list to sign.
type RootListOrder struct {
	// Lifetime is 24 h to 397 days; 0 means DefaultRootListLifetime.
	Lifetime time.Duration
	// Revoke names issuing CAs that are revoked from now on, by their name in the controller (16 digits of the key: all
	// certificates that the root made for it) or by the serial number of a certificate. Those of earlier lists stay.
	Revoke []string
	// Reason is why. A CA cannot be put on hold.
	Reason revocation.Reason
}

// SignRootList signs the next list of a root that is kept off line, in DER. It is in the journal before it is signed: what was
// revoked once is on every list that follows. Errors wrap ErrAuthority, ErrNoIssuer or ErrJournal.
func SignRootList(journal *FileJournal, now time.Time, root *x509.Certificate, key crypto.Signer, order RootListOrder) (RootList, []byte, error) {
	if order.Lifetime == 0 {
		order.Lifetime = DefaultRootListLifetime
	}
	if order.Lifetime < minRootListLifetime || order.Lifetime > maxRootListLifetime {
		return RootList{}, nil, fmt.Errorf("lifetime %v of the revocation list, wanted %v to %v: %w", order.Lifetime, minRootListLifetime, maxRootListLifetime, ErrAuthority)
	}
	if order.Reason == revocation.CertificateHold {
		return RootList{}, nil, fmt.Errorf("a CA cannot be put on hold, it is revoked or not: %w", ErrAuthority)
	}
	if now.Before(root.NotBefore) || !now.Before(root.NotAfter) {
		return RootList{}, nil, fmt.Errorf("the root %q is good from %s to %s, and here it is %s: %w", root.Subject,
			root.NotBefore.Format(time.RFC3339), root.NotAfter.Format(time.RFC3339), now.UTC().Format(time.RFC3339), ErrAuthority)
	}
	next, err := journal.nextList(now.UTC().Truncate(time.Second), order)
	if err != nil {
		return RootList{}, nil, err
	}
	content, err := next.list()
	if err != nil {
		return RootList{}, nil, err
	}
	if err := journal.RecordList(next); err != nil {
		return RootList{}, nil, fmt.Errorf("recording the revocation list %d, nothing was signed: %w", next.Number, err)
	}
	der, err := SignCRL(content, root, key)
	return next, der, err
}

// nextList works out the list that follows.
func (j *FileJournal) nextList(now time.Time, order RootListOrder) (RootList, error) {
	j.guarded.Lock()
	last, entries := j.guarded.list, j.guarded.entries.list()
	j.guarded.Unlock()
	// At least the seconds of the Unix epoch: a folder that comes back from a copy has forgotten numbers that were used.
	next := RootList{Number: uint64(max(1, now.Unix())), ThisUpdate: now, NextUpdate: now.Add(order.Lifetime)}
	ends := map[string]time.Time{}
	for _, e := range entries {
		ends[e.Intention.Serial] = e.Intention.NotAfter
	}
	if last != nil {
		next.Number = max(next.Number, last.Number+1)
		// The clock may have been ahead then, and nobody took that list; it is not a list from after anything's end.
		before := last.ThisUpdate
		if now.Before(before) {
			before = now
		}
		for _, r := range last.Revoked {
			// RFC 5280 3.3: an entry stays until it was on a list from after the certificate's end.
			if end, ok := ends[r.Serial]; ok && before.After(end) {
				continue
			}
			if now.Before(r.At) {
				r.At = now
			}
			next.Revoked = append(next.Revoked, r)
		}
	}
	for _, name := range order.Revoke {
		serials := issuersNamed(entries, name)
		if len(serials) == 0 {
			return RootList{}, fmt.Errorf("revoking the CA %q: %w; look at its name or serial number with bailiwick ca status, or openssl x509 -serial", name, ErrNoIssuer)
		}
		for _, serial := range serials {
			if !slices.ContainsFunc(next.Revoked, func(r RevokedCA) bool { return r.Serial == serial }) {
				next.Revoked = append(next.Revoked, RevokedCA{serial, now, order.Reason.String()})
			}
		}
	}
	return next, nil
}

// issuersNamed are the serial numbers of the certificates of an issuing CA. What may have been signed counts as well.
func issuersNamed(entries []Entry, name string) []string {
	number, ok := revocation.ParseSerial(name)
	var serials []string
	for _, e := range entries {
		i := e.Intention
		if i.Profile != ProfileIssuing {
			continue
		}
		if ok && number.Text(16) == i.Serial || strings.EqualFold(name, revocation.IssuerName(i.Key)) {
			serials = append(serials, i.Serial)
		}
	}
	return serials
}

// RecordList records a list that is about to be signed. Its number is higher than those before. Errors wrap ErrJournal.
func (j *FileJournal) RecordList(list RootList) error {
	j.guarded.Lock()
	defer j.guarded.Unlock()
	if err := j.mayListLocked(list); err != nil {
		return err
	}
	if err := j.appendLocked(journalLine{List: &list}); err != nil {
		return err
	}
	j.guarded.list = &list
	return nil
}

func (j *FileJournal) mayListLocked(list RootList) error {
	if last := j.guarded.list; list.Number == 0 || last != nil && list.Number <= last.Number {
		return fmt.Errorf("revocation list with the number %d, which is not higher than the one before: %w", list.Number, ErrJournal)
	}
	return nil
}
