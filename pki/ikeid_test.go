package pki_test

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"net"
	"strings"
	"testing"

	"github.com/bailiwick-net/bailiwick/pki"
)

func TestMatchIKEID(t *testing.T) {
	cert := selfSigned(t, &x509.Certificate{
		Subject:        pkix.Name{CommonName: "cn.bank.example", Organization: []string{"Bank"}},
		DNSNames:       []string{"sql1.bank.example", "*.wild.example"},
		EmailAddresses: []string{"Root@Bank.Example"},
		IPAddresses:    []net.IP{net.IPv4(192, 0, 2, 1).To4(), net.ParseIP("2001:db8::1")},
	})
	nameless := selfSigned(t, &x509.Certificate{DNSNames: []string{"sql1.bank.example"}})
	v6 := []byte(net.ParseIP("2001:db8::1"))
	for _, c := range []struct {
		name   string
		cert   *x509.Certificate
		idType byte
		data   string
		want   error
	}{
		{"DNS name", cert, pki.IDFQDN, "sql1.bank.example", nil},
		{"DNS name in another case", cert, pki.IDFQDN, "SQL1.Bank.Example", nil},
		{"DNS name with a final dot", cert, pki.IDFQDN, "sql1.bank.example.", pki.ErrIKEIDMismatch},
		{"DNS name with a NUL", cert, pki.IDFQDN, "sql1.bank.example\x00", pki.ErrIKEIDMismatch},
		{"DNS name of another", cert, pki.IDFQDN, "sql2.bank.example", pki.ErrIKEIDMismatch},
		{"DNS name that a wildcard would match", cert, pki.IDFQDN, "a.wild.example", pki.ErrIKEIDMismatch},
		{"the wildcard itself", cert, pki.IDFQDN, "*.wild.example", pki.ErrIKEIDMismatch},
		{"the common name", cert, pki.IDFQDN, "cn.bank.example", pki.ErrIKEIDMismatch},
		{"a mail address as DNS name", cert, pki.IDFQDN, "Root@Bank.Example", pki.ErrIKEIDMismatch},
		{"empty", cert, pki.IDFQDN, "", pki.ErrIKEIDMismatch},
		{"too long", cert, pki.IDFQDN, strings.Repeat("a", 5000), pki.ErrIKEIDMismatch},
		{"mail address", cert, pki.IDRFC822, "Root@bank.example", nil},
		{"mail address with another local part", cert, pki.IDRFC822, "root@bank.example", pki.ErrIKEIDMismatch},
		{"mail domain alone", cert, pki.IDRFC822, "@bank.example", pki.ErrIKEIDMismatch},
		{"DNS name as mail address", cert, pki.IDRFC822, "sql1.bank.example", pki.ErrIKEIDMismatch},
		{"IPv4", cert, pki.IDIPv4Addr, "\xc0\x00\x02\x01", nil},
		{"IPv4 of another", cert, pki.IDIPv4Addr, "\xc0\x00\x02\x02", pki.ErrIKEIDMismatch},
		{"IPv4 with 3 octets", cert, pki.IDIPv4Addr, "\xc0\x00\x02", pki.ErrIKEIDMismatch},
		{"IPv6 octets as IPv4", cert, pki.IDIPv4Addr, string(v6), pki.ErrIKEIDMismatch},
		{"IPv6", cert, pki.IDIPv6Addr, string(v6), nil},
		{"IPv4-mapped IPv6", cert, pki.IDIPv6Addr, string(net.IPv4(192, 0, 2, 1).To16()), pki.ErrIKEIDMismatch},
		{"subject", cert, pki.IDDERASN1DN, string(cert.RawSubject), nil},
		{"part of the subject", cert, pki.IDDERASN1DN, string(cert.RawSubject[:len(cert.RawSubject)-1]), pki.ErrIKEIDMismatch},
		{"subject of another", cert, pki.IDDERASN1DN, string(nameless.RawSubject), pki.ErrIKEIDMismatch},
		{"empty subject", nameless, pki.IDDERASN1DN, string(nameless.RawSubject), pki.ErrIKEIDMismatch},
		{"key id", cert, 11, "sql1.bank.example", pki.ErrIKEIDType},
		{"general name", cert, 10, "sql1.bank.example", pki.ErrIKEIDType},
		{"reserved type", cert, 0, "sql1.bank.example", pki.ErrIKEIDType},
		{"no certificate", nil, pki.IDFQDN, "sql1.bank.example", pki.ErrIKEIDMismatch},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := pki.MatchIKEID(c.cert, c.idType, []byte(c.data)); !errors.Is(err, c.want) {
				t.Errorf("error %v, want %v", err, c.want)
			}
		})
	}
}

// The IDs under which strongSwan speaks with its own certificates match them.
func TestMatchIKEIDOfStrongSwan(t *testing.T) {
	certs := strongSwanCertificates(t)
	for _, name := range []string{"eca", "eda", "rsaa", "chaina"} {
		if err := pki.MatchIKEID(certs[name], pki.IDFQDN, []byte(name+".test")); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := pki.MatchIKEID(certs[name], pki.IDDERASN1DN, certs[name].RawSubject); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := pki.MatchIKEID(certs[name], pki.IDDERASN1DN, certs["ca"].RawSubject); !errors.Is(err, pki.ErrIKEIDMismatch) {
			t.Errorf("%s passes for the CA: %v", name, err)
		}
	}
}

// Foreign octets reach logs only escaped.
func TestIKEIDString(t *testing.T) {
	for _, c := range []struct {
		id   pki.IKEID
		want string
	}{
		{pki.IKEID{Type: pki.IDFQDN, Data: []byte("a\nb")}, `ID_FQDN "a\nb"`},
		{pki.IKEID{Type: pki.IDIPv4Addr, Data: []byte{192, 0, 2, 1}}, "ID_IPV4_ADDR 192.0.2.1"},
		{pki.IKEID{Type: pki.IDIPv4Addr, Data: []byte{192, 0}}, "ID_IPV4_ADDR c000"},
		{pki.IKEID{Type: 11, Data: []byte("x")}, "ID type 11 78"},
	} {
		if got := c.id.String(); got != c.want {
			t.Errorf("String gives %q, want %q", got, c.want)
		}
	}
}
