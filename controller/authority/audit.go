package authority

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/ca"
	"github.com/bailiwick-net/bailiwick/pki/journal"
	"github.com/bailiwick-net/bailiwick/pki/trust"
)

// Report is what an audit of the journal found.
type Report struct {
	Head journal.Head
	// Certificates were signed; Open are intentions without a certificate: signed at most, and given to nobody.
	Certificates, Open int
	// Problems are sentences; there must be none.
	Problems []string
}

// maxProblems bounds what is told: more of the same help nobody.
const maxProblems = 100

// Audit reads the whole journal, holds it against heads that somebody remembers, and accounts for every certificate that
// the store has: each was intended and signed as the journal says, by a key that was the fleet's. An error is one of
// reading; what is wrong with the journal is in the report.
func (k *Keeper) Audit(ctx context.Context, remembered []journal.Head) (Report, error) {
	// Certificates are issued meanwhile. Those of records up to this head must be among the entries, and records of all
	// entries in the journal, which is read after them.
	before, err := k.config.Store.JournalHead(ctx)
	if err != nil {
		return Report{}, err
	}
	entries, err := k.config.Store.Issuances(ctx)
	if err != nil {
		return Report{}, err
	}
	var r Report
	var audit journal.Audit
	for _, h := range remembered {
		if err := audit.Expect(h); err != nil {
			r.problem("%v", err)
		}
	}
	broken := ""
	stored, err := k.config.Store.ReadJournal(ctx, 1, func(line []byte) error {
		if broken != "" {
			return nil
		}
		if _, err := audit.Add(line); err != nil {
			broken = err.Error()
		}
		return nil
	})
	if err != nil {
		return Report{}, err
	}
	if broken != "" {
		r.Head = audit.Head()
		r.problem("%s", broken)
		return r, nil
	}
	r.Head = audit.Head()
	if err := audit.End(); err != nil {
		r.problem("%v", err)
	}
	if stored != r.Head {
		r.problem("the records end with %v, but the head is stored as %v", r.Head, stored)
	}
	k.account(&r, &audit, entries, before.Number)
	return r, nil
}

// account holds the certificates in the store against the journal, in both directions.
func (k *Keeper) account(r *Report, audit *journal.Audit, entries []ca.Entry, upTo uint64) {
	issuers := k.issuers(entries)
	present := map[string]bool{}
	for _, e := range entries {
		present[e.Intention.Serial] = true
		account, ok := audit.Account(e.Intention.Serial)
		switch {
		case !ok:
			r.problem("certificate %s of %s is in the store and not in the journal", e.Intention.Serial, e.Intention.Subject)
			continue
		case account.Intention.TBS != journal.Sum(e.Intention.TBS):
			r.problem("certificate %s of %s was intended otherwise than the store says", e.Intention.Serial, e.Intention.Subject)
		case len(e.Certificate) > 0 && account.Certified == 0, len(e.Certificate) == 0 && account.Certified != 0 && account.Certified <= upTo:
			r.problem("certificate %s of %s: journal and store disagree whether it was signed", e.Intention.Serial, e.Intention.Subject)
		case len(e.Certificate) > 0 && account.Digest != journal.Sum(e.Certificate):
			r.problem("certificate %s of %s is another one than the journal says", e.Intention.Serial, e.Intention.Subject)
		}
		if len(e.Certificate) > 0 {
			if err := signed(e, issuers); err != nil {
				r.problem("certificate %s of %s: %v", e.Intention.Serial, e.Intention.Subject, err)
			}
		}
	}
	now := k.config.Now()
	for _, account := range audit.Accounts() {
		if account.Certified != 0 {
			r.Certificates++
		} else {
			r.Open++
		}
		// A transaction has both, so nothing but a hand in the store takes one away before its time.
		if !present[account.Intention.Serial] && account.Recorded <= upTo && account.Intention.NotAfter.After(now) {
			r.problem("certificate %s of %s, which has not ended, is in the journal and not in the store", account.Intention.Serial, account.Intention.Subject)
		}
	}
}

// issuers are the public keys that may have signed, by their id: those of CA certificates in the store, and of all slots.
func (k *Keeper) issuers(entries []ca.Entry) map[pki.KeyID]*x509.Certificate {
	issuers := map[pki.KeyID]*x509.Certificate{}
	add := func(der []byte) {
		if len(der) == 0 {
			return
		}
		cert, err := trust.ParseCertificate(der)
		if err != nil || !cert.IsCA {
			return
		}
		if id, err := pki.KeyIDOf(cert.PublicKey); err == nil {
			issuers[id] = cert
		}
	}
	for _, slot := range k.State().Slots {
		add(slot.Root)
		add(slot.Issuing)
	}
	for _, e := range entries {
		if ca.IsAuthorityProfile(e.Intention.Profile) {
			add(e.Certificate)
		}
	}
	return issuers
}

// signed checks that a certificate has the octets of its intention, signed by the key that was intended.
func signed(e ca.Entry, issuers map[pki.KeyID]*x509.Certificate) error {
	cert, err := trust.ParseCertificate(e.Certificate)
	if err != nil {
		return err
	}
	if journal.Sum(cert.RawTBSCertificate) != journal.Sum(e.Intention.TBS) {
		return errors.New("other octets were signed than intended")
	}
	issuer, ok := issuers[e.Intention.Issuer]
	if !ok {
		return nil // a CA that was retired long ago, or a root that is kept off line
	}
	return issuer.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature)
}

func (r *Report) problem(format string, args ...any) {
	switch len(r.Problems) {
	case maxProblems:
	case maxProblems - 1:
		r.Problems = append(r.Problems, "there are more")
	default:
		r.Problems = append(r.Problems, fmt.Sprintf(format, args...))
	}
}
