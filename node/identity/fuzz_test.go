package identity

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"testing"

	"github.com/bailiwick-net/bailiwick/pki/catest"
)

// machine has the credentials of a machine, and the file that holds them.
func machine(f *testing.F) (Credentials, []byte) {
	f.Helper()
	authority := catest.New(f)
	issued := authority.Machine(f, catest.Identity(f, "sql1.bank.example"))
	c := Credentials{Key: issued.PrivateKey.(crypto.Signer), Trust: authority.Bundle(), Controllers: []string{"controller.bank.example:7443"}}
	for _, der := range issued.Certificate {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			f.Fatal(err)
		}
		c.Chain = append(c.Chain, cert)
	}
	store, err := Open(filepath.Join(f.TempDir(), "state"))
	if err != nil {
		f.Fatal(err)
	}
	if err := store.Save(c); err != nil {
		f.Fatal(err)
	}
	content, err := os.ReadFile(store.path())
	if err != nil {
		f.Fatal(err)
	}
	return c, content
}

// FuzzParse: credentials are whole, and written and read again they are the same.
func FuzzParse(f *testing.F) {
	_, content := machine(f)
	f.Add(content)
	f.Add(content[:len(content)/2])
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"))
	store, err := Open(filepath.Join(f.TempDir(), "state"))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := parse(b, Keys{})
		if err != nil {
			return
		}
		if c.Key == nil || c.Identity.IsZero() || c.Trust.IsZero() {
			t.Fatal("incomplete credentials were accepted")
		}
		if err := store.Save(c); err != nil {
			t.Fatal(err)
		}
		again, err := store.Load()
		if err != nil || again.Identity != c.Identity || again.Trust.Digest() != c.Trust.Digest() || len(again.Chain) != len(c.Chain) || len(again.Controllers) != len(c.Controllers) {
			t.Fatalf("written and read again they are %+v: %v", again, err)
		}
	})
}

// FuzzPending: the key of a join that was not finished is one that can sign, or an error.
func FuzzPending(f *testing.F) {
	c, content := machine(f)
	blocks, err := encodeKey(c.Key)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(blocks[0].Bytes)
	f.Add(pem.EncodeToMemory(blocks[0]))
	f.Add(content)
	f.Fuzz(func(t *testing.T, b []byte) {
		key, err := Store{}.parsePending(b)
		if err != nil {
			return
		}
		if key == nil || key.Public() == nil {
			t.Fatal("no key was accepted")
		}
	})
}
