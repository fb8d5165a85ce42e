package suite

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"testing"

	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// exchangeVectors are printed in RFC 5903 8.1 and 8.2 and RFC 8031 A.
var exchangeVectors = []struct {
	name             string
	group            proposal.Group
	i, r             string // private values
	publicI, publicR string
	shared           string
}{
	{"RFC 5903 group 19", proposal.GroupECP256,
		"c88f01f510d9ac3f70a292daa2316de544e9aab8afe84049c62a9c57862d1433",
		"c6ef9c5d78ae012a011164acb397ce2088685d8f06bf9be0b283ab46476bee53",
		"" +
			"dad0b65394221cf9b051e1feca5787d098dfe637fc90b9ef945d0c37725811805271a0461cdb8252d61f1c456fa3e59a" +
			"b1f45b33accf5f58389e0577b8990bb3",
		"" +
			"d12dfb5289c8d4f81208b70270398c342296970a0bccb74c736fc7554494bf6356fbf3ca366cc23e8157854c13c58d6a" +
			"ac23f046ada30f8353e74f33039872ab",
		"d6840f6b42f6edafd13116e0e12565202fef8e9ece7dce03812464d04b9442de"},
	{"RFC 5903 group 20", proposal.GroupECP384,
		"099f3c7034d4a2c699884d73a375a67f7624ef7c6b3c0f160647b67414dce655e35b538041e649ee3faef896783ab194",
		"41cb0779b4bdb85d47846725fbec3c9430fab46cc8dc5060855cc9bda0aa2942e0308312916b8ed2960e4bd55a7448fc",
		"" +
			"667842d7d180ac2cde6f74f37551f55755c7645c20ef73e31634fe72b4c55ee6de3ac808acb4bdb4c88732aee95f41aa" +
			"9482ed1fc0eeb9cafc4984625ccfc23f65032149e0e144ada024181535a0f38eeb9fcff3c2c947dae69b4c634573a81c",
		"" +
			"e558dbef53eecde3d3fccfc1aea08a89a987475d12fd950d83cfa41732bc509d0d1ac43a0336def96fda41d0774a3571" +
			"dcfbec7aacf3196472169e838430367f66eebe3c6e70c416dd5f0c68759dd1fff83fa40142209dff5eaad96db9e6386c",
		"11187331c279962d93d604243fd592cb9d0a926f422e47187521287e7156c5c4d603135569b9e9d09cf5d4a270f59746"},
	{"RFC 5903 group 21", proposal.GroupECP521,
		"" +
			"0037ade9319a89f4dabdb3ef411aaccca5123c61acab57b5393dce47608172a095aa85a30fe1c2952c6771d937ba9777" +
			"f5957b2639bab072462f68c27a57382d4a52",
		"" +
			"0145ba99a847af43793fdd0e872e7cdfa16be30fdc780f97bccc3f078380201e9c677d600b343757a3bdbf2a3163e4c2" +
			"f869cca7458aa4a4effc311f5cb151685eb9",
		"" +
			"0015417e84dbf28c0ad3c278713349dc7df153c897a1891bd98bab4357c9ecbee1e3bf42e00b8e380aeae57c2d107564" +
			"941885942af5a7f4601723c4195d176ced3e017cae20b6641d2eeb695786d8c946146239d099e18e1d5a514c739d7cb4" +
			"a10ad8a788015ac405d7799dc75e7b7d5b6cf2261a6a7f1507438bf01beb6ca3926f9582",
		"" +
			"00d0b3975ac4b799f5bea16d5e13e9af971d5e9b984c9f39728b5e5739735a219b97c356436adc6e95bb0352f6be64a6" +
			"c2912d4ef2d0433ced2b6171640012d9460f015c68226383956e3bd066e797b623c27ce0eac2f551a10c2c724d985207" +
			"7b87220b6536c5c408a1d2aebb8e86d678ae49cb57091f4732296579ab44fcd17f0fc56a",
		"" +
			"01144c7d79ae6956bc8edb8e7c787c4521cb086fa64407f97894e5e6b2d79b04d1427e73ca4baa240a34786859810c06" +
			"b3c715a3a8cc3151f2bee417996d19f3ddea"},
	{"RFC 8031 X25519", proposal.GroupX25519,
		"751fb4308655b476b6789b7325f9ea8cddd16a58533ff6d9e60009464a5f9d94",
		"0a54645253290d60ddadd0e030bacd9e5501efdc220755a1e978f1b839a05688",
		"48d5ddd4061257ba166fa3f9bbdb74f1a4e81c089384fa77f790709f0dfbc766",
		"0be7c1f5aad87d7e448662673298a443478b859745179eaf564c79c0ef6eee25",
		"c74950607a12327f3204d94b6825bfb068b7f8319a9e3708ed3d43ce8130c950"},
}

