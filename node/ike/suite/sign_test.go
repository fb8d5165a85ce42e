package suite

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1" //nolint:gosec // what must be refused has to be made first
	"encoding/hex"
	"errors"
	"io"
	"math/big"
	"strings"
	"sync"
	"testing"

	"github.com/bailiwick-net/bailiwick/node/ike/wire"
)

// testKeys are made once per run: an RSA key takes a while.
var testKeys = sync.OnceValues(func() (map[string]crypto.Signer, error) {
	keys := map[string]crypto.Signer{}
	var err error
	for name, curve := range map[string]elliptic.Curve{"P-256": elliptic.P256(), "P-384": elliptic.P384(), "P-521": elliptic.P521()} {
		if keys[name], err = ecdsa.GenerateKey(curve, rand.Reader); err != nil {
			return nil, err
		}
	}
	if keys["RSA"], err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
		return nil, err
	}
	_, key, err := ed25519.GenerateKey(rand.Reader)
	keys["Ed25519"] = key
	return keys, err
})

func keysFor(t testing.TB) map[string]crypto.Signer {
	t.Helper()
	keys, err := testKeys()
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// rfc4754 holds the examples of RFC 4754 8: signatures over "abc".
var rfc4754 = []struct {
	method     wire.AuthMethod
	curve      elliptic.Curve
	x, y, r, s string
}{
	{wire.AuthECDSA256, elliptic.P256(),
		"2442a5cc0ecd015fa3ca31dc8e2bbc70bf42d60cbca20085e0822cb04235e970",
		"6fc98bd7e50211a4a27102fa3549df79ebcb4bf246b80945cddfe7d509bbfd7d",
		"cb28e0999b9c7715fd0a80d8e47a77079716cbbf917dd72e97566ea1c066957c",
		"86fa3bb4e26cad5bf90b7f81899256ce7594bb1ea0c89212748bff3b3d5b0315"},
	{wire.AuthECDSA384, elliptic.P384(),
		"96281bf8dd5e0525ca049c048d345d3082968d10fedf5c5aca0c64e6465a97ea5ce10c9dfec21797415710721f437922",
		"447688ba94708eb6e2e4d59f6ab6d7edff9301d249fe49c33096655f5d502fad3d383b91c5e7edaa2b714cc99d5743ca",
		"fb017b914e29149432d8bac29a514640b46f53ddab2c69948084e2930f1c8f7e08e07c9c63f2d21a07dcb56a6af56eb3",
		"b263a1305e057f984d38726a1b46874109f417bca112674c528262a40a629af1cbb9f516ce0fa7d2ff630863a00e8b9f"},
	{wire.AuthECDSA521, elliptic.P521(),
		"" +
			"0151518f1af0f563517edd5485190df95a4bf57b5cba4cf2a9a3f6474725a35f7afe0a6ddeb8bedbcd6a197e592d4018" +
			"8901cecd650699c9b5e456aea5add19052a8",
		"" +
			"006f3b142ea1bfff7e2837ad44c9e4ff6d2d34c73184bbad90026dd5e6e85317d9df45cad7803c6c20035b2f3ff63aff" +
			"4e1ba64d1c077577da3f4286c58f0aeae643",
		"" +
			"0154fd3836af92d0dca57dd5341d3053988534fde8318fc6aaaab68e2e6f4339b19f2f281a7e0b22c269d93cf8794a92" +
			"78880ed7dbb8d9362caeacee544320552251",
		"" +
			"017705a7030290d1ceb605a9a1bb03ff9cdd521e87a696ec926c8c10c8362df4975367101f67d1cf9bccbf2f3d239534" +
			"fa509e70aac851ae01aac68d62f866472660"},
}

func TestRFC4754Examples(t *testing.T) {
	for _, v := range rfc4754 {
		point := append([]byte{4}, unhex(t, v.x+v.y)...)
		pub, err := ecdsa.ParseUncompressedPublicKey(v.curve, point)
		if err != nil {
			t.Fatal(err)
		}
		data := unhex(t, v.r+v.s)
		if err := Verify(pub, v.method, data, []byte("abc"), nil); err != nil {
			t.Errorf("%s: %v", v.method, err)
		}
		if err := Verify(pub, v.method, data, []byte("abd"), nil); !errors.Is(err, ErrSignature) {
			t.Errorf("%s: other octets give %v", v.method, err)
		}
		for i := range data {
			changed := bytes.Clone(data)
			changed[i] ^= 1
			if err := Verify(pub, v.method, changed, []byte("abc"), nil); !errors.Is(err, ErrSignature) {
				t.Errorf("%s: octet %d changed gives %v", v.method, i, err)
			}
		}
		for _, short := range [][]byte{nil, data[1:], data[:len(data)-1], append([]byte{0}, data...), make([]byte, len(data))} {
			if err := Verify(pub, v.method, short, []byte("abc"), nil); !errors.Is(err, ErrSignature) {
				t.Errorf("%s: %d octets give %v", v.method, len(short), err)
			}
		}
	}
}

// TestRFC7427Identifiers compares with the blobs of RFC 7427 A and RFC 8420 A.
func TestRFC7427Identifiers(t *testing.T) {
	for name, c := range map[string]struct {
		der  string
		want algorithm
	}{
		"sha256WithRSAEncryption": {"300d06092a864886f70d01010b0500", algorithm{schemePKCS1, wire.HashSHA256}},
		"sha384WithRSAEncryption": {"300d06092a864886f70d01010c0500", algorithm{schemePKCS1, wire.HashSHA384}},
		"sha512WithRSAEncryption": {"300d06092a864886f70d01010d0500", algorithm{schemePKCS1, wire.HashSHA512}},
		"ecdsa-with-sha256":       {"300a06082a8648ce3d040302", algorithm{schemeECDSA, wire.HashSHA256}},
		"ecdsa-with-sha384":       {"300a06082a8648ce3d040303", algorithm{schemeECDSA, wire.HashSHA384}},
		"ecdsa-with-sha512":       {"300a06082a8648ce3d040304", algorithm{schemeECDSA, wire.HashSHA512}},
		"RSASSA-PSS with sha-256": {"" +
			"304606092a864886f70d01010a3039a00f300d06096086480165030402010500a11c301a06092a864886f70d01010830" +
			"0d06096086480165030402010500a203020120a303020101", algorithm{schemePSS, wire.HashSHA256}},
		"id-Ed25519": {"300506032b6570", algorithm{schemeEd25519, wire.HashIdentity}},
		"charon's RSASSA-PSS with SHA-512": {"304106092a864886f70d01010a3034a00f300d06096086480165030402030500a11c301a06092a864886f7" +
			"0d010108300d06096086480165030402030500a203020140", algorithm{schemePSS, wire.HashSHA512}},
	} {
		if got, ok := findAlgorithm(unhex(t, c.der)); !ok || got != c.want {
			t.Errorf("%s is %+v, %t, want %+v", name, got, ok, c.want)
		}
	}
	for name, der := range map[string]string{
		"sha1WithRSAEncryption":                "300d06092a864886f70d0101050500",
		"dsa-with-sha1":                        "300906072a8648ce380403",
		"dsa-with-sha256":                      "300b0609608648016503040302",
		"ecdsa-with-sha1":                      "300906072a8648ce3d0401",
		"nothing":                              "",
		"sha256WithRSAEncryption without NULL": "300b06092a864886f70d01010b",
		"ecdsa-with-sha256 with NULL":          "300c06082a8648ce3d0403020500",
		"Ed448":                                "300506032b6571",
		"PSS, SHA-256 with MGF1 SHA-1": "304106092a864886f70d01010a3034a00f300d06096086480165030402010500a11c301a06092a864886f70d010108" +
			"300d06096086480165030402020500a203020120",
		"PSS, SHA-256 with a salt of 20": "304106092a864886f70d01010a3034a00f300d06096086480165030402010500a11c301a06092a864886f70d010108" +
			"300d06096086480165030402010500a203020114",
		"PSS, trailer field 2": "304606092a864886f70d01010a3039a00f300d06096086480165030402010500a11c301a06092a864886f70d010108" +
			"300d06096086480165030402010500a203020120a303020102",
		"PSS, long form length": "30814106092a864886f70d01010a3034a00f300d06096086480165030402010500a11c301a06092a864886f70d010108" +
			"300d06096086480165030402010500a203020120",
		"PSS, octets behind": "304106092a864886f70d01010a3034a00f300d06096086480165030402010500a11c301a06092a864886f70d010108" +
			"300d06096086480165030402010500a20302012000",
	} {
		if got, ok := findAlgorithm(unhex(t, der)); ok {
			t.Errorf("%s is accepted as %+v", name, got)
		}
	}
}

func TestIdentifiersAreDistinct(t *testing.T) {
	seen := map[string]algorithm{}
	for _, a := range algorithms() {
		ids := a.identifiers()
		if len(ids) == 0 {
			t.Errorf("%+v has no identifier", a)
		}
		for _, id := range ids {
			if other, ok := seen[string(id)]; ok {
				t.Errorf("%x stands for %+v and %+v", id, other, a)
			}
			if len(id) > 127 || int(id[1]) != len(id)-2 {
				t.Errorf("%x has length octet %d", id, id[1])
			}
			seen[string(id)] = a
		}
	}
}

func TestSignVerify(t *testing.T) {
	octets := []byte("IKE_SA_INIT and nonce and identity")
	all := SupportedHashes()
	for _, c := range []struct {
		key    string
		peer   []wire.HashAlgorithm
		method wire.AuthMethod
		want   algorithm
	}{
		{"P-256", all, wire.AuthDigitalSignature, algorithm{schemeECDSA, wire.HashSHA256}},
		{"P-384", all, wire.AuthDigitalSignature, algorithm{schemeECDSA, wire.HashSHA384}},
		{"P-521", all, wire.AuthDigitalSignature, algorithm{schemeECDSA, wire.HashSHA512}},
		{"P-384", []wire.HashAlgorithm{wire.HashSHA1, wire.HashSHA256}, wire.AuthDigitalSignature, algorithm{schemeECDSA, wire.HashSHA256}},
		{"RSA", all, wire.AuthDigitalSignature, algorithm{schemePSS, wire.HashSHA256}},
		{"RSA", []wire.HashAlgorithm{wire.HashSHA384}, wire.AuthDigitalSignature, algorithm{schemePSS, wire.HashSHA384}},
		{"RSA", []wire.HashAlgorithm{wire.HashSHA512}, wire.AuthDigitalSignature, algorithm{schemePSS, wire.HashSHA512}},
		{"Ed25519", all, wire.AuthDigitalSignature, algorithm{schemeEd25519, wire.HashIdentity}},
		{"P-256", nil, wire.AuthECDSA256, algorithm{}},
		{"P-384", nil, wire.AuthECDSA384, algorithm{}},
		{"P-521", nil, wire.AuthECDSA521, algorithm{}},
	} {
		key := keysFor(t)[c.key]
		// ECDSA signatures differ in length from one to the next; several show that padding works.
		for range 8 {
			method, data, err := Sign(rand.Reader, key, c.peer, octets)
			if err != nil {
				t.Fatalf("%s for %v: %v", c.key, c.peer, err)
			}
			if method != c.method {
				t.Fatalf("%s for %v signs with %s, want %s", c.key, c.peer, method, c.method)
			}
			if method == wire.AuthDigitalSignature {
				if got, ok := findAlgorithm(data[1 : 1+data[0]]); !ok || got != c.want {
					t.Errorf("%s for %v signs with %+v, want %+v", c.key, c.peer, got, c.want)
				}
			}
			if err := Verify(key.Public(), method, data, octets, all); err != nil {
				t.Errorf("%s for %v: %v", c.key, c.peer, err)
			}
			if err := Verify(key.Public(), method, data, octets[1:], all); !errors.Is(err, ErrSignature) {
				t.Errorf("%s for %v: other octets give %v", c.key, c.peer, err)
			}
			for name, other := range keysFor(t) {
				if name != c.key && Verify(other.Public(), method, data, octets, all) == nil {
					t.Errorf("a signature by %s verifies with %s", c.key, name)
				}
			}
		}
	}
}

func TestSignRefuses(t *testing.T) {
	for _, c := range []struct {
		key  string
		peer []wire.HashAlgorithm
	}{
		{"RSA", nil},
		{"RSA", []wire.HashAlgorithm{wire.HashSHA1}},
		{"RSA", []wire.HashAlgorithm{wire.HashIdentity}},
		{"Ed25519", nil},
		{"Ed25519", []wire.HashAlgorithm{wire.HashSHA256, wire.HashSHA512}},
		{"P-256", []wire.HashAlgorithm{wire.HashSHA1}},
		{"P-256", []wire.HashAlgorithm{77}},
	} {
		if _, _, err := Sign(rand.Reader, keysFor(t)[c.key], c.peer, nil); !errors.Is(err, ErrNoCommonHash) {
			t.Errorf("%s for %v gives %v, want ErrNoCommonHash", c.key, c.peer, err)
		}
	}
	for name, signer := range map[string]crypto.Signer{"a broken token": brokenSigner{keysFor(t)["P-256"], nil},
		"a token with octets behind": brokenSigner{keysFor(t)["P-256"], unhex(t, "300602010102010100")},
		"a token with a huge number": brokenSigner{keysFor(t)["P-256"], append(unhex(t, "3026022101"), append(make([]byte, 32), 2, 1, 1)...)}} {
		if _, _, err := Sign(rand.Reader, signer, nil, nil); !errors.Is(err, ErrSignature) {
			t.Errorf("%s gives %v, want ErrSignature", name, err)
		}
	}
	if _, _, err := Sign(rand.Reader, brokenSigner{keysFor(t)["P-256"], []byte("fail")}, SupportedHashes(), nil); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("a failing token gives %v", err)
	}
}

