package ca

import (
	"bytes"
	"errors"
	"testing"
)

func TestDerivedKeysAreApart(t *testing.T) {
	unlock := Unlock{derivationHKDF, bytes.Repeat([]byte{7}, minKeyFile)}
	salt, other := bytes.Repeat([]byte{1}, saltSize), bytes.Repeat([]byte{2}, saltSize)
	derive := func(u Unlock, purpose string, salt []byte) string {
		t.Helper()
		key, err := u.Derive(purpose, salt)
		if err != nil || len(key) != DerivedKeySize {
			t.Fatalf("derived %d octets, error %v", len(key), err)
		}
		return string(key)
	}
	first := derive(unlock, "x", salt)
	if derive(unlock, "x", salt) != first {
		t.Error("the same purpose and salt give another key")
	}
	own, err := unlock.key(salt, recommendedCost)
	if err != nil {
		t.Fatal(err)
	}
	for name, key := range map[string]string{
		"another purpose": derive(unlock, "y", salt), "another salt": derive(unlock, "x", other), "the CA's own keys": string(own),
		"another key file": derive(Unlock{derivationHKDF, bytes.Repeat([]byte{8}, minKeyFile)}, "x", salt),
		"a passphrase":     derive(Unlock{derivationArgon2id, bytes.Repeat([]byte{7}, minKeyFile)}, "x", salt),
	} {
		if key == first {
			t.Errorf("the key of %s is the same", name)
		}
	}
	for name, call := range map[string]func() ([]byte, error){
		"no unlock":  func() ([]byte, error) { return Unlock{}.Derive("x", salt) },
		"no purpose": func() ([]byte, error) { return unlock.Derive("", salt) },
		"short salt": func() ([]byte, error) { return unlock.Derive("x", salt[:saltSize-1]) },
	} {
		if key, err := call(); !errors.Is(err, ErrUnlock) || key != nil {
			t.Errorf("%s: %d octets and %v, wanted %v", name, len(key), err, ErrUnlock)
		}
	}
}
