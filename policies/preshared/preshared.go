// Package preshared owns what a preshared key is outside IKE: its name, its kind, its bounds as text, and which keys a
// policy uses.
//
// Its invariant: a Key never prints, and is compared in constant time only. It leaves to others where keys are kept and
// who gets them (the controller), and what is done with them (node/ike).
package preshared

import (
	"cmp"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// ErrInvalid is wrapped by every error of this package. No error holds a key or a part of it.
var ErrInvalid = errors.New("invalid preshared key")

// Kind is what a key is for.
type Kind uint8

// The kinds.
const (
	PSK Kind = iota + 1 // authenticates the peers (RFC 7296 2.15)
	PPK                 // is mixed into the keys against quantum computers (RFC 8784)
)

// String returns "psk" or "ppk".
func (k Kind) String() string {
	switch k {
	case PSK:
		return "psk"
	case PPK:
		return "ppk"
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// ParseKind reads "psk" or "ppk".
func ParseKind(text string) (Kind, error) {
	for _, k := range []Kind{PSK, PPK} {
		if text == k.String() {
			return k, nil
		}
	}
	return 0, fmt.Errorf("kind %q, wanted psk (authenticates the peers) or ppk (postquantum, mixed into the keys): %w", text, ErrInvalid)
}

// The bounds of a key, in octets.
const (
	// MinLength is the least of a PSK: shorter ones are guessed by whoever records one negotiation.
	MinLength = 16
	// MinPPK is the least of a PPK: a quantum computer halves the strength, and 128 bits shall remain (RFC 8784 6).
	MinPPK = 32
	// MaxLength is the most of either.
	MaxLength = 1024
)

// Least is the least number of octets of a key of the kind.
func (k Kind) Least() int {
	if k == PPK {
		return MinPPK
	}
	return MinLength
}

const redacted = "[redacted]"

// Key is a preshared key. It never prints, and is wiped by its owner. The octets are behind a pointer, because package fmt
// asks no method of what stands in an unexported field of another type.
type Key struct{ octets *[]byte }

// ParseKey reads a key of a kind from the text of a file or of standard input, and copies it. White space at the end,
// as editors leave it, is no part of the key.
func ParseKey(text []byte, kind Kind) (Key, error) {
	end := len(text)
	for end > 0 && strings.IndexByte(" \t\r\n", text[end-1]) >= 0 {
		end--
	}
	if end < kind.Least() || end > MaxLength {
		return Key{}, fmt.Errorf("the %s has %d octets, want %d to %d: short keys are guessed: %w", kind, end, kind.Least(), MaxLength, ErrInvalid)
	}
	octets := slices.Clone(text[:end])
	return Key{&octets}, nil
}

// Expose returns the octets themselves, for the code that needs the key and nothing else.
func (k Key) Expose() []byte {
	if k.octets == nil {
		return nil
	}
	return *k.octets
}

// Len returns the length in octets.
func (k Key) Len() int { return len(k.Expose()) }

// Equal compares in time that depends only on the lengths.
func (k Key) Equal(o Key) bool { return subtle.ConstantTimeCompare(k.Expose(), o.Expose()) == 1 }

// Wipe overwrites the octets with zeros.
func (k Key) Wipe() { clear(k.Expose()) }

// String hides the key.
func (k Key) String() string { return redacted }

// GoString hides the key.
func (k Key) GoString() string { return redacted }

// Format hides the key from every verb.
func (k Key) Format(w fmt.State, _ rune) { _, _ = io.WriteString(w, redacted) }

// MarshalJSON hides the key.
func (k Key) MarshalJSON() ([]byte, error) { return json.Marshal(redacted) }

// MarshalText hides the key.
func (k Key) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// maxName is the longest name, in octets.
const maxName = 64

// CheckName refuses what cannot name a key that the controller keeps: 1 to 64 letters, digits, dots, hyphens and
// underscores of ASCII, the first a letter or a digit, so that it can be a file name as well.
func CheckName(name string) error {
	alphanumeric := func(c rune) bool { return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' }
	ok := name != "" && len(name) <= maxName && alphanumeric(rune(name[0]))
	for _, c := range name {
		ok = ok && (alphanumeric(c) || strings.ContainsRune("._-", c))
	}
	if !ok {
		return fmt.Errorf("name %q of a secret, wanted 1 to %d letters, digits, dots, hyphens and underscores, the first a letter or a digit: %w",
			name[:min(len(name), maxName+1)], maxName, ErrInvalid)
	}
	return nil
}

// A Use is one key that a policy names, and what for.
type Use struct {
	Name string
	Kind Kind
}

// Uses lists the keys that a policy names, by name and kind, each once.
func Uses(p spd.Policy) []Use {
	var uses []Use
	for _, r := range p.Rules {
		uses = append(uses, usesOf(r.Auth)...)
	}
	return sorted(append(uses, usesOf(p.DefaultResponse.Auth)...))
}

func usesOf(list []spd.Auth) (uses []Use) {
	for _, a := range list {
		if a.Secret != "" {
			uses = append(uses, Use{a.Secret, PSK})
		}
		if a.PPK != "" {
			uses = append(uses, Use{a.PPK, PPK})
		}
	}
	return uses
}

func sorted(uses []Use) []Use {
	slices.SortFunc(uses, func(a, b Use) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Kind, b.Kind)) })
	return slices.Compact(uses)
}

// Count tells how many machines hold each key. policies has the number of machines of each policy; a key that several
// policies name is counted for all of them.
func Count(policies map[string]int, uses func(policy string) []Use) map[Use]int {
	machines := map[Use]int{}
	for name, n := range policies {
		for _, u := range uses(name) {
			machines[u] += n
		}
	}
	return machines
}
