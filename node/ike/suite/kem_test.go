package suite

import (
	"bytes"
	"crypto/mlkem"
	"crypto/mlkem/mlkemtest"
	"errors"
	"slices"
	"testing"

	"github.com/bailiwick-net/bailiwick/node/ike/sessiontest"
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/node/vectortest"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
)

// The lengths are those of the KE payloads that RFC 9370 carries them in (FIPS 203 table 3).
func TestKEM(t *testing.T) {
	for _, c := range []struct {
		group              proposal.Group
		public, ciphertext int
	}{
		{proposal.GroupMLKEM768, 1184, 1088},
		{proposal.GroupMLKEM1024, 1568, 1568},
	} {
		private, public, err := NewKeyExchange(c.group)
		if err != nil || len(public) != c.public || private.Group() != c.group {
			t.Fatalf("%s: %d octets, %v", c.group, len(public), err)
		}
		ciphertext, shared, err := Encapsulate(c.group, public)
		if err != nil || len(ciphertext) != c.ciphertext || shared.Len() != 32 {
			t.Fatalf("%s: %d octets, secret of %d, %v", c.group, len(ciphertext), shared.Len(), err)
		}
		if got, err := Agree(private, ciphertext); err != nil || !got.Equal(shared) {
			t.Errorf("%s: the secrets differ, %v", c.group, err)
		}
		// FIPS 203 7.3: a changed ciphertext gives another secret and no error.
		changed := bytes.Clone(ciphertext)
		changed[17] ^= 4
		if got, err := Agree(private, changed); err != nil || got.Equal(shared) {
			t.Errorf("%s: a changed ciphertext gives the same secret, or %v", c.group, err)
		}
		for name, peer := range map[string][]byte{"empty": nil, "short": ciphertext[1:], "long": append(bytes.Clone(ciphertext), 0)} {
			if _, err := Agree(private, peer); !errors.Is(err, ErrPublicValue) {
				t.Errorf("%s: %s ciphertext gives %v", c.group, name, err)
			}
		}
		overflow := bytes.Clone(public)
		overflow[0], overflow[1] = 0xff, overflow[1]|0x0f // the first coefficient is 4095, the modulus 3329
		for name, peer := range map[string][]byte{
			"empty": nil, "short": public[1:], "long": append(bytes.Clone(public), 0), "not reduced": overflow,
		} {
			if _, _, err := Encapsulate(c.group, peer); !errors.Is(err, ErrPublicValue) {
				t.Errorf("%s: %s key gives %v", c.group, name, err)
			}
		}
	}
	if _, _, err := Encapsulate(proposal.GroupX25519, make([]byte, 32)); !errors.Is(err, ErrUnsupported) {
		t.Errorf("x25519 as a KEM: %v", err)
	}
	if _, _, err := KeyExchangeFrom(proposal.GroupMLKEM768, sa.NewSecret(make([]byte, 63))); !errors.Is(err, ErrPrivateValue) {
		t.Errorf("a seed of 63 octets: %v", err)
	}
}

type wycheproofKEM struct {
	TestGroups []struct {
		Type  string
		Tests []struct {
			TcID            int
			Comment, Result string
			Flags           []string
			Seed, EK, C, K  sessiontest.Octets
			M               sessiontest.Octets
		}
	}
}

func TestWycheproofKEM(t *testing.T) {
	for _, c := range []struct {
		file  string
		group proposal.Group
	}{{"mlkem_768", proposal.GroupMLKEM768}, {"mlkem_1024", proposal.GroupMLKEM1024}, {"mlkem_768_encaps", proposal.GroupMLKEM768}} {
		var w wycheproofKEM
		vectortest.Decode(t, "wycheproof/"+c.file+"_test.json.gz", &w)
		valid, invalid := 0, 0
		for _, g := range w.TestGroups {
			for _, v := range g.Tests {
				var got sa.Secret
				var public []byte
				var err error
				if g.Type == "MLKEMEncapsTest" {
					public = v.EK
					if _, _, err = Encapsulate(c.group, v.EK); err == nil {
						got = deterministic(t, v.EK, v.M, v.C)
					}
				} else {
					var p *PrivateValue
					if p, public, err = KeyExchangeFrom(c.group, sa.NewSecret(slices.Clone(v.Seed))); err == nil {
						got, err = Agree(p, v.C)
					}
				}
				if v.Result == "invalid" {
					invalid++
					if err == nil {
						t.Errorf("%s %d (%s) is accepted", c.file, v.TcID, v.Comment)
					}
					continue
				}
				valid++
				if err != nil || !bytes.Equal(got.Expose(), v.K) || !bytes.Equal(public, v.EK) {
					t.Errorf("%s %d (%s): another key or secret, or %v", c.file, v.TcID, v.Comment, err)
				}
			}
		}
		if valid < 130 || invalid < 40 {
			t.Errorf("%s: %d valid and %d invalid vectors", c.file, valid, invalid)
		}
	}
}

