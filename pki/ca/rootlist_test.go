package ca

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/revocation"
)

// placesAt are pointers to a place.
func placesAt(t *testing.T, url string) revocation.Pointers {
	t.Helper()
	p, err := revocation.NewPointers(url, 16)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// An issuing CA says where the whole list of its root is, the root says nothing, and what was signed elsewhere has to say what is
// so here.
func TestIssuingCANamesTheListOfItsRoot(t *testing.T) {
	here, elsewhere := placesAt(t, "http://pki.bank.example:7480"), placesAt(t, "http://other.bank.example")
	made := map[string]Authority{}
	for name, p := range map[string]revocation.Pointers{"here": here, "elsewhere": elsewhere, "nowhere": {}} {
		a, err := Generate(time.Now(), Config{TrustDomain: "bank.example", Pointers: p})
		if err != nil {
			t.Fatal(err)
		}
		made[name] = a
	}
	root, err := pki.KeyIDOf(made["here"].Root.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"http://pki.bank.example:7480/crl/" + root.String()[:16] + ".crl"}
	if got := made["here"].Issuing.CRLDistributionPoints; !slices.Equal(got, want) {
		t.Errorf("the issuing CA names the lists %q, want %q", got, want)
	}
	if n := len(made["here"].Root.CRLDistributionPoints) + len(made["nowhere"].Issuing.CRLDistributionPoints) + len(made["here"].Issuing.OCSPServer); n != 0 {
		t.Errorf("%d places are named where there is none", n)
	}
	for name, a := range made {
		for where, p := range map[string]revocation.Pointers{"here": here, "nowhere": {}} {
			err := CheckIssuing(a.Root, a.Issuing, Config{TrustDomain: "bank.example", Pointers: p})
			if name == where && err != nil {
				t.Errorf("a certificate that names a list %s, where that is so: %v", name, err)
			}
			if name != where && (!errors.Is(err, ErrAuthority) || !strings.Contains(err.Error(), "revocation.url")) {
				t.Errorf("a certificate that names a list %s, where it is %s, gave %v, want ErrAuthority", name, where, err)
			}
		}
	}
}
