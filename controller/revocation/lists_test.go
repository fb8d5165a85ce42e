package revocation

import (
	"context"
	"crypto"
	"crypto/x509"
	"math/big"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/bailiwick-net/bailiwick/controller/store"
	"github.com/bailiwick-net/bailiwick/pki/ca"
	"github.com/bailiwick-net/bailiwick/pki/catest"
	"github.com/bailiwick-net/bailiwick/pki/revocation"
)

// numbers is a store that gives numbers to whoever still listens, and has issued nothing.
type numbers struct {
	Store
	last uint64
}

func (n *numbers) NextCRLNumber(ctx context.Context) (uint64, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	n.last++
	return n.last, nil
}

func (*numbers) IndexIssuances(context.Context) error { return nil }

func (*numbers) RootLists(context.Context) ([]store.RootList, error) { return nil, nil }

func (*numbers) Revocations(context.Context) (store.Revocations, error) {
	return store.Revocations{}, nil
}

func (*numbers) Issuance(context.Context, string) (ca.Entry, error) {
	return ca.Entry{}, store.ErrNotFound
}

// A stranger who hangs up at once, again and again, must not keep what was revoked since from the list.
func TestListIsMadeWhoeverHangsUp(t *testing.T) {
	authority := catest.New(t)
	k, err := Open(t.Context(), Config{Store: &numbers{}, Issuers: func() []Issuer { return []Issuer{authority} }})
	if err != nil {
		t.Fatal(err)
	}
	gone, hangUp := context.WithCancel(t.Context())
	hangUp()
	list, err := k.List(gone, revocation.Whole(authority.IssuerKeyID()))
	if err != nil {
		t.Fatalf("the list was not made: %v", err)
	}
	if _, err := x509.ParseRevocationList(list.DER); err != nil {
		t.Error(err)
	}
}

// A response is good for no longer than the certificate of its signer.
func TestResponseEndsWithItsSigner(t *testing.T) {
	authority := catest.New(t)
	now := time.Now().UTC().Truncate(time.Second)
	signer := authority.Machine(t, catest.Identity(t, "sql1.bank.example")) // any certificate with an end
	key, ok := signer.PrivateKey.(crypto.Signer)
	if !ok {
		t.Fatal("the machine has no key")
	}
	end := signer.Leaf.NotAfter
	k, err := Open(t.Context(), Config{
		Store: &numbers{}, Issuers: func() []Issuer { return []Issuer{authority} }, ResponseLifetime: end.Sub(now) + 24*time.Hour, Now: func() time.Time { return now },
		Responder: func(context.Context, Issuer) (Responder, error) { return Responder{signer.Leaf, key}, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	request, err := ocsp.CreateRequest(&x509.Certificate{SerialNumber: big.NewInt(7)}, authority.Issuing(), &ocsp.RequestOptions{Hash: crypto.SHA256})
	if err != nil {
		t.Fatal(err)
	}
	der, cacheable := k.Answer(t.Context(), request)
	response, err := ocsp.ParseResponse(der, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !response.NextUpdate.Equal(end) || cacheable > end.Sub(now) {
		t.Errorf("the response is good until %v and may be kept for %v, its signer ends %v", response.NextUpdate, cacheable, end)
	}
}
