package pki

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"
)

// UUID is the identity of a directory object (entryUUID, objectGUID), in the octet order of RFC 4122.
type UUID [16]byte

// ParseUUID reads the 36-character form of RFC 4122, in either case.
func ParseUUID(s string) (UUID, error) {
	var u UUID
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return UUID{}, fmt.Errorf("UUID %q is not 8-4-4-4-12 hexadecimal digits: %w", clip(s), ErrName)
	}
	if _, err := hex.Decode(u[:], []byte(s[:8]+s[9:13]+s[14:18]+s[19:23]+s[24:])); err != nil {
		return UUID{}, fmt.Errorf("UUID %q is not 8-4-4-4-12 hexadecimal digits: %w", clip(s), ErrName)
	}
	return u, nil
}

// String returns the canonical 36-character form, in lower case.
func (u UUID) String() string {
	h := hex.EncodeToString(u[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// IsZero reports whether u is the nil UUID, which names no object.
func (u UUID) IsZero() bool { return u == UUID{} }

// MarshalText implements encoding.TextMarshaler with the form of String.
func (u UUID) MarshalText() ([]byte, error) { return []byte(u.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler with ParseUUID.
func (u *UUID) UnmarshalText(text []byte) error {
	parsed, err := ParseUUID(string(text))
	if err != nil {
		return err
	}
	*u = parsed
	return nil
}

// The limits of RFC 1035 2.3.4, without the final dot.
const (
	maxDNSName  = 253
	maxDNSLabel = 63
)

// ParseDNSName checks a host name and returns it in lower case, the form in which names are compared. It accepts
// letters, digits, hyphens inside a label, and underscores, which real directories have. It refuses wildcards, a final
// dot, non-ASCII names (they belong in their xn-- form) and everything that could be read as an IP address.
func ParseDNSName(s string) (string, error) {
	if s == "" {
		return "", fmt.Errorf("DNS name is empty: %w", ErrName)
	}
	if len(s) > maxDNSName {
		return "", fmt.Errorf("DNS name %q has %d octets, more than the %d that DNS allows: %w", clip(s), len(s), maxDNSName, ErrName)
	}
	lower := lowerASCII(s)
	labels := strings.Split(lower, ".")
	for _, label := range labels {
		if label == "" {
			return "", fmt.Errorf("DNS name %q has an empty label or a final dot: %w", s, ErrName)
		}
		if len(label) > maxDNSLabel {
			return "", fmt.Errorf("DNS name %q has a label of %d octets, more than %d: %w", s, len(label), maxDNSLabel, ErrName)
		}
		if label[0] == '-' || label[len(label)-1] == '-' {
			return "", fmt.Errorf("DNS name %q has a label that starts or ends with a hyphen: %w", s, ErrName)
		}
		for i := range len(label) {
			if !isNameOctet(label[i]) {
				return "", fmt.Errorf("DNS name %q has the character %q: %w", s, label[i], ErrName)
			}
		}
	}
	// A name whose last label is a number is how some libraries recognise an IPv4 address.
	if last := labels[len(labels)-1]; strings.Trim(last, "0123456789") == "" {
		return "", fmt.Errorf("DNS name %q ends in a number and could be taken for an address: %w", s, ErrName)
	}
	return lower, nil
}

// lowerASCII leaves every other octet alone: Unicode folding would turn U+212A, the Kelvin sign, into a "k".
func lowerASCII(s string) string {
	b := []byte(s)
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

func isNameOctet(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '_'
}

// maxAccount bounds an administrator's name to what fits a common name (RFC 5280 A.1, ub-common-name).
const maxAccount = 64

// parseAccount checks an administrator's name: letters, digits and ". _ - @", first and last a letter or digit.
func parseAccount(s string) error {
	if s == "" || len(s) > maxAccount {
		return fmt.Errorf("administrator name %q has %d octets, not 1 to %d: %w", clip(s), len(s), maxAccount, ErrName)
	}
	alphanumeric := func(c byte) bool {
		return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
	}
	for i := range len(s) {
		if c := s[i]; !alphanumeric(c) && c != '.' && c != '_' && c != '-' && c != '@' {
			return fmt.Errorf("administrator name %q has the character %q: %w", s, c, ErrName)
		}
	}
	if !alphanumeric(s[0]) || !alphanumeric(s[len(s)-1]) {
		return fmt.Errorf("administrator name %q does not start and end with a letter or digit: %w", s, ErrName)
	}
	return nil
}

// checkAddress refuses addresses that cannot name one host.
func checkAddress(a netip.Addr) error {
	if !a.IsValid() || a.IsUnspecified() || a.IsMulticast() || a.Zone() != "" || a.Is4In6() {
		return fmt.Errorf("address %v cannot name one host in a certificate: %w", a, ErrName)
	}
	return nil
}

// clip shortens foreign text for an error message.
func clip(s string) string {
	const most = 80
	if len(s) <= most {
		return s
	}
	return s[:most] + "..."
}
