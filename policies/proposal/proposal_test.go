package proposal_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/bailiwick-net/bailiwick/policies/proposal"
	"github.com/bailiwick-net/bailiwick/policies/spd/spdtest"
)

func TestParseIKE(t *testing.T) {
	cbc := func(p proposal.PRF, i proposal.Integrity, g proposal.Group) proposal.IKE {
		return proposal.IKE{Encryption: proposal.EncrAESCBC, KeyBits: 256, PRF: p, Integrity: i, Group: g}
	}
	for text, want := range map[string]proposal.IKE{
		"AES256-SHA384-ecp384":           cbc(proposal.PRFHMACSHA384, proposal.IntegHMACSHA384192, proposal.GroupECP384),
		"aes-256-sha384-ECP384":          cbc(proposal.PRFHMACSHA384, proposal.IntegHMACSHA384192, proposal.GroupECP384),
		"AES256-SHA256-PRFSHA512-x25519": cbc(proposal.PRFHMACSHA512, proposal.IntegHMACSHA256128, proposal.GroupX25519),
		"AES-GCM-256-SHA256-x25519":      {Encryption: proposal.EncrAESGCM16, KeyBits: 256, PRF: proposal.PRFHMACSHA256, Group: proposal.GroupX25519},
		"AESGCM128-SHA512-modp4096":      {Encryption: proposal.EncrAESGCM16, KeyBits: 128, PRF: proposal.PRFHMACSHA512, Group: proposal.GroupMODP4096},
		"AES-GCM-256-SHA384-x25519+mlkem768": {
			Encryption: proposal.EncrAESGCM16, KeyBits: 256, PRF: proposal.PRFHMACSHA384, Group: proposal.GroupX25519,
			Additional: proposal.AdditionalOf(proposal.GroupMLKEM768),
		},
		"AES-GCM-256-SHA384-X25519+ML-KEM-768+ML-KEM-1024": {
			Encryption: proposal.EncrAESGCM16, KeyBits: 256, PRF: proposal.PRFHMACSHA384, Group: proposal.GroupX25519,
			Additional: proposal.AdditionalOf(proposal.GroupMLKEM768, proposal.GroupMLKEM1024),
		},
		"AES256-SHA256-PRFSHA512-ML-KEM-768": cbc(proposal.PRFHMACSHA512, proposal.IntegHMACSHA256128, proposal.GroupMLKEM768),
		"AES-GCM-128-SHA256-mlkem1024":       {Encryption: proposal.EncrAESGCM16, KeyBits: 128, PRF: proposal.PRFHMACSHA256, Group: proposal.GroupMLKEM1024},
		"CHACHA20-POLY1305-SHA256-p-256":     {},
		"CHACHA20-POLY1305-SHA256-P256":      {Encryption: proposal.EncrChaCha20Poly1305, PRF: proposal.PRFHMACSHA256, Group: proposal.GroupECP256},
	} {
		got, err := proposal.ParseIKE(text)
		if want == (proposal.IKE{}) {
			if err == nil {
				t.Errorf("%s: accepted as %+v", text, got)
			}
			continue
		}
		if err != nil || got != want {
			t.Errorf("%s: got %+v, %v; want %+v", text, got, err, want)
		}
	}
}