func TestKeyExchangeVectors(t *testing.T) {
	for _, v := range exchangeVectors {
		t.Run(v.name, func(t *testing.T) {
			i, publicI, err := KeyExchangeFrom(v.group, sa.NewSecret(unhex(t, v.i)))
			if err != nil {
				t.Fatal(err)
			}
			r, publicR, err := KeyExchangeFrom(v.group, sa.NewSecret(unhex(t, v.r)))
			if err != nil {
				t.Fatal(err)
			}
			if got := hex.EncodeToString(publicI); got != v.publicI {
				t.Errorf("public value of the initiator is %s, want %s", got, v.publicI)
			}
			if got := hex.EncodeToString(publicR); got != v.publicR {
				t.Errorf("public value of the responder is %s, want %s", got, v.publicR)
			}
			for side, agree := range map[string]func() (sa.Secret, error){
				"initiator": func() (sa.Secret, error) { return Agree(i, publicR) },
				"responder": func() (sa.Secret, error) { return Agree(r, publicI) },
			} {
				shared, err := agree()
				if err != nil || hex.EncodeToString(shared.Expose()) != v.shared {
					t.Errorf("%s agrees on %x with error %v, want %s", side, shared.Expose(), err, v.shared)
				}
			}
		})
	}
}

var groups = map[proposal.Group]struct{ public, shared int }{
	proposal.GroupMODP2048: {256, 256},
	proposal.GroupMODP3072: {384, 384},
	proposal.GroupMODP4096: {512, 512},
	proposal.GroupECP256:   {64, 32},
	proposal.GroupECP384:   {96, 48},
	proposal.GroupECP521:   {132, 66},
	proposal.GroupX25519:   {32, 32},
}

func TestNewKeyExchange(t *testing.T) {
	for group, size := range groups {
		a, publicA, err := NewKeyExchange(group)
		if err != nil {
			t.Fatalf("group %d: %v", group, err)
		}
		b, publicB, err := NewKeyExchange(group)
		if err != nil {
			t.Fatalf("group %d: %v", group, err)
		}
		if a.Group() != group || len(publicA) != size.public || bytes.Equal(publicA, publicB) {
			t.Errorf("group %d: public values of %d octets in group %d", group, len(publicA), a.Group())
		}
		ab, err := Agree(a, publicB)
		if err != nil {
			t.Fatalf("group %d: %v", group, err)
		}
		ba, err := Agree(b, publicA)
		if err != nil || !ab.Equal(ba) || ab.Len() != size.shared {
			t.Errorf("group %d: secrets of %d octets, equal is %t, error %v", group, ab.Len(), ab.Equal(ba), err)
		}
	}
	if _, _, err := NewKeyExchange(1); !errors.Is(err, ErrUnsupported) {
		t.Errorf("group 1 gives %v", err)
	}
}

