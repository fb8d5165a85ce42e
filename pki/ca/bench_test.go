package ca

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"testing"

	"github.com/bailiwick-net/bailiwick/pki/enroll"
)

// nowhere records nothing, so that the benchmark measures the CA and not a disk.
type nowhere struct{}

func (nowhere) Record(context.Context, Intention) error        { return nil }
func (nowhere) Complete(context.Context, string, []byte) error { return nil }

// BenchmarkIssue is everything from the octets of a request to a certificate: two verifications and one signature, because
// crypto/x509 checks what it signed. BenchmarkFloor is one of each, the least that a CA without this check would need.
func BenchmarkIssue(b *testing.B) {
	authority, err := Generate(start, Config{TrustDomain: "bank.example"})
	if err != nil {
		b.Fatal(err)
	}
	c, err := New(authority.Root, authority.Issuing, authority.IssuingKey, nowhere{})
	if err != nil {
		b.Fatal(err)
	}
	id := identity(b, "sql1.bank.example")
	der, err := enroll.NewRequest(newKey(b), id)
	if err != nil {
		b.Fatal(err)
	}
	p := profile(b, Machine, ProfileConfig{})
	for b.Loop() {
		r, err := enroll.ParseRequest(der)
		if err != nil {
			b.Fatal(err)
		}
		prepared, err := c.Prepare(start, p, r, id)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := c.Issue(context.Background(), prepared); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkFloor is one bare ECDSA P-256 verification and one signature.
func BenchmarkFloor(b *testing.B) {
	key := newKey(b)
	digest := sha256.Sum256([]byte("certificate"))
	for b.Loop() {
		signature, err := ecdsa.SignASN1(rand.Reader, key, digest[:])
		if err != nil {
			b.Fatal(err)
		}
		if !ecdsa.VerifyASN1(&key.PublicKey, digest[:], signature) {
			b.Fatal("signature does not verify")
		}
	}
}

// BenchmarkUnlock is the cost of one guess at a passphrase.
func BenchmarkUnlock(b *testing.B) {
	u, err := Passphrase([]byte("correct horse battery"))
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := u.key(make([]byte, saltSize), recommendedCost); err != nil {
			b.Fatal(err)
		}
	}
}
