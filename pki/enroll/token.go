package enroll

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"github.com/bailiwick-net/bailiwick/pki"
)

// EntropySize is the number of random octets that a new token takes.
const EntropySize = len(TokenID{}) + SecretSize

// TokenID names a token. It is public: it is listed and logged.
type TokenID [10]byte

// String returns 16 lower-case letters and digits.
func (id TokenID) String() string { return encoding.EncodeToString(id[:]) }

// ParseTokenID reads the form of String. Errors wrap ErrTokenFormat.
func ParseTokenID(s string) (TokenID, error) {
	var id TokenID
	if !decodeExact(id[:], s) {
		return TokenID{}, fmt.Errorf("token id of %d characters, wanted %d letters a-z and digits 2-7: %w", len(s), encoding.EncodedLen(len(id)), ErrTokenFormat)
	}
	return id, nil
}

// MarshalText implements encoding.TextMarshaler with the form of String.
func (id TokenID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler with ParseTokenID.
func (id *TokenID) UnmarshalText(text []byte) error {
	parsed, err := ParseTokenID(string(text))
	if err != nil {
		return err
	}
	*id = parsed
	return nil
}

// Token lets one machine join once, and tells it whom to join: Pin is the key id of the root that the controller must
// show (trust.PinnedVerify). The controller decides which machine a token is for; the token does not say.
type Token struct {
	ID     TokenID
	Secret Secret
	Pin    pki.KeyID
}

// NewToken makes a token from fresh octets of the system's randomness and the pin of the CA.
func NewToken(entropy [EntropySize]byte, pin pki.KeyID) Token {
	var t Token
	n := copy(t.ID[:], entropy[:])
	copy(t.Secret.octets[:], entropy[n:])
	t.Pin = pin
	return t
}

// encoding has no character that a shell, a URL or a double click treats specially.
var encoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

const (
	tokenPrefix  = "bw1"
	checksumSize = 5
	// tokenSize is the length of the text form: prefix, four parts and the dots between.
	tokenSize = len(tokenPrefix) + 4 + 16 + 32 + 52 + 8
)

// Text returns the form that an administrator passes on, secret included:
//
//	bw1.<id>.<secret>.<pin>.<checksum>
//
// The parts are in base32 (RFC 4648) in lower case without padding, 10, 20, 32 and 5 octets long. The checksum is the
// start of the SHA-256 of all before its dot, and is there to tell a mistyped or cut token from an unknown one.
func (t Token) Text() string {
	body := tokenPrefix + "." + t.ID.String() + "." + encoding.EncodeToString(t.Secret.octets[:]) + "." + encoding.EncodeToString(t.Pin[:])
	return body + "." + checksum(body)
}

func checksum(body string) string {
	sum := sha256.Sum256([]byte("bailiwick join token checksum v1\x00" + body))
	return encoding.EncodeToString(sum[:checksumSize])
}

// ParseToken reads the form of Text, and nothing else: no white space, no upper case. An error says which part is
// wrong, never what it holds. Errors wrap ErrTokenFormat.
func ParseToken(text string) (Token, error) {
	if !strings.HasPrefix(text, tokenPrefix+".") {
		return Token{}, fmt.Errorf("it does not start with %q: %w", tokenPrefix+".", ErrTokenFormat)
	}
	if len(text) != tokenSize {
		return Token{}, fmt.Errorf("it has %d characters, wanted %d; was it cut when it was copied: %w", len(text), tokenSize, ErrTokenFormat)
	}
	parts := strings.Split(text, ".")
	if len(parts) != 5 {
		return Token{}, fmt.Errorf("it has %d parts, wanted 5: %w", len(parts), ErrTokenFormat)
	}
	var t Token
	for _, p := range []struct {
		name string
		text string
		into []byte
	}{{"id", parts[1], t.ID[:]}, {"secret", parts[2], t.Secret.octets[:]}, {"pin", parts[3], t.Pin[:]}} {
		if !decodeExact(p.into, p.text) {
			return Token{}, fmt.Errorf("its %s is not %d letters a-z and digits 2-7: %w", p.name, encoding.EncodedLen(len(p.into)), ErrTokenFormat)
		}
	}
	body := text[:strings.LastIndexByte(text, '.')]
	if checksum(body) != parts[4] {
		return Token{}, fmt.Errorf("its checksum does not match, so a character was changed: %w", ErrTokenFormat)
	}
	return t, nil
}

// decodeExact reads base32 of exactly len(into) octets with zero padding bits, so that a value has one spelling.
func decodeExact(into []byte, text string) bool {
	if len(text) != encoding.EncodedLen(len(into)) {
		return false
	}
	octets, err := encoding.DecodeString(text)
	if err != nil || len(octets) != len(into) || encoding.EncodeToString(octets) != text {
		return false
	}
	copy(into, octets)
	return true
}

// SecretHash is the hash of a token's secret.
type SecretHash [sha256.Size]byte

// MarshalText implements encoding.TextMarshaler: 64 hexadecimal digits.
func (h SecretHash) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(h[:])), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (h *SecretHash) UnmarshalText(text []byte) error {
	if len(text) != hex.EncodedLen(len(h)) {
		return fmt.Errorf("hash of a token's secret has %d characters, wanted %d: %w", len(text), hex.EncodedLen(len(h)), ErrTokenFormat)
	}
	if _, err := hex.Decode(h[:], text); err != nil {
		return fmt.Errorf("hash of a token's secret: %w: %w", ErrTokenFormat, err)
	}
	return nil
}

