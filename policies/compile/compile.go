// Package compile turns the effective policy documents of a machine into a content-addressed bundle, and a bundle back
// into the policy that a node enforces.
//
// Its invariant: the digest is over the very bytes that travel, so equal policies are one bundle and a bundle that was
// altered does not open. It leaves the choice of the policy to policies/resolve and its meaning to policies/spd.
package compile

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/bailiwick-net/bailiwick/policies"
	"github.com/bailiwick-net/bailiwick/policies/spd"
	"github.com/bailiwick-net/bailiwick/policies/spd/spdpb"
)

// ErrDigest is wrapped when the bytes of a bundle are not those that its digest names.
var ErrDigest = errors.New("bundle does not match its digest")

// Digest names a bundle: the SHA-256 of its policy bytes.
type Digest [sha256.Size]byte

// String prints the digest in hexadecimal.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// Short prints the first eight octets, for tables.
func (d Digest) Short() string { return hex.EncodeToString(d[:8]) }

// ParseDigest reads what String prints.
func ParseDigest(s string) (Digest, error) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(Digest{}) {
		return Digest{}, fmt.Errorf("%q is not a bundle digest of %d hexadecimal digits", s, 2*len(Digest{}))
	}
	return Digest(b), nil
}

// Bundle is one effective policy as it travels, the same for every machine that the policy applies to.
type Bundle struct {
	Digest Digest
	Policy []byte // spdpb.Marshal; not to be modified
}

// Seal makes the bundle of a policy.
func Seal(p spd.Policy) (Bundle, error) {
	b, err := spdpb.Marshal(p)
	if err != nil {
		return Bundle{}, fmt.Errorf("make bundle: %w", err)
	}
	return Bundle{Digest: sha256.Sum256(b), Policy: b}, nil
}

// Compile makes the bundle of the policy of a name; policies.NoneName makes that of None. Its error wraps
// policies.ErrReference or spd.ErrPolicy.
func Compile(d policies.Documents, name string) (Bundle, error) {
	if name == policies.NoneName {
		return None(), nil
	}
	p, err := d.Effective(name)
	if err != nil {
		return Bundle{}, fmt.Errorf("compile: %w", err)
	}
	return Seal(p)
}

// Open verifies the digest and returns the policy. Its error wraps ErrDigest or one of the errors of spdpb.Unmarshal.
func Open(policy []byte, digest Digest) (spd.Policy, error) {
	if got := Digest(sha256.Sum256(policy)); got != digest {
		return spd.Policy{}, fmt.Errorf("open bundle %s: %w: its bytes have %s", digest, ErrDigest, got)
	}
	p, err := spdpb.Unmarshal(policy)
	if err != nil {
		return spd.Policy{}, fmt.Errorf("open bundle %s: %w", digest, err)
	}
	return p, nil
}

// None returns the bundle of a machine that has no policy assigned. It permits everything, and it is explicit: a machine
// receives it as it receives any other, so that "no policy" is never the same as "no answer".
func None() Bundle {
	b, err := Seal(spd.Policy{Name: policies.NoneName})
	if err != nil {
		panic("the empty policy is valid: " + err.Error())
	}
	return b
}