// deterministic encapsulates with the randomness of a vector and checks the ciphertext.
func deterministic(t *testing.T, ek, m, ciphertext []byte) sa.Secret {
	key, err := mlkem.NewEncapsulationKey768(ek)
	if err != nil {
		t.Fatal(err)
	}
	shared, got, err := mlkemtest.Encapsulate768(key, m)
	if err != nil || !bytes.Equal(got, ciphertext) {
		t.Errorf("another ciphertext, or %v", err)
	}
	return sa.NewSecret(shared)
}

// The key schedule of RFC 9370 2.2.2 and 2.2.4, against values that were computed apart from this program.
func TestAdditionalKeySchedule(t *testing.T) {
	pattern := func(from byte, n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = from + byte(i)
		}
		return b
	}
	secret := func(from byte, n int) sa.Secret { return sa.NewSecret(pattern(from, n)) }
	ni, nr := pattern(0x10, 32), pattern(0x40, 32)
	chosen := proposal.IKE{
		Encryption: proposal.EncrAESGCM16, KeyBits: 256, PRF: proposal.PRFHMACSHA384,
		Group: proposal.GroupX25519, Additional: proposal.AdditionalOf(proposal.GroupMLKEM768),
	}
	first, err := DeriveIKE(chosen, secret(0x80, 32), ni, nr, 0x0102030405060708, 0x1112131415161718)
	if err != nil {
		t.Fatal(err)
	}
	check := func(what string, got sa.Secret, want string) {
		t.Helper()
		if !bytes.Equal(got.Expose(), unhex(t, want)) {
			t.Errorf("%s is %x, want %s", what, got.Expose(), want)
		}
	}
	check("SK_d(0)", first.D, "b38cd05d444c96fd6f6ebde9c6b683966d8d021591efa1d409290e0b552e9a7d19f1291e3b0228c81dbf53a71b8c5e11")
	second, err := UpdateIKE(chosen, first.D, secret(0xa0, 32), ni, nr, 0x0102030405060708, 0x1112131415161718)
	if err != nil {
		t.Fatal(err)
	}
	check("SK_d(1)", second.D, "f4a2538322eafc57c1a309a39ddb90be94226266b1da2cf678ddc0ea47c89ff16c9372e211f9d9689e8a52a45fec5f2b")
	check("SK_er(1)", second.ER, "5eed13543ac714576e8dff5283b8bd7742907e5f6b204673bdb9db00f64bebbf644f3d83")
	check("SK_pi(1)", second.PI, "da733b652c9b8433f858e4838f1829ccb45b46575ab87b160dfaac07a014adc9d5764a7d111e821276cd3c4a10a1c0a4")
	next, err := RekeyIKE(chosen, chosen.PRF, second.D, secret(0xc0, 32), nr, ni, 3, 4, secret(0xe0, 32))
	if err != nil {
		t.Fatal(err)
	}
	check("SK_d of the rekeyed IKE SA", next.D, "90f18ad28a8045c7a7f47e6c57b02ebf12da4caf544d216b82a9cd9e52b20a996bf00129a9b831fccf21acfc0608944c")
	esp := proposal.ESP{Encryption: proposal.EncrAESGCM16, KeyBits: 256, Group: proposal.GroupX25519, Additional: chosen.Additional}
	i, r, err := DeriveChild(chosen.PRF, second.D, secret(0xc0, 32), ni, nr, esp, secret(0xe0, 32))
	if err != nil {
		t.Fatal(err)
	}
	check("the initiator's key of the Child SA", i.Encryption, "76ebd4abd1047dc332bc5af976f7a57836d92354daf8c8e3a3459132720d1d6f4b05f6ed")
	check("the responder's key of the Child SA", r.Encryption, "7bfb897059b249e2e784a9a4099a6d96e2e9b9a3aee672440844fc582a8bcdbf36c45eab")

	// A secret too few or too many is a mistake of the caller that must not make keys.
	if _, _, err := DeriveChild(chosen.PRF, second.D, secret(0xc0, 32), ni, nr, esp); !errors.Is(err, ErrUnsupported) {
		t.Errorf("a Child SA without the additional secret: %v", err)
	}
	if _, err := RekeyIKE(chosen, chosen.PRF, second.D, secret(0xc0, 32), ni, nr, 3, 4); !errors.Is(err, ErrUnsupported) {
		t.Errorf("an IKE SA without the additional secret: %v", err)
	}
	if _, err := RekeyIKE(chosen, chosen.PRF, second.D, secret(0xc0, 32), ni, nr, 3, 4, sa.Secret{}); !errors.Is(err, ErrUnsupported) {
		t.Errorf("an IKE SA with an empty additional secret: %v", err)
	}
}
