package revocation

import (
	"context"
	"crypto/x509"

	"github.com/bailiwick-net/bailiwick/controller/store"
	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/ca"
	"github.com/bailiwick-net/bailiwick/pki/revocation"
)

// byRetirement is who revokes because a CA was retired.
const byRetirement = "retirement of the CA"

// Retired is an issuing CA that is not trusted any more, below a root that still is.
type Retired struct {
	Issuing, Root *x509.Certificate
}

// ShutOut revokes CAs that were retired. That they are not in the trust bundle is not enough: whoever has a certificate of one
// presents that of the CA as well, and it leads to the root. What is revoked already stays as it is, so it is called again
// after every start.
func (k *Keeper) ShutOut(ctx context.Context, all []Retired) error {
	k.gate.Lock()
	defer k.gate.Unlock()
	var wanted []store.Revocation
	for _, r := range all {
		if !r.Issuing.NotAfter.After(k.config.Now()) {
			continue
		}
		key, err := pki.KeyIDOf(r.Issuing.PublicKey)
		if err != nil {
			return err
		}
		issuer, err := pki.KeyIDOf(r.Root.PublicKey)
		if err != nil {
			return err
		}
		wanted = append(wanted, k.record(ca.Entry{Intention: ca.Intention{
			Serial: r.Issuing.SerialNumber.Text(16), Issuer: issuer, Key: key, Profile: ca.ProfileIssuing, Subject: r.Issuing.Subject.String(),
			NotAfter: r.Issuing.NotAfter.UTC(),
		}}, revocation.CessationOfOperation, byRetirement))
	}
	_, err := k.apply(ctx, wanted, byRetirement)
	return err
}
