package trust_test

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"strings"
	"testing"

	"github.com/bailiwick-net/bailiwick/pki/trust"
)

func sampleBundle(t testing.TB) trust.Bundle {
	t.Helper()
	b, err := trust.NewBundle(7, []*x509.Certificate{strongSwan(t, "ca")}, []*x509.Certificate{strongSwan(t, "int")})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestBundleRoundTrip(t *testing.T) {
	a, b := issue(t, nil, "root a", asCA), issue(t, nil, "root b", asCA)
	issuing := issue(t, a, "issuing", asCA)
	one, err := trust.NewBundle(1<<63, chainOf(a, b), chainOf(issuing))
	if err != nil {
		t.Fatal(err)
	}
	other, err := trust.NewBundle(1<<63, chainOf(b, a, b), chainOf(issuing, issuing))
	if err != nil {
		t.Fatal(err)
	}
	if one.Digest() != other.Digest() {
		t.Error("order and repetition change the digest")
	}
	later, err := trust.NewBundle(1<<63+1, chainOf(a, b), chainOf(issuing))
	if err != nil {
		t.Fatal(err)
	}
	if later.Digest() == one.Digest() {
		t.Error("two revisions have one digest")
	}
	back, err := trust.ParseBundle(one.Append(nil))
	if err != nil {
		t.Fatal(err)
	}
	if back.Digest() != one.Digest() || back.Revision() != 1<<63 || len(back.Roots()) != 2 || len(back.Intermediates()) != 1 {
		t.Errorf("read back revision %d with %d roots and %d intermediates", back.Revision(), len(back.Roots()), len(back.Intermediates()))
	}
	fromPEM, err := trust.ParseBundlePEM(1<<63, one.AppendPEM([]byte("some text\n")))
	if err != nil {
		t.Fatal(err)
	}
	if fromPEM.Digest() != one.Digest() {
		t.Error("the bundle differs after PEM")
	}
}

func TestNewBundleRefuses(t *testing.T) {
	root := issue(t, nil, "root", asCA)
	issuing := issue(t, root, "issuing", asCA)
	leaf := issue(t, root, "sql1.bank.example", nil)
	mute := issue(t, nil, "mute root", func(c *x509.Certificate) { asCA(c); c.KeyUsage = x509.KeyUsageCRLSign })
	var many []*x509.Certificate
	for range trust.MaxBundleCertificates + 1 {
		many = append(many, root.cert)
	}
	for _, c := range []struct {
		name                 string
		roots, intermediates []*x509.Certificate
	}{
		{"no root", nil, chainOf(issuing)},
		{"leaf as root", chainOf(leaf), nil},
		{"intermediate as root", chainOf(issuing), nil},
		{"root as intermediate", chainOf(root), chainOf(root)},
		{"leaf as intermediate", chainOf(root), chainOf(leaf)},
		{"root that may not sign", chainOf(mute), nil},
		{"nil", []*x509.Certificate{nil}, nil},
		{"too many", many, nil},
	} {
		if _, err := trust.NewBundle(1, c.roots, c.intermediates); !errors.Is(err, trust.ErrBundle) {
			t.Errorf("%s gives %v, want ErrBundle", c.name, err)
		}
	}
}

func TestParseBundleRefuses(t *testing.T) {
	good := sampleBundle(t).Append(nil)
	for n := range len(good) {
		if _, err := trust.ParseBundle(good[:n]); !errors.Is(err, trust.ErrBundle) {
			t.Fatalf("the first %d octets of %d give %v, want ErrBundle", n, len(good), err)
		}
	}
	for name, der := range map[string][]byte{
		"trailing octet": append(bytes.Clone(good), 0),
		"format 2":       bytes.Replace(good, []byte{0x02, 0x01, 0x01}, []byte{0x02, 0x01, 0x02}, 1),
		"no lists":       {0x30, 0x06, 0x02, 0x01, 0x01, 0x02, 0x01, 0x07},
		"empty lists":    {0x30, 0x0a, 0x02, 0x01, 0x01, 0x02, 0x01, 0x07, 0x30, 0x00, 0x30, 0x00},
		"too large":      make([]byte, trust.MaxBundleSize+1),
	} {
		if _, err := trust.ParseBundle(der); !errors.Is(err, trust.ErrBundle) {
			t.Errorf("%s gives %v, want ErrBundle", name, err)
		}
	}
}

func TestParseBundlePEMRefuses(t *testing.T) {
	good := string(sampleBundle(t).AppendPEM(nil))
	for name, c := range map[string]struct{ text, says string }{
		"empty":         {"", "without a root"},
		"damaged block": {strings.Replace(good, "MII", "M!I", 1), "only 1 can be read"},
		"cut":           {good[:len(good)-40], "only 1 can be read"},
		"a key in it":   {good + string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte{1}})), `"PRIVATE KEY"`},
		"not DER":       {good + string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte{1}})), "PEM block 3"},
	} {
		if _, err := trust.ParseBundlePEM(1, []byte(c.text)); !errors.Is(err, trust.ErrBundle) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s gives %v, want ErrBundle that says %q", name, err, c.says)
		}
	}
}

func FuzzBundle(f *testing.F) {
	f.Add(sampleBundle(f).Append(nil))
	f.Add(sampleBundle(f).AppendPEM(nil))
	f.Add([]byte{0x30, 0x0a, 0x02, 0x01, 0x01, 0x02, 0x01, 0x07, 0x30, 0x00, 0x30, 0x00})
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := trust.ParseBundle(data)
		if err == nil {
			if again := b.Append(nil); !bytes.Equal(again, data) {
				t.Fatalf("%x is not the canonical encoding %x", data, again)
			}
		} else if !errors.Is(err, trust.ErrBundle) {
			t.Fatalf("error %v does not wrap ErrBundle", err)
		}
		b, err = trust.ParseBundlePEM(1, data)
		if err != nil {
			if !errors.Is(err, trust.ErrBundle) {
				t.Fatalf("error %v does not wrap ErrBundle", err)
			}
			return
		}
		again, err := trust.ParseBundlePEM(1, b.AppendPEM(nil))
		if err != nil || again.Digest() != b.Digest() {
			t.Fatalf("a bundle read from PEM does not read back from its own PEM: %v", err)
		}
	})
}