// Stored is what the controller keeps of a token; it does not let anybody join. It encodes as JSON.
type Stored struct {
	ID         TokenID    `json:"id"`
	SecretHash SecretHash `json:"secretHash"`
	// Machine is the directory object that may join, whatever it is called when it does.
	Machine pki.UUID `json:"machine"`
	// Created and NotAfter bound the time in which it may.
	Created  time.Time `json:"created"`
	NotAfter time.Time `json:"notAfter"`
	// Used is when it did; zero before that. The record is kept until NotAfter, to tell a used token from an unknown one.
	Used time.Time `json:"used,omitzero"`
	// UsedBy is the key that was certified then. A machine that lost the answer may ask again with the same key.
	UsedBy pki.KeyID `json:"usedBy,omitzero"`
}

// NewStored makes the record of a token for one machine, good for lifetime.
func NewStored(now time.Time, t Token, machine pki.UUID, lifetime time.Duration) Stored {
	return Stored{ID: t.ID, SecretHash: t.Secret.Hash(), Machine: machine, Created: now.UTC(), NotAfter: now.UTC().Add(lifetime)}
}

// Verify reports whether the presented token may be redeemed now, and gives an error where not. The secret comes
// first: who does not have it learns nothing of the token's state. Redeeming is a second step, which must be atomic:
// write stored.MarkUsed(now, key) in a transaction that fails if the record changed since it was read.
func Verify(now time.Time, stored Stored, presented Token) error {
	hash := presented.Secret.Hash()
	sameSecret := subtle.ConstantTimeCompare(hash[:], stored.SecretHash[:])
	sameID := subtle.ConstantTimeCompare(presented.ID[:], stored.ID[:])
	if sameSecret&sameID != 1 {
		return fmt.Errorf("join token %v: %w", presented.ID, ErrTokenUnknown)
	}
	if stored.Machine.IsZero() {
		return fmt.Errorf("join token %v is bound to no machine: %w", presented.ID, ErrTokenUnknown)
	}
	if !stored.Used.IsZero() {
		return fmt.Errorf("join token %v was used at %s; create another one: %w",
			presented.ID, stored.Used.UTC().Format(time.RFC3339), ErrTokenUsed)
	}
	if !now.Before(stored.NotAfter) {
		return fmt.Errorf("join token %v was good until %s, the controller's clock says %s; create another one: %w",
			presented.ID, stored.NotAfter.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339), ErrTokenExpired)
	}
	return nil
}

// MarkUsed returns the record of a token that was redeemed at the time now for the key of a request.
func (s Stored) MarkUsed(now time.Time, key pki.KeyID) Stored {
	s.Used, s.UsedBy = now.UTC(), key
	return s
}
