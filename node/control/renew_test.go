package control

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/bailiwick-net/bailiwick/node/identity"
	"github.com/bailiwick-net/bailiwick/pki/ca"
	"github.com/bailiwick-net/bailiwick/pki/catest"
	nodev1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/node/v1"
)

// Renew answers a renewal with the trust bundle alone, after looking at who asks.
func (d *desk) Renew(ctx context.Context, r *nodev1.RenewRequest) (*nodev1.RenewResponse, error) {
	p, _ := peer.FromContext(ctx)
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok || len(info.State.PeerCertificates) == 0 {
		return nil, status.Error(codes.Unauthenticated, "no certificate")
	}
	return &nodev1.RenewResponse{Chain: [][]byte{r.GetCsr()}, TrustBundle: d.ca.Bundle().Append(nil)}, nil
}

// A certificate that has ended opens no session, so that the renewal has to do without one; a good one waits for a session.
func TestRenewalWithoutASession(t *testing.T) {
	d := newDesk(t)
	address, _ := d.open(t, "127.0.0.1:0", d.certificate(t))
	profile, err := ca.NewProfile(ca.Machine, ca.ProfileConfig{Lifetime: 24 * time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	id := catest.Identity(t, "sql1.bank.example")
	c := identity.Credentials{Identity: id, Key: key, Trust: d.ca.Bundle(), Controllers: []string{"127.0.0.1:1", address}}
	issued := d.ca.Sign(t, profile, key, id)
	c.Chain = append(c.Chain, issued.Leaf, issued.Issuers[0])
	now := time.Now()
	client := New(Config{Credentials: func() identity.Credentials { return c }, Now: func() time.Time { return now }, Logger: hclog.NewNullLogger()})
	if _, err := client.Renew(t.Context(), []byte("request")); !errors.Is(err, ErrUnreachable) {
		t.Errorf("a good certificate without a session: %v, want ErrUnreachable", err)
	}
	now = now.Add(25 * time.Hour)
	got, err := client.Renew(t.Context(), []byte("request"))
	if err != nil || len(got.Chain) != 1 || string(got.Chain[0]) != "request" {
		t.Errorf("an ended certificate: %v, error %v; want the answer of the second controller", got, err)
	}
}
