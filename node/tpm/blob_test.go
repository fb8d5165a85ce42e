package tpm

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"pgregory.net/rapid"
)

// signingBlob is what a TPM would give out of a key, with a private part that none would take.
func signingBlob(t testing.TB, curve elliptic.Curve, change func(*tpm2.TPMTPublic)) blob {
	t.Helper()
	private, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := private.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	size := (len(encoded) - 1) / 2
	area, err := template(curve)
	if err != nil {
		t.Fatal(err)
	}
	area.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{
		X: tpm2.TPM2BECCParameter{Buffer: encoded[1 : 1+size]}, Y: tpm2.TPM2BECCParameter{Buffer: encoded[1+size:]},
	})
	if change != nil {
		change(&area)
	}
	return blob{parent: tpm2.TPMRHOwner, public: tpm2.Marshal(area), private: bytes.Repeat([]byte{7}, 90)}
}

func TestBlobRoundTrip(t *testing.T) {
	octets := rapid.SliceOfN(rapid.Byte(), 1, 300)
	rapid.Check(t, func(t *rapid.T) {
		b := blob{parent: tpm2.TPMHandle(rapid.Uint32().Draw(t, "parent")), public: octets.Draw(t, "public"), private: octets.Draw(t, "private")}
		der := b.Append(nil)
		read, err := parseBlob(der)
		if err != nil || read.parent != b.parent || !bytes.Equal(read.public, b.public) || !bytes.Equal(read.private, b.private) {
			t.Fatalf("read %v, %v; want %v", read, err, b)
		}
		for n := range der {
			if _, err := parseBlob(der[:n]); !errors.Is(err, ErrFormat) {
				t.Fatalf("%d of %d octets: %v, want ErrFormat", n, len(der), err)
			}
		}
	})
}

func TestInvalidBlobs(t *testing.T) {
	good := signingBlob(t, elliptic.P256(), nil).Append(nil)
	replaced := func(old, with []byte) []byte {
		if bytes.Count(good, old) != 1 {
			t.Fatalf("%x is %d times in the blob", old, bytes.Count(good, old))
		}
		return bytes.Replace(good, old, with, 1)
	}
	for what, der := range map[string][]byte{
		"an octet too many":     append(bytes.Clone(good), 0),
		"too long":              make([]byte, maxBlob+1),
		"a sealed key":          replaced([]byte{0x67, 0x81, 0x05, 0x0a, 0x01, 3}, []byte{0x67, 0x81, 0x05, 0x0a, 0x01, 5}),
		"with a password":       replaced([]byte{0xa0, 3, 1, 1, 0xff}, []byte{0xa0, 3, 1, 1, 0}),
		"a policy":              replaced([]byte{0xa0, 3, 1, 1, 0xff}, []byte{0xa1, 3, 1, 1, 0xff}),
		"an empty private part": blob{parent: 1, public: []byte{1}}.Append(nil),
		"a negative parent":     replaced([]byte{2, 4, 0x40, 0, 0, 1}, []byte{2, 4, 0xc0, 0, 0, 1}),
	} {
		if _, err := parseBlob(der); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v, want ErrFormat", what, err)
		}
	}
	name := make([]byte, nameSize)
	for what, b := range map[string]blob{
		"no public area":     {parent: 1, public: []byte{1, 2, 3}, private: []byte{1}},
		"a restricted key":   signingBlob(t, elliptic.P256(), func(p *tpm2.TPMTPublic) { p.ObjectAttributes.Restricted = true }),
		"a decryption key":   signingBlob(t, elliptic.P256(), func(p *tpm2.TPMTPublic) { p.ObjectAttributes.Decrypt = true }),
		"an imported key":    signingBlob(t, elliptic.P256(), func(p *tpm2.TPMTPublic) { p.ObjectAttributes.SensitiveDataOrigin = false }),
		"a key that travels": signingBlob(t, elliptic.P256(), func(p *tpm2.TPMTPublic) { p.ObjectAttributes.FixedTPM = false }),
		"another name hash":  signingBlob(t, elliptic.P256(), func(p *tpm2.TPMTPublic) { p.NameAlg = tpm2.TPMAlgSHA384 }),
		"no point": signingBlob(t, elliptic.P256(), func(p *tpm2.TPMTPublic) {
			p.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{})
		}),
		"a point too long": signingBlob(t, elliptic.P256(), func(p *tpm2.TPMTPublic) {
			p.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{X: tpm2.TPM2BECCParameter{Buffer: make([]byte, 33)}})
		}),
		"another curve": signingBlob(t, elliptic.P256(), func(p *tpm2.TPMTPublic) {
			p.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
				Symmetric: tpm2.TPMTSymDefObject{Algorithm: tpm2.TPMAlgNull}, Scheme: tpm2.TPMTECCScheme{Scheme: tpm2.TPMAlgNull},
				CurveID: tpm2.TPMECCNistP521, KDF: tpm2.TPMTKDFScheme{Scheme: tpm2.TPMAlgNull},
			})
		}),
		"an octet behind the area": func() blob {
			b := signingBlob(t, elliptic.P256(), nil)
			b.public = append(b.public, 0)
			return b
		}(),
		"an RSA key": {parent: 1, public: tpm2.Marshal(tpm2.RSASRKTemplate), private: []byte{1}},
	} {
		if _, err := New("").Key(b.Append(nil), name); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v, want ErrFormat", what, err)
		}
	}
	if _, err := New("").Key(good, name[1:]); !errors.Is(err, ErrFormat) {
		t.Errorf("a storage key with a short name: %v, want ErrFormat", err)
	}
	for _, curve := range []elliptic.Curve{elliptic.P256(), elliptic.P384()} {
		if _, err := New("").Key(signingBlob(t, curve, nil).Append(nil), name); err != nil {
			t.Errorf("a good key: %v", err)
		}
	}
}

func FuzzKey(f *testing.F) {
	for _, curve := range []elliptic.Curve{elliptic.P256(), elliptic.P384()} {
		f.Add(signingBlob(f, curve, nil).Append(nil))
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		key, err := New("").Key(der, make([]byte, nameSize))
		if err != nil {
			if !errors.Is(err, ErrFormat) {
				t.Fatalf("refused with %v, want ErrFormat", err)
			}
			return
		}
		read, err := New("").Key(key.PEM()[0].Bytes, key.storage)
		if err != nil || !read.public.Equal(key.public) {
			t.Fatalf("written and read again: %v", err)
		}
	})
}

func TestFit(t *testing.T) {
	digest := bytes.Repeat([]byte{1}, 64)
	if got := fit(digest, elliptic.P256()); len(got) != 32 {
		t.Errorf("64 octets on P-256 become %d, want 32", len(got))
	}
	if got := fit(digest[:32], elliptic.P384()); len(got) != 48 || got[15] != 0 || got[16] != 1 {
		t.Errorf("32 octets on P-384 become %x, want 48 with 16 zeros in front", got)
	}
}
