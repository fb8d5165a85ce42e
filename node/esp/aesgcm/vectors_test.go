package aesgcm

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/bailiwick-net/bailiwick/node/vectortest"
)

// octets are written in hexadecimal.
type octets []byte

// UnmarshalText implements encoding.TextUnmarshaler.
func (o *octets) UnmarshalText(text []byte) error {
	*o = make(octets, hex.DecodedLen(len(text)))
	_, err := hex.Decode(*o, text)
	return err
}

func unhex(t *testing.T, s string) octets {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatalf("hexadecimal %q: %v", s, err)
	}
	return b
}

type vector struct {
	id                           int
	key, nonce, additional, text octets
	ciphertext, tag              octets
	invalid                      bool
}

// check seals and opens v with every implementation. Of an invalid vector the tag does not fit.
func check(t *testing.T, v vector) {
	t.Helper()
	for _, i := range implementations(t) {
		if len(v.key) == 24 && i.name == Vector.String() {
			continue // these keys are the standard library's
		}
		aead := i.make(t, v.key)
		sealed := append(bytes.Clone(v.ciphertext), v.tag...)
		if got := aead.Seal(nil, v.nonce, v.text, v.additional); bytes.Equal(got, sealed) == v.invalid {
			t.Errorf("case %d, %s: sealed %x, expected %x (invalid: %v)", v.id, i.name, got, sealed, v.invalid)
		}
		got, err := aead.Open(nil, v.nonce, sealed, v.additional)
		if (err != nil) != v.invalid || err == nil && !bytes.Equal(got, v.text) {
			t.Errorf("case %d, %s: opened %x, %v, want %x (invalid: %v)", v.id, i.name, got, err, v.text, v.invalid)
		}
	}
}

// The examples of "The Galois/Counter Mode of Operation (GCM)" by McGrew and Viega, appendix B, with nonces of 12
// octets and keys of 128 and 256 bits.
func TestExamplesOfTheSpecification(t *testing.T) {
	const (
		key   = "feffe9928665731c6d6a8f9467308308"
		nonce = "cafebabefacedbaddecaf888"
		zero  = "00000000000000000000000000000000"
		text  = `d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72
			1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b391aafd255`
		header = "feedfacedeadbeeffeedfacedeadbeefabaddad2"
		small  = `42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e
			21d514b25466931c7d8f6a5aac84aa051ba30b396a0aac973d58e091473f5985`
		large = `522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa
			8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662898015ad`
	)
	cut := func(s string) octets { return unhex(t, s)[:60] }
	for _, v := range []vector{
		{1, unhex(t, zero), unhex(t, zero)[:12], nil, nil, nil, unhex(t, "58e2fccefa7e3061367f1d57a4e7455a"), false},
		{2, unhex(t, zero), unhex(t, zero)[:12], nil, unhex(t, zero), unhex(t, "0388dace60b6a392f328c2b971b2fe78"),
			unhex(t, "ab6e47d42cec13bdf53a67b21257bddf"), false},
		{3, unhex(t, key), unhex(t, nonce), nil, unhex(t, text), unhex(t, small),
			unhex(t, "4d5c2af327cd64a62cf35abd2ba6fab4"), false},
		{4, unhex(t, key), unhex(t, nonce), unhex(t, header), cut(text), cut(small),
			unhex(t, "5bc94fbc3221a5db94fae95ae7121a47"), false},
		{13, unhex(t, zero+zero), unhex(t, zero)[:12], nil, nil, nil, unhex(t, "530f8afbc74536b9a963b4f1c4cb738b"), false},
		{14, unhex(t, zero+zero), unhex(t, zero)[:12], nil, unhex(t, zero), unhex(t, "cea7403d4d606b6e074ec5d3baf39d18"),
			unhex(t, "d0d1c8a799996bf0265b98b5d48ab919"), false},
		{15, unhex(t, key+key), unhex(t, nonce), nil, unhex(t, text), unhex(t, large),
			unhex(t, "b094dac5d93471bdec1a502270e3cc6c"), false},
		{16, unhex(t, key+key), unhex(t, nonce), unhex(t, header), cut(text), cut(large),
			unhex(t, "76fc6ece0f4e1768cddf8853bb2d551b"), false},
	} {
		check(t, v)
	}
}

func TestWycheproofAndIntel(t *testing.T) {
	for name, want := range map[string]int{"wycheproof/aes_gcm_test.json.gz": 197, "intel-ipsec-mb/gcm_test.json": 16} {
		var file struct {
			TestGroups []struct {
				IVSize, KeySize, TagSize int
				Tests                    []struct {
					TcID                       int
					Result                     any
					Key, IV, AAD, Msg, CT, Tag octets
				}
			}
		}
		vectortest.Decode(t, name, &file)
		checked := 0
		for _, g := range file.TestGroups {
			if g.IVSize != 8*nonceSize || g.TagSize != 8*tagSize {
				continue
			}
			for _, c := range g.Tests {
				check(t, vector{c.TcID, c.Key, c.IV, c.AAD, c.Msg, c.CT, c.Tag, c.Result != "valid"})
				checked++
			}
		}
		if checked != want {
			t.Errorf("%s: checked %d cases, want %d", name, checked, want)
		}
	}
}

// draft-mcgrew-gcm-test-01, section 4: packets of ESP, with and without extended sequence numbers.
func TestDraftMcGrew(t *testing.T) {
	var file struct {
		Cases []struct {
			Case                                int
			Key, Salt, IV, AAD, Ciphertext, ICV octets
			Text                                octets `json:"plaintext_with_trailer"`
		}
	}
	vectortest.Decode(t, "rfc/draft-mcgrew-gcm-test-01.json", &file)
	for _, c := range file.Cases {
		check(t, vector{c.Case, c.Key, append(c.Salt, c.IV...), c.AAD, c.Text, c.Ciphertext, c.ICV, false})
	}
	if len(file.Cases) != 14 {
		t.Errorf("got %d cases, want 14", len(file.Cases))
	}
}