func TestParseESP(t *testing.T) {
	gcm := proposal.ESP{Encryption: proposal.EncrAESGCM16, KeyBits: 256}
	for text, want := range map[string]struct {
		offer proposal.ESP
		life  proposal.Life
	}{
		"ESP[AES-GCM-256]":                {gcm, proposal.Life{}},
		"ESP[AES-GCM-256]:100000k/3600s":  {gcm, proposal.Life{Kilobytes: 100000, Time: time.Hour}},
		"esp[aesgcm256]:3600s":            {gcm, proposal.Life{Time: time.Hour}},
		"ESP[AES-GCM-256,None]:1k":        {gcm, proposal.Life{Kilobytes: 1}},
		"ESP[AES-256,SHA256]-x25519:900s": {proposal.ESP{Encryption: proposal.EncrAESCBC, KeyBits: 256, Integrity: proposal.IntegHMACSHA256128, Group: proposal.GroupX25519}, proposal.Life{Time: 15 * time.Minute}},
		"ESP[AES-GMAC-192]":               {proposal.ESP{Encryption: proposal.EncrNullAESGMAC, KeyBits: 192}, proposal.Life{}},
		"ESP[None,SHA512]":                {proposal.ESP{Encryption: proposal.EncrNULL, Integrity: proposal.IntegHMACSHA512256}, proposal.Life{}},
		"ESP[AES-GCM-256]-x25519+ML-KEM-768:900s": {proposal.ESP{
			Encryption: proposal.EncrAESGCM16, KeyBits: 256, Group: proposal.GroupX25519, Additional: proposal.AdditionalOf(proposal.GroupMLKEM768),
		}, proposal.Life{Time: 15 * time.Minute}},
		"ESP[CHACHA20-POLY1305]-curve25519:10k": {proposal.ESP{Encryption: proposal.EncrChaCha20Poly1305, Group: proposal.GroupX25519}, proposal.Life{Kilobytes: 10}},
	} {
		got, life, err := proposal.ParseESP(text)
		if err != nil || got != want.offer || life != want.life {
			t.Errorf("%s: got %+v %+v, %v; want %+v", text, got, life, err, want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	ike := func(s string) error { _, err := proposal.ParseIKE(s); return err }
	esp := func(s string) error { _, _, err := proposal.ParseESP(s); return err }
	for _, test := range []struct {
		parse  func(string) error
		text   string
		legacy bool
		want   string
	}{
		{ike, "", false, `offer "": is not of the form cipher-hash-group, as AES256-SHA384-ecp384`},
		{ike, "3DES-SHA1-2", true, `offer "3DES-SHA1-2": 3DES is never negotiated; use AES-GCM-256`},
		{ike, "AES256-MD5-ecp256", true, `offer "AES256-MD5-ecp256": MD5 is never negotiated; use SHA256`},
		{ike, "AES256-SHA1-ecp256", true, `offer "AES256-SHA1-ecp256": SHA1 is never negotiated; use SHA256`},
		{ike, "AES256-SHA256-2", true, `offer "AES256-SHA256-2": 2 is never negotiated; use x25519`},
		{ike, "AES256-SHA256-modp1024", true, `offer "AES256-SHA256-modp1024": modp1024 is never negotiated; use x25519`},
		{ike, "None-SHA256-x25519", false, `offer "None-SHA256-x25519": an IKE SA without encryption`},
		{ike, "AES-GCM-256-SHA256-PRFSHA384-x25519", false, `offer "AES-GCM-256-SHA256-PRFSHA384-x25519": names an integrity hash beside AES-GCM-256, which has its own`},
		{ike, "AES512-SHA256-x25519", false, `offer "AES512-SHA256-x25519": "AES512" is not a cipher`},
		{ike, "AES256-SHA256-ecp123", false, `offer "AES256-SHA256-ecp123": "ecp123" is not a group`},
		{ike, "AES256-SHA256-x25519+", false, `offer "AES256-SHA256-x25519+": "" is not a group`},
		{ike, "AES256-SHA256-x25519+kyber3", false, `offer "AES256-SHA256-x25519+kyber3": "kyber3" is not a group`},
		{ike, "AES256-SHA256-x25519+x25519", false, `offer "AES256-SHA256-x25519+x25519": key exchange method x25519 twice`},
		{ike, "AES256-SHA256-x25519+mlkem768+ML-KEM-768", false, `offer "AES256-SHA256-x25519+mlkem768+ML-KEM-768": key exchange method mlkem768 twice`},
		{ike, "AES256-SHA256-x25519+1+2+3+4+5+6+7+8", false, `offer "AES256-SHA256-x25519+1+2+3+4+5+6+7+8": names 8 additional groups, 7 are possible`},
		{esp, "ESP[AES-GCM-256]-+mlkem768", false, `offer "ESP[AES-GCM-256]-+mlkem768": "" is not a group`},
		{ike, "AES256 SHA256 x25519", false, `offer "AES256 SHA256 x25519": contains ' '`},
		{esp, "ESP[3DES,MD5]:100000k/2000s", true, `offer "ESP[3DES,MD5]:100000k/2000s": 3DES is never negotiated; use AES-GCM-256`},
		{esp, "ESP[DES,SHA1]", true, `offer "ESP[DES,SHA1]": DES is never negotiated; use AES-GCM-256`},
		{esp, "ESP[AES-256,SHA1]", true, `offer "ESP[AES-256,SHA1]": SHA1 is never negotiated; use SHA256`},
		{esp, "AH[SHA1]", true, `offer "AH[SHA1]": AH is never negotiated; use ESP[None,SHA256] for integrity alone`},
		{esp, "AH[SHA1]+ESP[3DES,SHA1]", true, `offer "AH[SHA1]+ESP[3DES,SHA1]": AH is never negotiated; use ESP[None,SHA256] for integrity alone`},
		{esp, "ESP[None,None]", false, `offer "ESP[None,None]": None without integrity`},
		{esp, "ESP[None]", false, `offer "ESP[None]": None without integrity`},
		{esp, "ESP[AES-256]", false, `offer "ESP[AES-256]": AES without integrity`},
		{esp, "ESP[AES-256,None]", false, `offer "ESP[AES-256,None]": AES without integrity`},
		{esp, "ESP[AES-GCM-256,SHA256]", false, `offer "ESP[AES-GCM-256,SHA256]": integrity algorithm SHA256 beside AES-GCM, which has its own`},
		{esp, "ESP[AES-GCM-256", false, `offer "ESP[AES-GCM-256": has no closing bracket`},
		{esp, "ESP:3DES-SHA1", false, `offer "ESP:3DES-SHA1": does not begin with ESP[`},
		{esp, "ESP[AES-256,SHA256,SHA256]", false, `offer "ESP[AES-256,SHA256,SHA256]": names more than a cipher and a hash`},
		{esp, "ESP[AES-GCM-256]x", false, `offer "ESP[AES-GCM-256]x": has "x" after the bracket, where -group or :lifetime may stand`},
		{esp, "ESP[AES-GCM-256]:", false, `offer "ESP[AES-GCM-256]:": lifetime ":" is not of the form :100000k/3600s, :100000k or :3600s`},
		{esp, "ESP[AES-GCM-256]:0k", false, `offer "ESP[AES-GCM-256]:0k": lifetime ":0k" is not of the form :100000k/3600s, :100000k or :3600s`},
		{esp, "ESP[AES-GCM-256]:1k/", false, `offer "ESP[AES-GCM-256]:1k/": lifetime ":1k/" is not of the form :100000k/3600s, :100000k or :3600s`},
		{esp, "ESP[AES-GCM-256]:5m", false, `offer "ESP[AES-GCM-256]:5m": lifetime ":5m" is not of the form :100000k/3600s, :100000k or :3600s`},
		{esp, "ESP[AES-GCM-256]:99999999999999999999s", false, `offer "ESP[AES-GCM-256]:99999999999999999999s": lifetime ":99999999999999999999s" is not of the form :100000k/3600s, :100000k or :3600s`},
		{esp, strings.Repeat("E", 300), false, `offer "` + strings.Repeat("E", 200) + `": is longer than 200 octets`},
	} {
		err := test.parse(test.text)
		if !errors.Is(err, proposal.ErrOffer) || errors.Is(err, proposal.ErrLegacy) != test.legacy || err.Error() != test.want {
			t.Errorf("%q: got %v\nwant %s, legacy %t", test.text, err, test.want, test.legacy)
		}
	}
}

func TestTextRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ike, esp := spdtest.IKE().Draw(t, "ike"), spdtest.ESP().Draw(t, "esp")
		life := proposal.Life{
			Kilobytes: rapid.Uint64Range(0, 1<<50).Draw(t, "kilobytes"), Time: time.Duration(rapid.Int64Range(0, 1<<32).Draw(t, "seconds")) * time.Second,
		}
		if got, err := proposal.ParseIKE(ike.String()); err != nil || got != ike {
			t.Fatalf("%s: got %+v, %v; want %+v", ike, got, err, ike)
		}
		got, gotLife, err := proposal.ParseESP(esp.String() + life.String())
		if err != nil || got != esp || gotLife != life {
			t.Fatalf("%s%s: got %+v %+v, %v", esp, life, got, gotLife, err)
		}
	})
}

