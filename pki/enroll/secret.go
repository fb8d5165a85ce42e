package enroll

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"log/slog"
)

const redacted = "[redacted]"

// SecretSize is the length of a token's secret in octets: 160 bits, so that a plain hash of it cannot be reversed.
const SecretSize = 20

// Secret is what makes a token worth something. It does not print.
type Secret struct {
	octets [SecretSize]byte
	_      [0]func() // not comparable with ==, which is not constant in time
}

// Equal compares in constant time.
func (s Secret) Equal(other Secret) bool {
	return subtle.ConstantTimeCompare(s.octets[:], other.octets[:]) == 1
}

// Hash is what the controller keeps.
func (s Secret) Hash() SecretHash {
	h := sha256.New()
	h.Write([]byte("bailiwick join token secret v1\x00"))
	h.Write(s.octets[:])
	return SecretHash(h.Sum(nil))
}

// String returns "[redacted]".
func (Secret) String() string { return redacted }

// GoString returns "[redacted]".
func (Secret) GoString() string { return redacted }

// Format writes "[redacted]" whatever the verb.
func (Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(redacted)) }

// LogValue returns "[redacted]".
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalJSON writes "[redacted]".
func (Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// MarshalText writes "[redacted]".
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// String returns the token without its secret: "join token <id>".
func (t Token) String() string { return "join token " + t.ID.String() + " " + redacted }

// GoString is String.
func (t Token) GoString() string { return t.String() }

// Format writes String whatever the verb.
func (t Token) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(t.String())) }

// LogValue is String.
func (t Token) LogValue() slog.Value { return slog.StringValue(t.String()) }

// MarshalJSON writes String.
func (t Token) MarshalJSON() ([]byte, error) { return []byte(`"` + t.String() + `"`), nil }

// MarshalText writes String: the text that redeems the token comes from Text alone.
func (t Token) MarshalText() ([]byte, error) { return []byte(t.String()), nil }
