package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/ca"
	"github.com/bailiwick-net/bailiwick/pki/enroll"
	nodev1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/node/v1"
)

// bareDomain is the trust domain of the bare server.
const bareDomain = "bare.example"

// A bare server renews certificates with the cryptography of a controller, and does nothing else of what a controller does: no
// store, no journal, no directory, no lints, no limits, no log. What it takes beyond the floor is TLS's, HTTP/2's, gRPC's and
// the memory of a connection that carries one call.
type bare struct {
	nodev1.UnimplementedEnrollmentServiceServer
	ca      *ca.CA
	key     crypto.Signer // of the issuing CA
	machine ca.Profile
	bundle  []byte
	grpc    *grpc.Server
	address string
	ended   chan error
}

// startBare starts one on a port of its own.
func startBare() (*bare, error) {
	now := time.Now()
	authority, err := ca.Generate(now, ca.Config{TrustDomain: bareDomain})
	if err != nil {
		return nil, err
	}
	b := &bare{key: authority.IssuingKey, ended: make(chan error, 1)}
	if b.ca, err = ca.New(authority.Root, authority.Issuing, authority.IssuingKey, &ca.MemoryJournal{}); err != nil {
		return nil, err
	}
	bundle, err := b.ca.Bundle(1)
	if err != nil {
		return nil, err
	}
	b.bundle = bundle.Append(nil)
	if b.machine, err = ca.NewProfile(ca.Machine, ca.ProfileConfig{}); err != nil {
		return nil, err
	}
	own, err := b.serverCertificate(now)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AddCert(authority.Root)
	var listen net.ListenConfig
	listener, err := listen.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	b.address = listener.Addr().String()
	b.grpc = grpc.NewServer(grpc.ReadBufferSize(0), grpc.Creds(credentials.NewTLS(&tls.Config{
		MinVersion: tls.VersionTLS13, SessionTicketsDisabled: true,
		Certificates: []tls.Certificate{own}, ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: roots,
	})))
	nodev1.RegisterEnrollmentServiceServer(b.grpc, b)
	go func() { b.ended <- b.grpc.Serve(listener) }()
	return b, nil
}

func (b *bare) close() error {
	b.grpc.Stop()
	return <-b.ended
}

// serverCertificate is made by every step of the real CA, as those of the machines that join are.
func (b *bare) serverCertificate(now time.Time) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	subject, err := pki.NewController(bareDomain, []string{"controller." + bareDomain}, []netip.Addr{netip.MustParseAddr("127.0.0.1")})
	if err != nil {
		return tls.Certificate{}, err
	}
	profile, err := ca.NewProfile(ca.Server, ca.ProfileConfig{})
	if err != nil {
		return tls.Certificate{}, err
	}
	csr, err := enroll.NewRequest(key, subject)
	if err != nil {
		return tls.Certificate{}, err
	}
	issued, err := b.issue(context.Background(), now, profile, csr, subject)
	return tls.Certificate{Certificate: issued.ChainWithRoot(), PrivateKey: key}, err
}

func (b *bare) issue(ctx context.Context, now time.Time, profile ca.Profile, csr []byte, subject pki.Subject) (ca.Issued, error) {
	request, err := enroll.ParseRequest(csr)
	if err != nil {
		return ca.Issued{}, err
	}
	prepared, err := b.ca.Prepare(now, profile, request, subject)
	if err != nil {
		return ca.Issued{}, err
	}
	return b.ca.Issue(ctx, prepared)
}

// tokens are good for any machine.
func (b *bare) tokens(n int) []string {
	texts := make([]string, n)
	for i := range texts {
		var entropy [enroll.EntropySize]byte
		rand.Read(entropy[:])
		texts[i] = enroll.NewToken(entropy, b.ca.Pin()).Text()
	}
	return texts
}

// Identify gives every machine the same name; they differ in their UUIDs.
func (b *bare) Identify(context.Context, *nodev1.IdentifyRequest) (*nodev1.IdentifyResponse, error) {
	return &nodev1.IdentifyResponse{DnsName: "machine." + bareDomain, TrustDomain: bareDomain}, nil
}

// Enroll is not measured.
func (b *bare) Enroll(ctx context.Context, r *nodev1.EnrollRequest) (*nodev1.EnrollResponse, error) {
	var u pki.UUID
	rand.Read(u[:])
	id, err := pki.NewIdentity(bareDomain, u, "machine."+bareDomain)
	if err != nil {
		return nil, err
	}
	issued, err := b.issue(ctx, time.Now(), b.machine, r.GetCsr(), id)
	if err != nil {
		return nil, err
	}
	return &nodev1.EnrollResponse{Chain: issued.Chain(), TrustBundle: b.bundle}, nil
}

// Renew signs the certificate that the machine presented for its new key. Verifying is TLS's, of the request enroll's, and of
// what was signed x509's.
func (b *bare) Renew(ctx context.Context, r *nodev1.RenewRequest) (*nodev1.RenewResponse, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil, errors.New("a connection without a peer")
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok || len(info.State.VerifiedChains) == 0 {
		return nil, errors.New("a machine without a certificate")
	}
	request, err := enroll.ParseRequest(r.GetCsr())
	if err != nil {
		return nil, err
	}
	template := *info.State.PeerCertificates[0]
	var serial [16]byte
	rand.Read(serial[:])
	serial[0] &= 0x7f
	template.SerialNumber = new(big.Int).SetBytes(serial[:])
	template.SubjectKeyId = nil // that of the former key
	leaf, err := x509.CreateCertificate(rand.Reader, &template, b.ca.Issuing(), request.PublicKey, b.key)
	if err != nil {
		return nil, fmt.Errorf("renewing %v: %w", template.Subject, err)
	}
	return &nodev1.RenewResponse{Chain: [][]byte{leaf, b.ca.Issuing().Raw}, TrustBundle: b.bundle}, nil
}
