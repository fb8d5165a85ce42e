package trust_test

import (
	"bytes"
	"crypto/x509"
	"errors"
	"net/url"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/trust"
)

// machineOf gives a certificate the names of a machine of the fleet.
func machineOf(t *testing.T, id pki.Identity) func(*x509.Certificate) {
	t.Helper()
	return func(c *x509.Certificate) {
		u, err := url.Parse(id.URI())
		if err != nil {
			t.Fatal(err)
		}
		c.DNSNames, c.URIs = []string{id.DNSName()}, []*url.URL{u}
	}
}

func TestVerifyDenied(t *testing.T) {
	id, err := pki.NewIdentity("bank.example", pki.UUID{1}, "sql1.bank.example")
	if err != nil {
		t.Fatal(err)
	}
	root := issue(t, nil, "root", asCA)
	sql1 := issue(t, root, "sql1.bank.example", machineOf(t, id))
	foreign := issue(t, root, "printer.bank.example", nil)
	serials, err := trust.NewRevocations(1, []trust.Serial{serialOf(t, root, sql1)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name     string
		machines []pki.UUID
		revoked  trust.Revocations
		leaf     *party
		want     trust.Reason // 0: accepted
	}{
		{"nobody denied", nil, trust.Revocations{}, sql1, 0},
		{"the machine denied", []pki.UUID{{2}, {1}}, trust.Revocations{}, sql1, trust.ReasonDenied},
		{"another machine denied", []pki.UUID{{2}}, trust.Revocations{}, sql1, 0},
		{"its certificate revoked", nil, serials, sql1, trust.ReasonRevoked},
		{"a certificate of no machine", []pki.UUID{{1}}, trust.Revocations{}, foreign, 0},
	} {
		denied, err := trust.NewDenials(c.machines, c.revoked)
		if err != nil {
			t.Fatal(err)
		}
		_, err = bundleOf(t, root).Verify(noon, chainOf(c.leaf), trust.Options{Usages: []trust.Usage{trust.IPsecIKE}, Denied: denied})
		if reason, _ := trust.ReasonOf(err); reason != c.want || c.want == 0 && err != nil {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}

func sampleDenials(t testing.TB) []byte {
	t.Helper()
	r, err := trust.ParseRevocations(sampleRevocations(t))
	if err != nil {
		t.Fatal(err)
	}
	d, err := trust.NewDenials([]pki.UUID{{7}, {5}}, r)
	if err != nil {
		t.Fatal(err)
	}
	der, err := d.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func TestDenialsRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var machines []pki.UUID
		for range rapid.IntRange(0, 6).Draw(t, "machines") {
			m := pki.UUID(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "machine"))
			m[0] |= 1
			machines = append(machines, m)
		}
		revoked, err := trust.NewRevocations(rapid.Uint64().Draw(t, "revision"), nil, []pki.KeyID{drawKeyID(t, "key")})
		if err != nil {
			t.Fatal(err)
		}
		want, err := trust.NewDenials(machines, revoked)
		if err != nil {
			t.Fatal(err)
		}
		der, err := want.Append([]byte("prefix"))
		if err != nil {
			t.Fatal(err)
		}
		got, err := trust.ParseDenials(bytes.TrimPrefix(der, []byte("prefix")))
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got.Machines(), want.Machines()) || !slices.Equal(got.Revoked().Keys(), revoked.Keys()) || got.Len() != want.Len() {
			t.Fatalf("read back %v, want %v", got.Machines(), want.Machines())
		}
	})
}

func TestParseDenialsRefuses(t *testing.T) {
	good := sampleDenials(t)
	for n := range len(good) {
		if _, err := trust.ParseDenials(good[:n]); !errors.Is(err, trust.ErrDenials) {
			t.Fatalf("the first %d octets of %d give %v, want ErrDenials", n, len(good), err)
		}
	}
	for name, der := range map[string][]byte{
		"trailing octet": append(bytes.Clone(good), 0),
		"format 2":       bytes.Replace(good, []byte{0x02, 0x01, 0x01}, []byte{0x02, 0x01, 0x02}, 1),
		"not ascending":  bytes.Replace(good, []byte{0x04, 0x10, 0x07}, []byte{0x04, 0x10, 0x05}, 1),
		"nil UUID":       bytes.Replace(good, []byte{0x04, 0x10, 0x05}, []byte{0x04, 0x10, 0x00}, 1),
		"too large":      make([]byte, trust.MaxDenialsSize+1),
	} {
		if _, err := trust.ParseDenials(der); !errors.Is(err, trust.ErrDenials) {
			t.Errorf("%s gives %v, want ErrDenials", name, err)
		}
	}
}

func FuzzDenials(f *testing.F) {
	f.Add(sampleDenials(f))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, der []byte) {
		d, err := trust.ParseDenials(der)
		if err != nil {
			if !errors.Is(err, trust.ErrDenials) {
				t.Fatalf("error %v does not wrap ErrDenials", err)
			}
			return
		}
		again, err := d.Append(nil)
		if err != nil || !bytes.Equal(again, der) {
			t.Fatalf("%x is not the canonical encoding %x, %v", der, again, err)
		}
	})
}
