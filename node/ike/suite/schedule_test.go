package suite

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/bailiwick-net/bailiwick/node/ike/wire"
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/node/vectortest"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
)

// TestNISTKeySchedule recomputes the SP 800-135 file of the CAVS programme.
func TestNISTKeySchedule(t *testing.T) {
	f, err := os.Open(filepath.Join(vectortest.Dir(t), "nist-cavs", "ikev2.fax.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	prfs := map[string]proposal.PRF{"SHA-256": proposal.PRFHMACSHA256, "SHA-384": proposal.PRFHMACSHA384, "SHA-512": proposal.PRFHMACSHA512}
	var h func() hash.Hash
	lengths := map[string]int{}
	fields := map[string][]byte{}
	checked := 0
	lines := bufio.NewScanner(z)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if strings.HasPrefix(line, "[") {
			header := strings.Trim(line, "[]")
			if name, value, ok := strings.Cut(header, " = "); ok {
				lengths[name], _ = strconv.Atoi(value)
			} else if prf, ok := prfs[header]; ok {
				h, _ = prfHash(prf)
			} else {
				h = nil // SHA-1, which is not implemented
			}
			continue
		}
		name, value, ok := strings.Cut(line, " = ")
		if !ok || h == nil || name == "COUNT" {
			continue
		}
		fields[name] = unhex(t, value)
		if name == "SKEYSEED(Rekey)" {
			checkNIST(t, h, fields, lengths)
			checked++
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	if checked != 600 {
		t.Errorf("checked %d vectors, the file holds 600 with SHA-2", checked)
	}
}

func checkNIST(t *testing.T, h func() hash.Hash, f map[string][]byte, lengths map[string]int) {
	t.Helper()
	spii, spir := wire.SPI(binary.BigEndian.Uint64(f["SPIi"])), wire.SPI(binary.BigEndian.Uint64(f["SPIr"]))
	seed := skeyseed(h, f["g^ir"], f["Ni"], f["Nr"])
	dkm, err := ikeMaterial(h, seed, f["Ni"], f["Nr"], spii, spir, lengths["DKM length"]/8)
	if err != nil {
		t.Fatal(err)
	}
	d := dkm[:h().Size()]
	child, err := childMaterial(h, d, nil, f["Ni"], f["Nr"], lengths["Child SA DKM length"]/8)
	if err != nil {
		t.Fatal(err)
	}
	childDH, err := childMaterial(h, d, f["g^ir (new)"], f["Ni"], f["Nr"], lengths["Child SA DKM length"]/8)
	if err != nil {
		t.Fatal(err)
	}
	for name, got := range map[string][]byte{
		"SKEYSEED": seed, "DKM": dkm, "DKM(Child SA)": child, "DKM(Child SA D-H)": childDH,
		"SKEYSEED(Rekey)": rekeySkeyseed(h, d, f["g^ir (new)"], f["Ni"], f["Nr"]),
	} {
		if !bytes.Equal(got, f[name]) {
			t.Fatalf("%s with Ni %x is %x, want %x", name, f["Ni"], got, f[name])
		}
	}
}

func TestPRFPlusLimit(t *testing.T) {
	h, err := prfHash(proposal.PRFHMACSHA256)
	if err != nil {
		t.Fatal(err)
	}
	whole, err := prfPlus(h, []byte("key"), []byte("seed"), 255*32)
	if err != nil || len(whole) != 255*32 {
		t.Fatalf("255 blocks give %d octets, error %v", len(whole), err)
	}
	// The last block is prf(K, T254 | S | 255).
	if want := mac(h, []byte("key"), whole[253*32:254*32], []byte("seed"), []byte{255}); !bytes.Equal(whole[254*32:], want) {
		t.Errorf("block 255 is %x, want %x", whole[254*32:], want)
	}
	if _, err := prfPlus(h, nil, nil, 255*32+1); !errors.Is(err, ErrUnsupported) {
		t.Errorf("more than 255 blocks give %v", err)
	}
	short, err := prfPlus(h, []byte("key"), []byte("seed"), 33)
	if err != nil || !bytes.Equal(short, whole[:33]) {
		t.Errorf("33 octets are %x, want a prefix of the longer output", short)
	}
}

func TestCheckNonce(t *testing.T) {
	for _, c := range []struct {
		prf  proposal.PRF
		size int
		want error
	}{
		{proposal.PRFHMACSHA256, 15, ErrNonce}, {proposal.PRFHMACSHA256, 16, nil}, {proposal.PRFHMACSHA256, 256, nil},
		{proposal.PRFHMACSHA256, 257, ErrNonce}, {proposal.PRFHMACSHA384, 23, ErrNonce}, {proposal.PRFHMACSHA384, 24, nil},
		{proposal.PRFHMACSHA512, 31, ErrNonce}, {proposal.PRFHMACSHA512, 32, nil}, {1, 32, ErrUnsupported},
	} {
		if err := CheckNonce(c.prf, make([]byte, c.size)); !errors.Is(err, c.want) {
			t.Errorf("PRF %d with a nonce of %d octets gives %v, want %v", c.prf, c.size, err, c.want)
		}
	}
}

var gcm256 = proposal.IKE{Encryption: proposal.EncrAESGCM16, KeyBits: 256, PRF: proposal.PRFHMACSHA384, Group: proposal.GroupECP384}

func TestDeriveRefuses(t *testing.T) {
	nonce, shared := make([]byte, 32), sa.NewSecret([]byte("shared"))
	for name, c := range map[string]struct {
		change func(*proposal.IKE)
		ni     []byte
		want   error
	}{
		"a short nonce":            {func(*proposal.IKE) {}, make([]byte, 16), ErrNonce},
		"an unknown PRF":           {func(o *proposal.IKE) { o.PRF = 2 }, nonce, ErrUnsupported},
		"an unknown cipher":        {func(o *proposal.IKE) { o.Encryption = 3 }, nonce, ErrUnsupported},
		"an odd key length":        {func(o *proposal.IKE) { o.KeyBits = 160 }, nonce, ErrUnsupported},
		"an AEAD with integrity":   {func(o *proposal.IKE) { o.Integrity = proposal.IntegHMACSHA256128 }, nonce, ErrUnsupported},
		"CBC without integrity":    {func(o *proposal.IKE) { o.Encryption = proposal.EncrAESCBC }, nonce, ErrUnsupported},
		"an unknown integrity":     {func(o *proposal.IKE) { o.Encryption, o.Integrity = proposal.EncrAESCBC, 2 }, nonce, ErrUnsupported},
		"ChaCha20 with a key size": {func(o *proposal.IKE) { o.Encryption = proposal.EncrChaCha20Poly1305 }, nonce, ErrUnsupported},
		"NULL encryption":          {func(o *proposal.IKE) { o.Encryption, o.KeyBits = proposal.EncrNULL, 0 }, nonce, ErrUnsupported},
		"NULL encryption with HMAC": {func(o *proposal.IKE) {
			o.Encryption, o.KeyBits, o.Integrity = proposal.EncrNULL, 0, proposal.IntegHMACSHA256128
		}, nonce, ErrUnsupported},
	} {
		o := gcm256
		c.change(&o)
		if _, err := DeriveIKE(o, shared, c.ni, nonce, 1, 2); !errors.Is(err, c.want) {
			t.Errorf("derive an IKE SA with %s gives %v, want %v", name, err, c.want)
		}
		if _, err := RekeyIKE(o, proposal.PRFHMACSHA256, shared, shared, c.ni, nonce, 1, 2); !errors.Is(err, c.want) {
			t.Errorf("rekey an IKE SA with %s gives %v, want %v", name, err, c.want)
		}
	}
	if _, err := RekeyIKE(gcm256, 1, shared, shared, nonce, nonce, 1, 2); !errors.Is(err, ErrUnsupported) {
		t.Errorf("rekey from an unknown PRF gives %v", err)
	}
	child := proposal.ESP{Encryption: proposal.EncrAESGCM16, KeyBits: 128}
	pfs := child
	pfs.Group = proposal.GroupX25519
	for name, c := range map[string]struct {
		esp    proposal.ESP
		shared sa.Secret
		ni     []byte
		want   error
	}{
		"a group without its secret":   {pfs, sa.Secret{}, nonce, ErrUnsupported},
		"a secret without its group":   {child, shared, nonce, ErrUnsupported},
		"a short nonce":                {child, sa.Secret{}, nonce[:15], ErrNonce},
		"NULL without integrity":       {proposal.ESP{Encryption: proposal.EncrNULL}, sa.Secret{}, nonce, ErrUnsupported},
		"CBC of an unknown key length": {proposal.ESP{Encryption: proposal.EncrAESCBC, Integrity: proposal.IntegHMACSHA256128}, sa.Secret{}, nonce, ErrUnsupported},
	} {
		if _, _, err := DeriveChild(proposal.PRFHMACSHA256, shared, c.shared, c.ni, nonce, c.esp); !errors.Is(err, c.want) {
			t.Errorf("derive a Child SA with %s gives %v, want %v", name, err, c.want)
		}
	}
}

// TestDeriveChildLengths checks the key sizes of ESP (RFC 4106 8.1, RFC 4868 2.6, RFC 7634 2) and that all keys differ.
func TestDeriveChildLengths(t *testing.T) {
	for _, c := range []struct {
		esp         proposal.ESP
		encr, integ int
	}{
		{proposal.ESP{Encryption: proposal.EncrAESGCM16, KeyBits: 128}, 20, 0},
		{proposal.ESP{Encryption: proposal.EncrAESGCM16, KeyBits: 192}, 28, 0},
		{proposal.ESP{Encryption: proposal.EncrAESGCM16, KeyBits: 256}, 36, 0},
		{proposal.ESP{Encryption: proposal.EncrChaCha20Poly1305}, 36, 0},
		{proposal.ESP{Encryption: proposal.EncrAESCBC, KeyBits: 256, Integrity: proposal.IntegHMACSHA256128}, 32, 32},
		{proposal.ESP{Encryption: proposal.EncrAESCBC, KeyBits: 128, Integrity: proposal.IntegHMACSHA384192}, 16, 48},
		{proposal.ESP{Encryption: proposal.EncrNULL, Integrity: proposal.IntegHMACSHA512256}, 0, 64},
	} {
		i, r, err := DeriveChild(proposal.PRFHMACSHA256, sa.NewSecret([]byte("d")), sa.Secret{}, make([]byte, 16), make([]byte, 16), c.esp)
		if err != nil {
			t.Fatalf("%+v: %v", c.esp, err)
		}
		for _, k := range []sa.Keys{i, r} {
			if k.Encryption.Len() != c.encr || k.Integrity.Len() != c.integ {
				t.Errorf("%+v: keys of %d and %d octets, want %d and %d", c.esp, k.Encryption.Len(), k.Integrity.Len(), c.encr, c.integ)
			}
		}
		all := [][]byte{i.Encryption.Expose(), i.Integrity.Expose(), r.Encryption.Expose(), r.Integrity.Expose()}
		for n, k := range all {
			if len(k) > 0 && slices.ContainsFunc(all[:n], func(o []byte) bool { return bytes.Equal(o, k) }) {
				t.Errorf("%+v: two keys are equal", c.esp)
			}
		}
	}
}

func TestKeysAreRedactedAndWiped(t *testing.T) {
	keys, err := DeriveIKE(gcm256, sa.NewSecret([]byte("shared")), make([]byte, 32), make([]byte, 32), 1, 2)
	if err != nil {
		t.Fatal(err)
	}
	ei := bytes.Clone(keys.EI.Expose())
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%x"} {
		if got := fmt.Sprintf(format, keys); strings.Contains(got, hex.EncodeToString(ei[:4])) || !strings.Contains(got, "[redacted]") {
			t.Errorf("%s prints keys as %q", format, got)
		}
	}
	keys.Wipe()
	for _, s := range []sa.Secret{keys.D, keys.EI, keys.ER, keys.PI, keys.PR} {
		if !zero(s.Expose()) {
			t.Error("a key survives Wipe")
		}
	}
}
