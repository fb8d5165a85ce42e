package revocation

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"math/big"
	"strings"
	"testing"
	"time"
)

// signed is a list of an issuer, changed before it is signed.
func signed(t testing.TB, issuer *x509.Certificate, key *ecdsa.PrivateKey, change func(l *List, x *x509.RevocationList)) []byte {
	t.Helper()
	l := List{Number: 7, ThisUpdate: epoch, NextUpdate: epoch.Add(time.Hour), Entries: []Entry{
		{big.NewInt(10), epoch.Add(-time.Hour), CACompromise}, {big.NewInt(11), epoch.Add(-time.Minute), Unspecified},
	}}
	change(&l, &x509.RevocationList{})
	template, err := l.Template()
	if err != nil {
		t.Fatal(err)
	}
	change(&List{}, template)
	der, err := x509.CreateRevocationList(rand.Reader, template, issuer, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func asIs(*List, *x509.RevocationList) {}

// What was signed elsewhere is read as it was meant, and only as the whole, present list of an issuer that counts.
func TestParseList(t *testing.T) {
	issuer, key := authority(t)
	stranger, strangersKey := authority(t) // of the same name
	good := signed(t, issuer, key, asIs)
	list, by, err := ParseList(good, []*x509.Certificate{stranger, issuer}, epoch)
	if err != nil || !by.Equal(issuer) || list.Number != 7 || !list.NextUpdate.Equal(epoch.Add(time.Hour)) || len(list.Entries) != 2 {
		t.Fatalf("got %+v of %v, error %v", list, by, err)
	}
	if e := list.Entries[0]; e.Serial.Int64() != 10 || !e.At.Equal(epoch.Add(-time.Hour)) || e.Reason != CACompromise {
		t.Errorf("the first entry is %+v", e)
	}
	if read, err := ReadList(good); err != nil || read.Number != 7 {
		t.Errorf("read again it is %+v, error %v", read, err)
	}
	critical := pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 27}, Critical: true, Value: []byte{2, 1, 1}} // a difference
	for name, test := range map[string]struct {
		der  []byte
		now  time.Time
		want string
	}{
		"of a stranger of that name": {signed(t, stranger, strangersKey, asIs), epoch, ErrSigner.Error()},
		"over":                       {good, epoch.Add(time.Hour), "ended"},
		"from tomorrow":              {good, epoch.Add(-24 * time.Hour), "yet to come"},
		"a part":                     {signed(t, issuer, key, func(l *List, _ *x509.RevocationList) { l.DistributionPoint = "http://x/y" }), epoch, "not the whole list"},
		"a difference":               {signed(t, issuer, key, func(_ *List, x *x509.RevocationList) { x.ExtraExtensions = []pkix.Extension{critical} }), epoch, "not the whole list"},
		"of others": {signed(t, issuer, key, func(_ *List, x *x509.RevocationList) {
			if len(x.RevokedCertificateEntries) > 0 {
				x.RevokedCertificateEntries[0].ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 29}, Critical: true, Value: []byte{5, 0}}}
			}
		}), epoch, "another issuer"},
		"with a hold":      {signed(t, issuer, key, func(l *List, _ *x509.RevocationList) { l.Entries = []Entry{{big.NewInt(9), epoch, CertificateHold}} }), epoch, "on hold"},
		"of a huge number": {signed(t, issuer, key, func(_ *List, x *x509.RevocationList) { x.Number = new(big.Int).Lsh(big.NewInt(1), 64) }), epoch, "63 bits"},
		"a certificate":    {issuer.Raw, epoch, "cannot be read"},
		"huge":             {make([]byte, MaxList+1), epoch, "more than"},
		"nothing":          {nil, epoch, "cannot be read"},
	} {
		if _, _, err := ParseList(test.der, []*x509.Certificate{issuer}, test.now); !errors.Is(err, ErrList) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("a list %s gave %v, want ErrList with %q", name, err, test.want)
		}
	}
	for n := range good {
		if _, err := ReadList(good[:n]); !errors.Is(err, ErrList) {
			t.Fatalf("the first %d octets gave %v, want ErrList", n, err)
		}
	}
}

// A list that was revoked for a reason of a later time is one of revocations all the same.
func TestUnknownReasonsAreRevocations(t *testing.T) {
	issuer, key := authority(t)
	for _, code := range []int{77, 256 + int(CertificateHold)} {
		list, _, err := ParseList(signed(t, issuer, key, func(_ *List, x *x509.RevocationList) {
			if len(x.RevokedCertificateEntries) > 0 {
				x.RevokedCertificateEntries[0].ReasonCode = code
			}
		}), []*x509.Certificate{issuer}, epoch)
		if err != nil || len(list.Entries) != 2 || list.Entries[0].Reason != Unspecified {
			t.Errorf("code %d gave %+v, error %v", code, list, err)
		}
	}
}

// FuzzReadList gives any octets as a list. What is read can be said again.
func FuzzReadList(f *testing.F) {
	issuer, key := authority(f)
	f.Add(signed(f, issuer, key, asIs))
	f.Add(signed(f, issuer, key, func(l *List, _ *x509.RevocationList) { l.Entries = nil }))
	f.Fuzz(func(t *testing.T, der []byte) {
		list, err := ReadList(der)
		if err != nil {
			if !errors.Is(err, ErrList) {
				t.Fatalf("%v is no ErrList", err)
			}
			return
		}
		if _, err := list.Template(); err != nil {
			t.Fatalf("%+v was read and cannot be said: %v", list, err)
		}
	})
}
