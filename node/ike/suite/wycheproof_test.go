package suite

import (
	"bytes"
	"crypto/cipher"
	"crypto/x509"
	"errors"
	"slices"
	"testing"

	"github.com/bailiwick-net/bailiwick/node/ike/sessiontest"
	"github.com/bailiwick-net/bailiwick/node/ike/wire"
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/node/vectortest"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
)

// wycheproof is what the files of the project of that name have in common.
type wycheproof struct {
	TestGroups []struct {
		IVSize, KeySize, TagSize, SLen int
		Sha, MgfSha                    string
		PublicKeyDer, PublicKeyAsn     sessiontest.Octets
		Tests                          []struct {
			TcID                    int
			Comment, Result         string
			Flags                   []string
			Public, Private, Shared sessiontest.Octets
			Key, IV, AAD, Msg       sessiontest.Octets
			CT, Tag, Sig            sessiontest.Octets
		}
	}
}

func loadWycheproof(t *testing.T, name string) wycheproof {
	t.Helper()
	var w wycheproof
	vectortest.Decode(t, "wycheproof/"+name+"_test.json.gz", &w)
	return w
}

func TestWycheproofKeyExchange(t *testing.T) {
	for _, c := range []struct {
		file  string
		group proposal.Group
		size  int // of the private scalar
	}{
		{"x25519", proposal.GroupX25519, 32},
		{"ecdh_secp256r1_ecpoint", proposal.GroupECP256, 32},
		{"ecdh_secp384r1_ecpoint", proposal.GroupECP384, 48},
		{"ecdh_secp521r1_ecpoint", proposal.GroupECP521, 66},
	} {
		agreed, refused := 0, 0
		for _, g := range loadWycheproof(t, c.file).TestGroups {
			for _, v := range g.Tests {
				private := v.Private
				if extra := len(private) - c.size; extra > 0 {
					private = private[extra:] // a leading zero octet of the integer
				}
				private = append(make([]byte, c.size-len(private)), private...)
				p, _, err := KeyExchangeFrom(c.group, sa.NewSecret(private))
				if err != nil {
					t.Fatalf("%s %d (%s): %v", c.file, v.TcID, v.Comment, err)
				}
				public := v.Public
				if c.group != proposal.GroupX25519 {
					if len(public) == 0 || public[0] != 4 {
						if v.Result == "valid" {
							t.Fatalf("%s %d: valid, but not uncompressed", c.file, v.TcID)
						}
						continue // IKEv2 knows no compressed points
					}
					public = public[1:]
				}
				shared, err := Agree(p, public)
				if err != nil {
					if !errors.Is(err, ErrPublicValue) {
						t.Errorf("%s %d (%s): %v", c.file, v.TcID, v.Comment, err)
					}
					// "acceptable" covers points of small order, whose secret is zero, and points on the twist.
					if v.Result == "valid" || v.Result == "acceptable" && !slices.Contains(v.Flags, "ZeroSharedSecret") {
						t.Errorf("%s %d (%s) is refused", c.file, v.TcID, v.Comment)
					}
					refused++
					continue
				}
				if v.Result == "invalid" || slices.Contains(v.Flags, "ZeroSharedSecret") {
					t.Errorf("%s %d (%s) is accepted", c.file, v.TcID, v.Comment)
				}
				if !bytes.Equal(shared.Expose(), v.Shared) {
					t.Errorf("%s %d (%s): secret %x, want %x", c.file, v.TcID, v.Comment, shared.Expose(), v.Shared)
				}
				agreed++
			}
		}
		if agreed < 200 || refused < 10 {
			t.Errorf("%s: %d secrets and %d refusals", c.file, agreed, refused)
		}
	}
}