// TestMODPGroups checks the constants against their definition in RFC 3526 and the arithmetic against math/big.
func TestMODPGroups(t *testing.T) {
	for group, c := range map[proposal.Group]struct {
		bits uint
		k    int64
	}{proposal.GroupMODP2048: {2048, 124476}, proposal.GroupMODP3072: {3072, 1690314}, proposal.GroupMODP4096: {4096, 240904}} {
		m, err := modpOf(group)
		if err != nil {
			t.Fatal(err)
		}
		p := new(big.Int).SetBytes(m.prime)
		// p = 2^n - 2^(n-64) - 1 + 2^64 * (floor(2^(n-130) * pi) + k)
		want := new(big.Int).Add(piFloor(c.bits-130), big.NewInt(c.k))
		want.Lsh(want, 64).Add(want, power2(c.bits)).Sub(want, power2(c.bits-64)).Sub(want, big.NewInt(1))
		if p.Cmp(want) != 0 {
			t.Fatalf("the prime of group %d is not that of RFC 3526", group)
		}
		for n := range 8 {
			exponent := bytes.Repeat([]byte{byte(0x9b + 13*n), byte(n)}, m.exponentLen/2)
			y := bytes.Repeat([]byte{byte(7 + n), 0xc3}, m.size()/2)
			shared, err := Agree(&PrivateValue{group: group, exponent: exponent}, y)
			if err != nil {
				t.Fatal(err)
			}
			naive := new(big.Int).Exp(new(big.Int).SetBytes(y), new(big.Int).SetBytes(exponent), p)
			if !bytes.Equal(shared.Expose(), naive.FillBytes(make([]byte, m.size()))) {
				t.Errorf("group %d: %x to the power %x differs from math/big", group, y, exponent)
			}
		}
	}
}

func power2(n uint) *big.Int { return new(big.Int).Lsh(big.NewInt(1), n) }

// piFloor is floor(2^shift * pi) by Machin's formula.
func piFloor(shift uint) *big.Int {
	one := power2(shift + 64)
	arctan := func(x int64) *big.Int {
		sum, term := new(big.Int), new(big.Int).Div(one, big.NewInt(x))
		for n := int64(1); term.Sign() > 0; n += 2 {
			part := new(big.Int).Div(term, big.NewInt(n))
			if n%4 == 1 {
				sum.Add(sum, part)
			} else {
				sum.Sub(sum, part)
			}
			term.Div(term, big.NewInt(x*x))
		}
		return sum
	}
	pi := new(big.Int).Sub(new(big.Int).Mul(big.NewInt(4), arctan(5)), arctan(239))
	return pi.Mul(pi, big.NewInt(4)).Rsh(pi, 64)
}

// TestMODPShortSecretIsPadded finds an exponent whose secret starts with a zero octet, which must not be cut off.
func TestMODPShortSecretIsPadded(t *testing.T) {
	m := modp2048()
	y := make([]byte, m.size())
	y[len(y)-1] = 2
	for e := range 2000 {
		if got := m.power(y, []byte{byte(e >> 8), byte(e), 0xff}); got[0] == 0 {
			shared, err := Agree(&PrivateValue{group: proposal.GroupMODP2048, exponent: []byte{byte(e >> 8), byte(e), 0xff}}, y)
			if err != nil || shared.Len() != m.size() {
				t.Errorf("a secret with a leading zero has %d octets, error %v", shared.Len(), err)
			}
			return
		}
	}
	t.Fatal("no exponent gave a leading zero")
}

