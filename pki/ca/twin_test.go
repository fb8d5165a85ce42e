package ca

import (
	"context"
	"testing"

	"github.com/bailiwick-net/bailiwick/pki/enroll"
)

// What was linted is what is signed, whatever the CA's key, and the twin itself is worth nothing.
func TestTwinIsWhatIsSigned(t *testing.T) {
	for _, algorithm := range []Algorithm{ECDSAP256, ECDSAP384, Ed25519, RSA3072} {
		t.Run(algorithm.String(), func(t *testing.T) {
			b := newBench(t, Config{Algorithm: algorithm})
			id := identity(t, "sql1.bank.example")
			prepared := b.prepare(t, start, profile(t, Machine, ProfileConfig{}), id)
			if b.signer.signatures.Load() != 0 {
				t.Fatal("the CA's key was used before the intention was recorded")
			}
			twin, err := newTwin(prepared.template, b.issuing, prepared.public, b.issuing.PublicKey)
			if err != nil {
				t.Fatal(err)
			}
			if err := twin.CheckSignatureFrom(b.issuing); err == nil {
				t.Error("the twin has a signature that verifies")
			}
			issued, err := b.Issue(context.Background(), prepared)
			if err != nil {
				t.Fatal(err)
			}
			if string(twin.RawTBSCertificate) != string(issued.Leaf.RawTBSCertificate) {
				t.Error("another certificate was signed than the twin")
			}
			if err := issued.Leaf.CheckSignatureFrom(b.issuing); err != nil {
				t.Error(err)
			}
			if _, err := enroll.ParseRequest(twin.Raw); err == nil {
				t.Error("a certificate was read as a request")
			}
		})
	}
}
