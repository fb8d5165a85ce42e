package ca

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"

	"golang.org/x/crypto/cryptobyte"
	cryptobyteasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// errCaught ends the making of a certificate at the moment of its signature.
var errCaught = errors.New("the octets to be signed are known")

// A catcher stands where the issuer's key is used, and takes what that would sign. It signs nothing.
type catcher struct {
	public crypto.PublicKey // of the issuer
	tbs    []byte
}

var _ crypto.MessageSigner = (*catcher)(nil)

func (c *catcher) Public() crypto.PublicKey { return c.public }

func (c *catcher) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) { return nil, errCaught }

func (c *catcher) SignMessage(_ io.Reader, message []byte, _ crypto.SignerOpts) ([]byte, error) {
	c.tbs = message
	return nil, errCaught
}

// newTwin makes the certificate that the issuer's key would make of the template, with a signature of a single zero octet,
// so that it can be looked at before that key is used. A twin that got out would be worthless.
func newTwin(template, parent *x509.Certificate, public, issuer crypto.PublicKey) (*x509.Certificate, error) {
	c := &catcher{public: issuer}
	if _, err := x509.CreateCertificate(rand.Reader, template, parent, public, c); !errors.Is(err, errCaught) || c.tbs == nil {
		return nil, fmt.Errorf("encoding its twin: %w", err)
	}
	// Certificate and TBSCertificate name the same algorithm (RFC 5280 4.1.1.2), the latter after version and serial number.
	var tbs, algorithm cryptobyte.String
	input := cryptobyte.String(c.tbs)
	if !input.ReadASN1(&tbs, cryptobyteasn1.SEQUENCE) ||
		!tbs.SkipOptionalASN1(cryptobyteasn1.Tag(0).ContextSpecific().Constructed()) ||
		!tbs.SkipASN1(cryptobyteasn1.INTEGER) || !tbs.ReadASN1Element(&algorithm, cryptobyteasn1.SEQUENCE) {
		return nil, errors.New("encoding its twin: the octets to be signed name no algorithm")
	}
	der, err := asn1.Marshal(struct {
		TBS, Algorithm asn1.RawValue
		Signature      asn1.BitString
	}{asn1.RawValue{FullBytes: c.tbs}, asn1.RawValue{FullBytes: algorithm}, asn1.BitString{Bytes: []byte{0}, BitLength: 8}})
	if err != nil {
		return nil, fmt.Errorf("encoding its twin: %w", err)
	}
	twin, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("reading back its twin: %w", err)
	}
	return twin, nil
}