func TestAgreeRefusesPublicValues(t *testing.T) {
	type bad struct {
		name  string
		value []byte
	}
	cases := map[proposal.Group][]bad{}
	for group, size := range groups {
		_, public, err := NewKeyExchange(group)
		if err != nil {
			t.Fatal(err)
		}
		cases[group] = []bad{
			{"empty", nil},
			{"one octet", []byte{2}},
			{"an octet less", public[1:]},
			{"an octet more", append([]byte{0}, public...)},
			{"an octet appended", append(bytes.Clone(public), 0)},
			{"zero", make([]byte, size.public)},
		}
	}
	for _, group := range []proposal.Group{proposal.GroupMODP2048, proposal.GroupMODP3072, proposal.GroupMODP4096} {
		m, _ := modpOf(group)
		p := new(big.Int).SetBytes(m.prime)
		for name, v := range map[string]*big.Int{
			"1": big.NewInt(1), "p-1": new(big.Int).Sub(p, big.NewInt(1)), "p": p, "p+1": new(big.Int).Add(p, big.NewInt(1)),
			"the largest number": new(big.Int).Sub(power2(uint(8*m.size())), big.NewInt(1)),
		} {
			cases[group] = append(cases[group], bad{name, v.FillBytes(make([]byte, m.size()))})
		}
	}
	for _, group := range []proposal.Group{proposal.GroupECP256, proposal.GroupECP384, proposal.GroupECP521} {
		_, public, _ := NewKeyExchange(group)
		off := bytes.Clone(public)
		off[len(off)-1] ^= 1
		cases[group] = append(cases[group], bad{"a point off the curve", off}, bad{"the uncompressed form", append([]byte{4}, public...)},
			bad{"x only", public[:len(public)/2]}, bad{"coordinates beyond the field", bytes.Repeat([]byte{0xff}, len(public))})
	}
	// RFC 7748 6.1: points of small order give the all-zero secret.
	cases[proposal.GroupX25519] = append(cases[proposal.GroupX25519],
		bad{"1", append([]byte{1}, make([]byte, 31)...)},
		bad{"order 8", unhex(t, "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800")},
		bad{"order 8 twisted", unhex(t, "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157")},
		bad{"p-1", unhex(t, "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f")})
	for group, list := range cases {
		private, _, err := NewKeyExchange(group)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range list {
			if _, err := Agree(private, c.value); !errors.Is(err, ErrPublicValue) {
				t.Errorf("group %d with %s gives %v, want ErrPublicValue", group, c.name, err)
			}
		}
	}
}

func TestPrivateValues(t *testing.T) {
	for _, c := range []struct {
		name  string
		group proposal.Group
		value []byte
	}{
		{"short scalar", proposal.GroupECP256, make([]byte, 31)},
		{"zero scalar", proposal.GroupECP256, make([]byte, 32)},
		{"scalar beyond the order", proposal.GroupECP384, bytes.Repeat([]byte{0xff}, 48)},
		{"short scalar", proposal.GroupX25519, make([]byte, 31)},
		{"no exponent", proposal.GroupMODP2048, nil},
		{"zero exponent", proposal.GroupMODP2048, make([]byte, 32)},
		{"exponent longer than the prime", proposal.GroupMODP2048, bytes.Repeat([]byte{1}, 257)},
	} {
		if _, _, err := KeyExchangeFrom(c.group, sa.NewSecret(c.value)); !errors.Is(err, ErrPrivateValue) {
			t.Errorf("group %d with %s gives %v, want ErrPrivateValue", c.group, c.name, err)
		}
	}
	if _, _, err := KeyExchangeFrom(99, sa.NewSecret([]byte{1})); !errors.Is(err, ErrUnsupported) {
		t.Errorf("group 99 gives %v", err)
	}
	p, public, err := NewKeyExchange(proposal.GroupMODP2048)
	if err != nil {
		t.Fatal(err)
	}
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%x"} {
		for _, v := range []any{p, *p} {
			if got := fmt.Sprintf(format, v); got != "[redacted]" {
				t.Errorf("%s prints a private value as %q", format, got)
			}
		}
	}
	p.Wipe()
	if _, err := Agree(p, public); !errors.Is(err, ErrPrivateValue) {
		t.Errorf("a wiped value gives %v, want ErrPrivateValue", err)
	}
}

func BenchmarkKeyExchange(b *testing.B) {
	for _, group := range []proposal.Group{proposal.GroupX25519, proposal.GroupECP256, proposal.GroupECP384, proposal.GroupECP521,
		proposal.GroupMODP2048, proposal.GroupMODP3072, proposal.GroupMODP4096} {
		_, public, err := NewKeyExchange(group)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(fmt.Sprintf("group%d", group), func(b *testing.B) {
			for b.Loop() {
				private, _, err := NewKeyExchange(group)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := Agree(private, public); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
