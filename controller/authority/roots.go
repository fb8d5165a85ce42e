package authority

import (
	"crypto/x509"
	"fmt"

	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/ca"
	"github.com/bailiwick-net/bailiwick/pki/revocation"
	"github.com/bailiwick-net/bailiwick/pki/trust"
)

// A Root is a trusted root whose key is in the store. The key is opened for each signature and forgotten after it.
type Root struct {
	certificate *x509.Certificate
	id          pki.KeyID
	sealed      string
	unlock      ca.Unlock
}

// Roots are the trusted roots whose keys are in the store, each once.
func (k *Keeper) Roots() []*Root {
	v := k.current.Load()
	var out []*Root
	seen := map[pki.KeyID]bool{}
	for _, slot := range v.state.Slots {
		if slot.RootKey == "" { // kept off line, or retired
			continue
		}
		root, err := trust.ParseCertificate(slot.Root)
		if err != nil {
			continue // the trust bundle was made of it
		}
		id, err := pki.KeyIDOf(root.PublicKey)
		if err != nil || seen[id] {
			continue
		}
		seen[id] = true
		out = append(out, &Root{root, id, slot.RootKey, k.config.Unlock})
	}
	return out
}

// IssuerKeyID names the root's key, as revocations do.
func (r *Root) IssuerKeyID() pki.KeyID { return r.id }

// Issuing is the root's certificate.
func (r *Root) Issuing() *x509.Certificate { return r.certificate }

// SignCRL signs a list of CAs below the root, in DER. Errors wrap ErrKey where its key cannot be opened.
func (r *Root) SignCRL(list revocation.List) ([]byte, error) {
	key, err := ca.OpenKey([]byte(r.sealed), r.unlock)
	if err != nil {
		return nil, fmt.Errorf("the root's key: %w: %w", ErrKey, err)
	}
	return ca.SignCRL(list, r.certificate, key)
}