func TestWycheproofAEAD(t *testing.T) {
	for file, encryption := range map[string]proposal.Encryption{
		"aes_gcm": proposal.EncrAESGCM16, "chacha20_poly1305": proposal.EncrChaCha20Poly1305,
	} {
		checked := 0
		for _, g := range loadWycheproof(t, file).TestGroups {
			if g.IVSize != 96 || g.TagSize != 128 {
				continue // IKEv2 has four octets of salt and eight of IV, always
			}
			for _, v := range g.Tests {
				aead, err := newAEAD(encryption, v.Key)
				if err != nil {
					t.Fatal(err)
				}
				checkAEAD(t, file, aead, v.IV, v.AAD, v.Msg, slices.Concat(v.CT, v.Tag), v.Result == "valid", v.TcID)
				checked++
			}
		}
		if checked < 150 {
			t.Errorf("%s: checked %d vectors", file, checked)
		}
	}
}

func checkAEAD(t *testing.T, file string, aead cipher.AEAD, iv, aad, msg, sealed []byte, valid bool, id int) {
	t.Helper()
	got, err := aead.Open(nil, iv, sealed, aad)
	if (err == nil) != valid || valid && !bytes.Equal(got, msg) {
		t.Errorf("%s %d opens to %x with error %v", file, id, got, err)
	}
	if valid && !bytes.Equal(aead.Seal(nil, iv, msg, aad), sealed) {
		t.Errorf("%s %d seals to something else", file, id)
	}
}

// TestWycheproofSignatures passes the signatures through Verify, each behind the identifier of its algorithm.
func TestWycheproofSignatures(t *testing.T) {
	hashes := map[string]wire.HashAlgorithm{"SHA-256": wire.HashSHA256, "SHA-384": wire.HashSHA384, "SHA-512": wire.HashSHA512, "": wire.HashIdentity}
	for file, s := range map[string]scheme{
		"ecdsa_secp256r1_sha256": schemeECDSA, "ecdsa_secp384r1_sha384": schemeECDSA, "ecdsa_secp521r1_sha512": schemeECDSA,
		"ed25519": schemeEd25519, "rsa_signature_2048_sha256": schemePKCS1, "rsa_signature_3072_sha384": schemePKCS1,
		"rsa_signature_4096_sha512": schemePKCS1, "rsa_pss_2048_sha256_mgf1_32_params": schemePSS,
		"rsa_pss_4096_sha512_mgf1_64_params": schemePSS, "rsa_pss_misc_params": schemePSS,
	} {
		valid, invalid := 0, 0
		for _, g := range loadWycheproof(t, file).TestGroups {
			h, known := hashes[g.Sha]
			der := g.PublicKeyDer
			var pub any
			var err error
			if s == schemePSS { // crypto/x509 does not read keys that are bound to PSS
				pub, err = x509.ParsePKCS1PublicKey(g.PublicKeyAsn)
			} else {
				pub, err = x509.ParsePKIXPublicKey(der)
			}
			if err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			// Parameters outside of the allow-list have no identifier; the signature must not pass under another one.
			strict := known && (s != schemePSS || g.MgfSha == g.Sha && g.SLen == cryptoHash(h).Size())
			if !known {
				h = wire.HashSHA256
			}
			id := algorithm{s, h}.identifiers()[0]
			for _, v := range g.Tests {
				data := slices.Concat([]byte{byte(len(id))}, id, v.Sig)
				err := Verify(pub, wire.AuthDigitalSignature, data, v.Msg, SupportedHashes())
				switch {
				case err == nil && (v.Result == "invalid" || !strict):
					t.Errorf("%s %d (%s) verifies", file, v.TcID, v.Comment)
				case err != nil && v.Result == "valid" && strict:
					t.Errorf("%s %d (%s): %v", file, v.TcID, v.Comment, err)
				case err == nil:
					valid++
				default:
					invalid++
				}
			}
		}
		if file != "rsa_pss_misc_params" && (valid < 4 || invalid < 10) {
			t.Errorf("%s: %d valid and %d invalid", file, valid, invalid)
		}
	}
}
