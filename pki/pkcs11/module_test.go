//go:build cgo

package pkcs11

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/asn1"
	"errors"
	"testing"

	"github.com/miekg/pkcs11"
)

// The last attempt that a token allows is left to a person.
func TestLastAttemptIsNotTaken(t *testing.T) {
	const usual = pkcs11.CKF_TOKEN_INITIALIZED | pkcs11.CKF_USER_PIN_INITIALIZED | pkcs11.CKF_LOGIN_REQUIRED
	for name, test := range map[string]struct {
		flags uint
		want  error
	}{
		"as usual":                 {usual, nil},
		"after a wrong PIN":        {usual | pkcs11.CKF_USER_PIN_COUNT_LOW, nil},
		"one attempt left":         {usual | pkcs11.CKF_USER_PIN_COUNT_LOW | pkcs11.CKF_USER_PIN_FINAL_TRY, ErrPIN},
		"locked":                   {usual | pkcs11.CKF_USER_PIN_LOCKED, ErrPIN},
		"the officer's is another": {usual | pkcs11.CKF_SO_PIN_FINAL_TRY | pkcs11.CKF_SO_PIN_LOCKED, nil},
	} {
		if err := mayLogIn(test.flags); !errors.Is(err, test.want) || (err == nil) != (test.want == nil) {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
	}
}

// FuzzPoint has a token tell any curve and point: it is a key on a curve of ours, or ErrKey.
func FuzzPoint(f *testing.F) {
	for _, c := range []struct {
		oid   asn1.ObjectIdentifier
		curve elliptic.Curve
	}{{oidP256, elliptic.P256()}, {oidP384, elliptic.P384()}} {
		key, err := ecdsa.GenerateKey(c.curve, rand.Reader)
		if err != nil {
			f.Fatal(err)
		}
		point, err := key.PublicKey.Bytes()
		if err != nil {
			f.Fatal(err)
		}
		parameters, err := asn1.Marshal(c.oid)
		if err != nil {
			f.Fatal(err)
		}
		octets, err := asn1.Marshal(point)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(parameters, octets)
		f.Add(parameters, point)
	}
	f.Fuzz(func(t *testing.T, parameters, point []byte) {
		key, err := ecdsaKey(parameters, point)
		if err != nil {
			if !errors.Is(err, ErrKey) {
				t.Fatalf("refused with %v, want ErrKey", err)
			}
			return
		}
		if _, err := key.(*ecdsa.PublicKey).Bytes(); err != nil {
			t.Fatalf("a key that is on no curve was accepted: %v", err)
		}
	})
}
