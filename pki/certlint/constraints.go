package certlint

import (
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
)

// checkConstraints holds the name constraints of a CA certificate against what is wanted, and the names of any other
// certificate against the constraints of its issuer: whoever verifies it would refuse it.
func checkConstraints(c *x509.Certificate, want Expected) string {
	if want.CA {
		var uris []string
		if len(want.Domains) > 0 {
			uris = []string{want.URIDomain}
		}
		if !slices.Equal(c.PermittedDNSDomains, want.Domains) || !slices.Equal(c.PermittedURIDomains, uris) {
			return fmt.Sprintf("permitted are the domains %q and URIs of %q, wanted %q and %q", c.PermittedDNSDomains, c.PermittedURIDomains, want.Domains, uris)
		}
		if len(want.Domains) > 0 && !hasExtension(c, oidNameConstraints, true) {
			return "extension missing or not critical"
		}
		return ""
	}
	if permitted := want.Issuer.PermittedDNSDomains; len(permitted) > 0 {
		for _, name := range c.DNSNames {
			if !slices.ContainsFunc(permitted, func(domain string) bool { return within(name, domain) }) {
				return fmt.Sprintf("name %q is outside the domains %q that the issuer may vouch for", name, permitted)
			}
		}
	}
	if permitted := want.Issuer.PermittedURIDomains; len(permitted) > 0 {
		for _, uri := range c.URIs {
			if !slices.ContainsFunc(permitted, func(domain string) bool { return uri.Hostname() == domain }) {
				return fmt.Sprintf("URI %q is outside the domains %q that the issuer may vouch for", uri, permitted)
			}
		}
	}
	return ""
}

// within reports whether a DNS name is the domain or below it (RFC 5280 4.2.1.10).
func within(name, domain string) bool {
	return name == domain || strings.HasSuffix(name, "."+domain)
}
