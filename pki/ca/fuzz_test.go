package ca

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/pki"
)

// FuzzCertifyRequest has a root certify any request of an issuing CA: it is one for the key in the request, which signed that, or
// ErrAuthority and nothing was signed.
func FuzzCertifyRequest(f *testing.F) {
	config, now := Config{TrustDomain: "bank.example"}, time.Now()
	root, err := Generate(now, config)
	if err != nil {
		f.Fatal(err)
	}
	request, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, newKey(f))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(request)
	f.Add(request[:len(request)-1])
	f.Fuzz(func(t *testing.T, der []byte) {
		var journal MemoryJournal
		issuing, err := CertifyRequest(t.Context(), &journal, now, config, root.Root, root.RootKey, der)
		if err != nil {
			if !errors.Is(err, ErrAuthority) || len(journal.Entries()) != 0 {
				t.Fatalf("refused with %v and %d entries in the journal", err, len(journal.Entries()))
			}
			return
		}
		parsed, err := x509.ParseCertificateRequest(der)
		if err != nil || parsed.CheckSignature() != nil {
			t.Fatalf("certified a request that its sender did not sign: %v", err)
		}
		want, err := pki.KeyIDOf(parsed.PublicKey)
		if got, gotErr := pki.KeyIDOf(issuing.PublicKey); err != nil || gotErr != nil || got != want {
			t.Fatalf("certified the key %v instead of %v: %v, %v", got, want, err, gotErr)
		}
	})
}

// Whatever the file: no panic, and only the two errors that tell a damaged file from a wrong key. The Unlock is a key
// file, so that no input makes the fuzzer derive from a passphrase.
func FuzzOpenKey(f *testing.F) {
	unlock := keyFile(f, 1)
	for _, u := range []Unlock{unlock, passphrase(f, "correct horse battery")} {
		sealed, err := sealKey(newKey(f), u, recommendedCost)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(sealed)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if _, err := openKey(text, unlock); err != nil && !errors.Is(err, ErrKeyFile) && !errors.Is(err, ErrUnlock) {
			t.Fatalf("error %v wraps neither ErrKeyFile nor ErrUnlock", err)
		}
	})
}

// Whatever the line: no panic, and an entry that is read is written the same way again.
func FuzzJournalLine(f *testing.F) {
	i := intention("abc")
	line, err := json.Marshal(journalLine{Intention: &i})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(line)
	f.Add([]byte(`{"complete":{"serial":"a","certificate":"AA=="}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var j FileJournal
		if err := j.apply(text); err != nil {
			return
		}
		entries := j.Entries()
		if len(entries) != 1 || entries[0].Intention.Serial == "" {
			t.Fatalf("a line on an empty journal gives %d entries", len(entries))
		}
		first, err := json.Marshal(entries[0].Intention)
		if err != nil {
			t.Fatal(err)
		}
		var back Intention
		if err := json.Unmarshal(first, &back); err != nil {
			t.Fatal(err)
		}
		second, err := json.Marshal(back)
		if err != nil || !bytes.Equal(first, second) {
			t.Fatalf("%s reads back as %s, %v", first, second, err)
		}
	})
}
