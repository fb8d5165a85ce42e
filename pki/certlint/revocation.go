package certlint

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"slices"
)

var (
	oidCRLDistributionPoints = asn1.ObjectIdentifier{2, 5, 29, 31}
	oidAuthorityInfoAccess   = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 1}
	oidNoCheck               = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 5}
)

// NoCheck is the extension id-pkix-ocsp-nocheck of RFC 6960 4.2.2.2.1: NULL, not critical.
func NoCheck() pkix.Extension { return pkix.Extension{Id: oidNoCheck, Value: []byte{5, 0}} }

// checkRevocation wants exactly the places that were asked for.
func checkRevocation(c *x509.Certificate, want Expected) string {
	places := func(text string) []string {
		if text == "" {
			return nil
		}
		return []string{text}
	}
	if !slices.Equal(c.CRLDistributionPoints, places(want.CRL)) {
		return fmt.Sprintf("revocation lists at %q, wanted %q", c.CRLDistributionPoints, places(want.CRL))
	}
	if !slices.Equal(c.OCSPServer, places(want.OCSP)) || len(c.IssuingCertificateURL) > 0 {
		return fmt.Sprintf("OCSP at %q and issuers at %q, wanted %q and none", c.OCSPServer, c.IssuingCertificateURL, places(want.OCSP))
	}
	if got := hasExtension(c, oidNoCheck, false); got != want.NoCheck {
		return fmt.Sprintf("id-pkix-ocsp-nocheck is %v, wanted %v", got, want.NoCheck)
	}
	for _, e := range c.Extensions {
		if e.Critical && (e.Id.Equal(oidCRLDistributionPoints) || e.Id.Equal(oidAuthorityInfoAccess)) {
			return fmt.Sprintf("extension %v is critical", e.Id)
		}
	}
	return ""
}
