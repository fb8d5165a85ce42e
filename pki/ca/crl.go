package ca

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"fmt"

	"github.com/bailiwick-net/bailiwick/pki/revocation"
)

// SignCRL signs a list of certificates that this CA issued and that are revoked, in DER.
func (c *CA) SignCRL(list revocation.List) ([]byte, error) { return SignCRL(list, c.issuing, c.signer) }

// SignCRL signs a list of certificates that an issuer, a root or an issuing CA, issued and that are revoked, in DER. What was
// signed is read back and verified before it is given away.
func SignCRL(list revocation.List, issuer *x509.Certificate, key crypto.Signer) ([]byte, error) {
	template, err := list.Template()
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateRevocationList(rand.Reader, template, issuer, key)
	if err != nil {
		return nil, fmt.Errorf("signing the certificate revocation list %d: %w", list.Number, err)
	}
	signed, err := x509.ParseRevocationList(der)
	if err == nil {
		err = signed.CheckSignatureFrom(issuer)
	}
	if err != nil {
		return nil, fmt.Errorf("reading back the certificate revocation list %d: %w", list.Number, err)
	}
	return der, nil
}
