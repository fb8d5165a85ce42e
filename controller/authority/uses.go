package authority

import (
	"context"
	"math/big"
	"slices"
	"time"

	"github.com/bailiwick-net/bailiwick/pki/ca"
	"github.com/bailiwick-net/bailiwick/pki/slots"
	"github.com/bailiwick-net/bailiwick/pki/trust"
)

// Use is what counts of a CA's certificates.
type Use struct {
	// Certificates is how many count, and Until when the last one does not any more. One counts that has not ended and is not
	// revoked, those of CAs and controllers excepted; and one that ended and is all that its machine can renew with.
	Certificates int
	Until        time.Time
	// Subjects are some of theirs.
	Subjects []string
}

// someSubjects is how many are named.
const someSubjects = 5

// Uses tells of every slot what counts of its certificates. A certificate that may have been signed counts as one that was.
func (k *Keeper) Uses(ctx context.Context) (map[string]Use, error) {
	entries, err := k.config.Store.Issuances(ctx)
	if err != nil {
		return nil, err
	}
	now, uses, latest := k.config.Now(), map[string]Use{}, latestOf(entries)
	counts := k.notRevoked()
	for _, e := range entries {
		until := k.until(e.Intention, latest)
		if !until.After(now) || !counts(e.Intention) {
			continue
		}
		id := slots.IDOf(e.Intention.Issuer)
		use := uses[id]
		use.Certificates++
		if until.After(use.Until) {
			use.Until = until
		}
		if len(use.Subjects) < someSubjects && !slices.Contains(use.Subjects, e.Intention.Subject) {
			use.Subjects = append(use.Subjects, e.Intention.Subject)
		}
		uses[id] = use
	}
	return uses, nil
}

// until is how long a certificate keeps its CA from being retired; the zero Time for one that does not.
func (k *Keeper) until(i ca.Intention, latest map[string][]ca.Intention) time.Time {
	switch {
	// A controller makes itself another certificate when another CA is activated, and at every start; one that signs OCSP
	// responses, by each CA that strangers ask about, for as long as they do.
	case i.Profile == ca.Server.String(), i.Profile == ca.Responder.String(), ca.IsAuthorityProfile(i.Profile):
		return time.Time{}
	case i.Profile == ca.Admin.String():
		return i.NotAfter // administrators' are not renewed
	}
	for _, other := range latest[i.Subject] {
		if other.Issuer != i.Issuer && !other.NotAfter.Before(i.NotAfter) {
			return i.NotAfter // its machine has one of another CA to renew with
		}
	}
	// With a machine that comes back within the grace nobody else could vouch for: the bundle has to.
	return i.NotAfter.Add(k.config.RenewalGrace)
}

// latestOf finds the certificate of each subject by each CA that ends last. What was not signed for certain does not count: its
// machine never had it.
func latestOf(entries []ca.Entry) map[string][]ca.Intention {
	latest := map[string][]ca.Intention{}
	for _, e := range entries {
		if len(e.Certificate) == 0 {
			continue
		}
		of := latest[e.Intention.Subject]
		at := slices.IndexFunc(of, func(i ca.Intention) bool { return i.Issuer == e.Intention.Issuer })
		switch {
		case at < 0:
			latest[e.Intention.Subject] = append(of, e.Intention)
		case e.Intention.NotAfter.After(of[at].NotAfter):
			of[at] = e.Intention
		}
	}
	return latest
}

// notRevoked returns what tells whether a certificate is not revoked, at present.
func (k *Keeper) notRevoked() func(ca.Intention) bool {
	revoked := k.revoked()
	serials := map[trust.Serial]bool{}
	for _, s := range revoked.Serials() {
		serials[s] = true
	}
	return func(i ca.Intention) bool {
		number, ok := new(big.Int).SetString(i.Serial, 16)
		if !ok {
			return true
		}
		serial, err := trust.NewSerial(i.Issuer, number)
		return err != nil || !serials[serial] && !revoked.HasKey(i.Key)
	}
}
