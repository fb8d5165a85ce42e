package trust_test

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"math/big"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/trust"
)

func keyID(t testing.TB, p *party) pki.KeyID {
	t.Helper()
	id, err := pki.KeyIDOf(p.cert.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func serialOf(t testing.TB, issuer, subject *party) trust.Serial {
	t.Helper()
	s, err := trust.NewSerial(keyID(t, issuer), subject.cert.SerialNumber)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func revoked(t testing.TB, serials []trust.Serial, keys ...pki.KeyID) trust.Options {
	t.Helper()
	r, err := trust.NewRevocations(3, serials, keys)
	if err != nil {
		t.Fatal(err)
	}
	return trust.Options{Usages: []trust.Usage{trust.IPsecIKE}, Revoked: r}
}

func TestVerifyRevoked(t *testing.T) {
	root := issue(t, nil, "root", asCA)
	issuing := issue(t, root, "issuing", asCA)
	other := issue(t, root, "other issuing", asCA)
	sql1 := issue(t, issuing, "sql1.bank.example", nil)
	for _, c := range []struct {
		name    string
		options trust.Options
		refused bool
	}{
		{"nothing revoked", revoked(t, nil), false},
		{"serial", revoked(t, []trust.Serial{serialOf(t, issuing, sql1)}), true},
		{"the same serial of another issuer", revoked(t, []trust.Serial{serialOf(t, other, sql1)}), false},
		{"another serial of the issuer", revoked(t, []trust.Serial{serialOf(t, issuing, other)}), false},
		{"key", revoked(t, nil, keyID(t, sql1)), true},
		{"another key", revoked(t, nil, keyID(t, other)), false},
		{"serial of the issuing CA", revoked(t, []trust.Serial{serialOf(t, root, issuing)}), true},
		{"key of the issuing CA", revoked(t, nil, keyID(t, issuing)), true},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := bundleOf(t, root).Verify(noon, chainOf(sql1, issuing), c.options)
			reason, _ := trust.ReasonOf(err)
			if c.refused && reason != trust.ReasonRevoked || !c.refused && err != nil {
				t.Errorf("error %v, want revoked: %v", err, c.refused)
			}
		})
	}
}

// An ECDSA signature (r, s) is as good as (r, n-s), so a revoked holder can make another certificate of his own. It is
// the same serial number and key, and stays revoked.
func TestRevocationSurvivesMalleableSignature(t *testing.T) {
	root := issue(t, nil, "root", asCA)
	sql1 := issue(t, root, "sql1.bank.example", nil)
	twin := malleate(t, sql1.cert)
	if bytes.Equal(twin.Raw, sql1.cert.Raw) {
		t.Fatal("the signature was not changed")
	}
	if _, err := bundleOf(t, root).Verify(noon, []*x509.Certificate{twin}, revoked(t, nil)); err != nil {
		t.Fatalf("the changed signature does not verify, so the test shows nothing: %v", err)
	}
	for name, options := range map[string]trust.Options{
		"serial": revoked(t, []trust.Serial{serialOf(t, root, sql1)}),
		"key":    revoked(t, nil, keyID(t, sql1)),
	} {
		_, err := bundleOf(t, root).Verify(noon, []*x509.Certificate{twin}, options)
		if reason, _ := trust.ReasonOf(err); reason != trust.ReasonRevoked {
			t.Errorf("revoked by %s, its twin gives %v, want revoked", name, err)
		}
	}
}

// malleate replaces s by n-s in an ECDSA P-256 signature.
func malleate(t *testing.T, cert *x509.Certificate) *x509.Certificate {
	t.Helper()
	var outer struct {
		TBS       asn1.RawValue
		Algorithm asn1.RawValue
		Signature asn1.BitString
	}
	if _, err := asn1.Unmarshal(cert.Raw, &outer); err != nil {
		t.Fatal(err)
	}
	var sig struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(outer.Signature.Bytes, &sig); err != nil {
		t.Fatal(err)
	}
	// The order of P-256 (FIPS 186-4 D.1.2.3).
	n, _ := new(big.Int).SetString("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551", 16)
	sig.S.Sub(n, sig.S)
	changed, err := asn1.Marshal(sig)
	if err != nil {
		t.Fatal(err)
	}
	outer.Signature = asn1.BitString{Bytes: changed, BitLength: 8 * len(changed)}
	der, err := asn1.Marshal(outer)
	if err != nil {
		t.Fatal(err)
	}
	twin, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return twin
}

func drawKeyID(t *rapid.T, label string) pki.KeyID {
	return pki.KeyID(rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, label))
}

func TestRevocationsRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var serials []trust.Serial
		for range rapid.IntRange(0, 5).Draw(t, "serials") {
			number := new(big.Int).SetBytes(append([]byte{1}, rapid.SliceOfN(rapid.Byte(), 0, 19).Draw(t, "number")...))
			s, err := trust.NewSerial(drawKeyID(t, "issuer"), number)
			if err != nil {
				t.Fatal(err)
			}
			serials = append(serials, s)
		}
		var keys []pki.KeyID
		for range rapid.IntRange(0, 5).Draw(t, "keys") {
			keys = append(keys, drawKeyID(t, "key"))
		}
		want, err := trust.NewRevocations(rapid.Uint64().Draw(t, "revision"), serials, keys)
		if err != nil {
			t.Fatal(err)
		}
		der, err := want.Append([]byte("prefix"))
		if err != nil {
			t.Fatal(err)
		}
		got, err := trust.ParseRevocations(bytes.TrimPrefix(der, []byte("prefix")))
		if err != nil {
			t.Fatal(err)
		}
		if got.Revision() != want.Revision() || !slices.Equal(got.Serials(), want.Serials()) || !slices.Equal(got.Keys(), want.Keys()) {
			t.Fatalf("read back %v, want %v", got, want)
		}
	})
}

func sampleRevocations(t testing.TB) []byte {
	t.Helper()
	issuer := pki.KeyID{1}
	var serials []trust.Serial
	for _, n := range []int64{1, 0x80, 0x12345} {
		s, err := trust.NewSerial(issuer, big.NewInt(n))
		if err != nil {
			t.Fatal(err)
		}
		serials = append(serials, s)
	}
	r, err := trust.NewRevocations(9, serials, []pki.KeyID{{2}, {3}})
	if err != nil {
		t.Fatal(err)
	}
	der, err := r.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func TestParseRevocationsRefuses(t *testing.T) {
	good := sampleRevocations(t)
	for n := range len(good) {
		if _, err := trust.ParseRevocations(good[:n]); !errors.Is(err, trust.ErrRevocations) {
			t.Fatalf("the first %d octets of %d give %v, want ErrRevocations", n, len(good), err)
		}
	}
	for name, der := range map[string][]byte{
		"trailing octet":  append(bytes.Clone(good), 0),
		"format 2":        bytes.Replace(good, []byte{0x02, 0x01, 0x01}, []byte{0x02, 0x01, 0x02}, 1),
		"negative serial": bytes.Replace(good, []byte{0x02, 0x02, 0x00, 0x80}, []byte{0x02, 0x02, 0xff, 0x00}, 1),
		"not ascending":   bytes.Replace(good, []byte{0x04, 0x20, 0x03}, []byte{0x04, 0x20, 0x01}, 1),
		"too large":       make([]byte, trust.MaxRevocationsSize+1),
	} {
		if _, err := trust.ParseRevocations(der); !errors.Is(err, trust.ErrRevocations) {
			t.Errorf("%s gives %v, want ErrRevocations", name, err)
		}
	}
}

func FuzzRevocations(f *testing.F) {
	f.Add(sampleRevocations(f))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, der []byte) {
		r, err := trust.ParseRevocations(der)
		if err != nil {
			if !errors.Is(err, trust.ErrRevocations) {
				t.Fatalf("error %v does not wrap ErrRevocations", err)
			}
			return
		}
		again, err := r.Append(nil)
		if err != nil || !bytes.Equal(again, der) {
			t.Fatalf("%x is not the canonical encoding %x, %v", der, again, err)
		}
	})
}