// brokenSigner returns what it is told, and fails when told "fail".
type brokenSigner struct {
	crypto.Signer
	signature []byte
}

func (b brokenSigner) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	if string(b.signature) == "fail" {
		return nil, io.ErrClosedPipe
	}
	return b.signature, nil
}

// TestVerifyRefuses goes through every way in which a signature that is mathematically right is not acceptable.
func TestVerifyRefuses(t *testing.T) {
	octets := []byte("octets")
	keys := keysFor(t)
	rsaKey := keys["RSA"].(*rsa.PrivateKey)
	with := func(a algorithm, signature []byte) []byte {
		id := a.identifiers()[0]
		return append(append([]byte{byte(len(id))}, id...), signature...)
	}
	pss := func(h crypto.Hash, sum []byte, salt int) []byte {
		s, err := rsa.SignPSS(rand.Reader, rsaKey, h, sum, &rsa.PSSOptions{SaltLength: salt})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	pkcs1 := func(h crypto.Hash, sum []byte) []byte {
		s, err := rsa.SignPKCS1v15(rand.Reader, rsaKey, h, sum)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	sum1 := sha1.Sum(octets)
	sum256, sum512 := digest(wire.HashSHA256, octets), digest(wire.HashSHA512, octets)
	ecdsa256, err := keys["P-256"].Sign(rand.Reader, sum256, crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	small := &rsa.PublicKey{N: new(big.Int).SetBit(big.NewInt(1), 1023, 1), E: 65537}
	huge := &rsa.PublicKey{N: new(big.Int).SetBit(big.NewInt(1), 8192, 1), E: 65537}
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	all, only256 := SupportedHashes(), []wire.HashAlgorithm{wire.HashSHA256}
	for name, c := range map[string]struct {
		pub       crypto.PublicKey
		method    wire.AuthMethod
		data      []byte
		announced []wire.HashAlgorithm
		want      error
	}{
		"PKCS#1 with SHA-256 is allowed": {&rsaKey.PublicKey, wire.AuthDigitalSignature,
			with(algorithm{schemePKCS1, wire.HashSHA256}, pkcs1(crypto.SHA256, sum256)), all, nil},
		"method 1 with SHA-256 is allowed": {&rsaKey.PublicKey, wire.AuthRSA, pkcs1(crypto.SHA256, sum256), all, nil},
		"method 1 with SHA-512 is allowed": {&rsaKey.PublicKey, wire.AuthRSA, pkcs1(crypto.SHA512, sum512), all, nil},
		"method 1 with SHA-1":              {&rsaKey.PublicKey, wire.AuthRSA, pkcs1(crypto.SHA1, sum1[:]), all, ErrSignature},
		"method 1 with an ECDSA key":       {keys["P-256"].Public(), wire.AuthRSA, ecdsa256, all, ErrAlgorithm},
		"PSS with a salt that is too short": {&rsaKey.PublicKey, wire.AuthDigitalSignature,
			with(algorithm{schemePSS, wire.HashSHA256}, pss(crypto.SHA256, sum256, 20)), all, ErrSignature},
		"PSS with a salt that is too long": {&rsaKey.PublicKey, wire.AuthDigitalSignature,
			with(algorithm{schemePSS, wire.HashSHA256}, pss(crypto.SHA256, sum256, 64)), all, ErrSignature},
		"PSS under the name of PKCS#1": {&rsaKey.PublicKey, wire.AuthDigitalSignature,
			with(algorithm{schemePKCS1, wire.HashSHA256}, pss(crypto.SHA256, sum256, 32)), all, ErrSignature},
		"another hash than named": {&rsaKey.PublicKey, wire.AuthDigitalSignature,
			with(algorithm{schemePSS, wire.HashSHA256}, pss(crypto.SHA512, sum512, 64)), all, ErrSignature},
		"a hash that was not announced": {&rsaKey.PublicKey, wire.AuthDigitalSignature,
			with(algorithm{schemePSS, wire.HashSHA512}, pss(crypto.SHA512, sum512, 64)), only256, ErrAlgorithm},
		"nothing was announced": {&rsaKey.PublicKey, wire.AuthDigitalSignature,
			with(algorithm{schemePSS, wire.HashSHA256}, pss(crypto.SHA256, sum256, 32)), nil, ErrAlgorithm},
		"ECDSA identifier with an RSA key": {&rsaKey.PublicKey, wire.AuthDigitalSignature,
			with(algorithm{schemeECDSA, wire.HashSHA256}, ecdsa256), all, ErrAlgorithm},
		"RSA identifier with an ECDSA key": {keys["P-256"].Public(), wire.AuthDigitalSignature,
			with(algorithm{schemePSS, wire.HashSHA256}, ecdsa256), all, ErrAlgorithm},
		"ECDSA identifier with an Ed25519 key": {keys["Ed25519"].Public(), wire.AuthDigitalSignature,
			with(algorithm{schemeECDSA, wire.HashSHA256}, ecdsa256), all, ErrAlgorithm},
		"octets behind an ECDSA signature": {keys["P-256"].Public(), wire.AuthDigitalSignature,
			with(algorithm{schemeECDSA, wire.HashSHA256}, append(bytes.Clone(ecdsa256), 0)), all, ErrSignature},
		"no data":                       {keys["P-256"].Public(), wire.AuthDigitalSignature, nil, all, ErrSignature},
		"a length beyond the data":      {keys["P-256"].Public(), wire.AuthDigitalSignature, []byte{200, 1, 2}, all, ErrSignature},
		"an empty identifier":           {keys["P-256"].Public(), wire.AuthDigitalSignature, append([]byte{0}, ecdsa256...), all, ErrAlgorithm},
		"method 10 with a key of P-256": {keys["P-256"].Public(), wire.AuthECDSA384, make([]byte, 96), all, ErrAlgorithm},
		"method 9 with an RSA key":      {&rsaKey.PublicKey, wire.AuthECDSA256, make([]byte, 64), all, ErrAlgorithm},
		"method PSK":                    {&rsaKey.PublicKey, wire.AuthSharedKey, make([]byte, 32), all, ErrAlgorithm},
		"method NULL":                   {&rsaKey.PublicKey, wire.AuthNull, nil, all, ErrAlgorithm},
		"RSA of 1024 bits":              {small, wire.AuthDigitalSignature, nil, all, ErrAlgorithm},
		"RSA of 8193 bits":              {huge, wire.AuthDigitalSignature, nil, all, ErrAlgorithm},
		"RSA without modulus":           {&rsa.PublicKey{E: 3}, wire.AuthDigitalSignature, nil, all, ErrAlgorithm},
		"RSA with exponent 1":           {&rsa.PublicKey{N: rsaKey.N, E: 1}, wire.AuthDigitalSignature, nil, all, ErrAlgorithm},
		"RSA with an even exponent":     {&rsa.PublicKey{N: rsaKey.N, E: 65536}, wire.AuthDigitalSignature, nil, all, ErrAlgorithm},
		"ECDSA with P-224":              {p224.Public(), wire.AuthDigitalSignature, nil, all, ErrAlgorithm},
		"a short Ed25519 key":           {ed25519.PublicKey{1}, wire.AuthDigitalSignature, nil, all, ErrAlgorithm},
		"no key":                        {nil, wire.AuthDigitalSignature, nil, all, ErrAlgorithm},
	} {
		err := Verify(c.pub, c.method, c.data, octets, c.announced)
		if !errors.Is(err, c.want) {
			t.Errorf("%s gives %v, want %v", name, err, c.want)
		}
		if err != nil && strings.Contains(err.Error(), hex.EncodeToString(octets)) {
			t.Errorf("%s: the error shows what was signed", name)
		}
	}
}

func BenchmarkSignVerify(b *testing.B) {
	octets := make([]byte, 600)
	for name, key := range keysFor(b) {
		method, data, err := Sign(rand.Reader, key, SupportedHashes(), octets)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(name+"/sign", func(b *testing.B) {
			for b.Loop() {
				if _, _, err := Sign(rand.Reader, key, SupportedHashes(), octets); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(name+"/verify", func(b *testing.B) {
			for b.Loop() {
				if err := Verify(key.Public(), method, data, octets, SupportedHashes()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