func TestValidateRefusesWhatNoParserMakes(t *testing.T) {
	for _, o := range []proposal.IKE{
		{},
		{Encryption: proposal.EncrAESGCM16, KeyBits: 255, PRF: proposal.PRFHMACSHA256, Group: proposal.GroupX25519},
		{Encryption: proposal.EncrAESGCM16, KeyBits: 256, Group: proposal.GroupX25519},
		{Encryption: proposal.EncrAESGCM16, KeyBits: 256, PRF: proposal.PRFHMACSHA256},
		{Encryption: proposal.EncrAESGCM16, KeyBits: 256, PRF: proposal.PRFHMACSHA256, Group: 2},
		{Encryption: 3, PRF: proposal.PRFHMACSHA256, Integrity: proposal.IntegHMACSHA256128, Group: proposal.GroupX25519},
		{Encryption: proposal.EncrAESCBC, KeyBits: 256, PRF: proposal.PRFHMACSHA256, Integrity: 2, Group: proposal.GroupX25519},
		{Encryption: proposal.EncrChaCha20Poly1305, KeyBits: 256, PRF: proposal.PRFHMACSHA256, Group: proposal.GroupX25519},
		{Encryption: proposal.EncrChaCha20Poly1305, PRF: proposal.PRFHMACSHA256, Group: proposal.GroupX25519, Additional: proposal.Additional{1: proposal.GroupMLKEM768}},
		{Encryption: proposal.EncrChaCha20Poly1305, PRF: proposal.PRFHMACSHA256, Group: proposal.GroupX25519, Additional: proposal.AdditionalOf(5)},
	} {
		if err := o.Validate(); !errors.Is(err, proposal.ErrOffer) {
			t.Errorf("%+v: got %v, want %v", o, err, proposal.ErrOffer)
		}
		if o.Strength() != 0 {
			t.Errorf("%+v has strength %d", o, o.Strength())
		}
	}
	if err := (proposal.ESP{Encryption: proposal.EncrAESGCM16, KeyBits: 256, Group: 99}).Validate(); !errors.Is(err, proposal.ErrOffer) {
		t.Errorf("a Child SA with group 99: got %v", err)
	}
}

