package revocation

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"strconv"
	"strings"

	"github.com/bailiwick-net/bailiwick/pki"
)

// ErrPointers is wrapped when the places that certificates name cannot be meant.
var ErrPointers = errors.New("invalid place for certificate revocation lists")

// MaxParts is the largest number of parts that the list of one issuer is split into.
const MaxParts = 256

// issuerDigits is how much of the name of the issuing key is in a path.
const issuerDigits = 16

// Pointers are the places that certificates name for the list and for OCSP. The zero value names none.
type Pointers struct {
	base  string
	parts int
}

// NewPointers checks a base URL, as http://pki.bank.example:7480, and the number of parts: 1, or a power of two up to
// MaxParts. An empty base makes the zero value. Errors wrap ErrPointers.
func NewPointers(base string, parts int) (Pointers, error) {
	if parts < 1 || parts > MaxParts || parts&(parts-1) != 0 {
		return Pointers{}, fmt.Errorf("%d parts, wanted 1 or a power of two up to %d: %w", parts, MaxParts, ErrPointers)
	}
	if base == "" {
		return Pointers{}, nil
	}
	u, err := url.Parse(base)
	if err != nil {
		return Pointers{}, fmt.Errorf("URL %q: %w: %w", clip(base), ErrPointers, err)
	}
	// RFC 5280 8: what is fetched to check a certificate must not need a certificate to be checked.
	if u.Scheme != "http" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || len(base) > 200 {
		return Pointers{}, fmt.Errorf("URL %q, wanted http://HOST[:PORT][/PATH] of at most 200 octets; lists and responses are signed, so they travel in clear: %w", clip(base), ErrPointers)
	}
	return Pointers{strings.TrimSuffix(base, "/"), parts}, nil
}

// IsZero reports whether there are none.
func (p Pointers) IsZero() bool { return p.base == "" }

// Parts is the number of parts that the list is split into.
func (p Pointers) Parts() int { return max(p.parts, 1) }

// OCSP is where the responder answers.
func (p Pointers) OCSP() string {
	if p.IsZero() {
		return ""
	}
	return p.base + "/ocsp"
}

// CRL is where the list for a certificate is.
func (p Pointers) CRL(issuer pki.KeyID, serial *big.Int) string {
	return p.Place(ScopeOf(issuer, serial, p.Parts()))
}

// Place is where the list of a scope is.
func (p Pointers) Place(s Scope) string {
	if p.IsZero() {
		return ""
	}
	return p.base + s.Path()
}

// Scope names a list: the issuer, and which part of how many.
type Scope struct {
	Issuer   string // the first 16 digits of the name of the issuing key
	Part, Of int    // part 0 of 1 is the whole
}

// IssuerName is how scopes name an issuing key.
func IssuerName(issuer pki.KeyID) string { return hex.EncodeToString(issuer[:issuerDigits/2]) }

// Whole is the scope of the whole list of an issuer.
func Whole(issuer pki.KeyID) Scope { return Scope{Issuer: IssuerName(issuer), Of: 1} }

// ScopeOf is the scope that a certificate falls into. It depends on nothing but its arguments, so that certificates which
// were issued while there was another number of parts find theirs.
func ScopeOf(issuer pki.KeyID, serial *big.Int, parts int) Scope {
	sum := sha256.Sum256(serial.Bytes())
	return Scope{IssuerName(issuer), int(binary.BigEndian.Uint16(sum[:2])) % parts, parts}
}

// Whole reports whether the list holds all revocations of the issuer.
func (s Scope) Whole() bool { return s.Of == 1 }

// Contains reports whether a serial number of the issuer falls into the scope.
func (s Scope) Contains(issuer pki.KeyID, serial *big.Int) bool {
	return ScopeOf(issuer, serial, s.Of) == s
}

// Path is where the list is below the base.
func (s Scope) Path() string {
	if s.Whole() {
		return "/crl/" + s.Issuer + ".crl"
	}
	return "/crl/" + s.Issuer + "-" + strconv.Itoa(s.Part) + "-of-" + strconv.Itoa(s.Of) + ".crl"
}

// ParsePath reads what Path writes, and nothing else.
func ParsePath(path string) (Scope, bool) {
	name, ok := strings.CutPrefix(path, "/crl/")
	if !ok {
		return Scope{}, false
	}
	if name, ok = strings.CutSuffix(name, ".crl"); !ok || len(name) < issuerDigits {
		return Scope{}, false
	}
	s := Scope{Issuer: name[:issuerDigits], Of: 1}
	if rest := name[issuerDigits:]; rest != "" {
		part, of, found := strings.Cut(strings.TrimPrefix(rest, "-"), "-of-")
		var err, err2 error
		s.Part, err = strconv.Atoi(part)
		s.Of, err2 = strconv.Atoi(of)
		if !found || err != nil || err2 != nil || s.Of < 2 || s.Of > MaxParts || s.Of&(s.Of-1) != 0 || s.Part < 0 || s.Part >= s.Of {
			return Scope{}, false
		}
	}
	// One list has one path, so that nobody fills a cache with spellings.
	return s, s.Path() == path
}
