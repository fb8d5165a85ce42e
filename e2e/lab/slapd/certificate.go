package slapd

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"time"
)

type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// writeCertificates makes the files that the server and its clients need.
func (s *Server) writeCertificates(edit func(*x509.Certificate)) error {
	ca, err := s.authority("ca.crt", "Laboratory directory CA")
	if err != nil {
		return err
	}
	if _, err := s.authority("other-ca.crt", "Another CA"); err != nil {
		return err
	}
	s.CAFile, s.OtherCAFile = s.path("ca.crt"), s.path("other-ca.crt")
	server := &x509.Certificate{
		Subject:     pkix.Name{CommonName: "ldap.bank.example"},
		DNSNames:    []string{"ldap.bank.example", "localhost"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if edit != nil {
		edit(server)
	}
	if err := s.issue(ca, server, "server"); err != nil {
		return err
	}
	s.ClientCert, s.ClientKey = s.path("client.crt"), s.path("client.key")
	return s.issue(ca, &x509.Certificate{
		Subject:     pkix.Name{CommonName: "bailiwick-controller"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, "client")
}

func (s *Server) authority(file, name string) (authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return authority{}, err
	}
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	return authority{template, key}, s.sign(authority{template, key}, template, key, file)
}

func (s *Server) issue(ca authority, template *x509.Certificate, name string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	if err := s.sign(ca, template, key, name+".crt"); err != nil {
		return err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return os.WriteFile(s.path(name+".key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600)
}

func (s *Server) sign(ca authority, template *x509.Certificate, key *ecdsa.PrivateKey, file string) error {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return err
	}
	template.SerialNumber = serial
	if template.NotAfter.IsZero() {
		template.NotBefore = time.Now().Add(-time.Hour)
		template.NotAfter = time.Now().Add(24 * time.Hour)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.certificate, key.Public(), ca.key)
	if err != nil {
		return err
	}
	return os.WriteFile(s.path(file), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600)
}