func TestDefaults(t *testing.T) {
	for _, o := range proposal.DefaultIKE() {
		if err := o.Validate(); err != nil || o.Strength() < 128 {
			t.Errorf("%s: %v, strength %d", o, err, o.Strength())
		}
	}
	var got []string
	for _, o := range proposal.DefaultESP() {
		if err := o.Validate(); err != nil || !o.Encryption.Conceals() {
			t.Errorf("%s: %v, hides what it protects: %v", o, err, o.Encryption.Conceals())
		}
		got = append(got, o.String())
	}
	if want := []string{"ESP[AES-GCM-256]", "ESP[AES-GCM-128]", "ESP[AES-256,SHA256]"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestRanking(t *testing.T) {
	texts := []string{
		"AES-GCM-256-SHA384-x25519+mlkem1024", "AES-GCM-256-SHA384-x25519+mlkem768", "AES-GCM-256-SHA384-mlkem768", "AES-GCM-256-SHA384-ecp384", "AES256-SHA384-ecp384", "AES-GCM-256-SHA256-x25519", "AES256-SHA256-ecp256",
		"AES-GCM-128-SHA256-modp2048",
	}
	var offers []proposal.IKE
	for _, s := range texts {
		o, err := proposal.ParseIKE(s)
		if err != nil {
			t.Fatal(err)
		}
		offers = append(offers, o)
	}
	slices.Reverse(offers)
	slices.SortFunc(offers, proposal.CompareIKE)
	for i, o := range offers {
		if o.String() != texts[i] {
			t.Errorf("place %d: got %s, want %s", i+1, o, texts[i])
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		a, b := spdtest.ESP().Draw(t, "a"), spdtest.ESP().Draw(t, "b")
		if c := proposal.CompareESP(a, b); c != -proposal.CompareESP(b, a) || (c == 0) != (a == b) {
			t.Fatalf("%s against %s: %d", a, b, c)
		}
	})
}

func FuzzParseProposal(f *testing.F) {
	for _, s := range []string{"AES256-SHA384-ecp384", "AES-GCM-256-SHA384-x25519+mlkem768", "ESP[AES-GCM-256]-x25519+ML-KEM-768", "ESP[AES-GCM-256]:100000k/3600s", "AH[SHA1]", "ESP[None,SHA256]-x25519"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if o, err := proposal.ParseIKE(s); err == nil {
			if again, err := proposal.ParseIKE(o.String()); err != nil || again != o {
				t.Fatalf("%q: %s does not read back: %+v, %v", s, o, again, err)
			}
		} else if !errors.Is(err, proposal.ErrOffer) {
			t.Fatalf("%q: %v", s, err)
		}
		if o, life, err := proposal.ParseESP(s); err == nil {
			if again, l, err := proposal.ParseESP(o.String() + life.String()); err != nil || again != o || l != life {
				t.Fatalf("%q: %s%s does not read back: %+v, %v", s, o, life, again, err)
			}
		}
	})
}
