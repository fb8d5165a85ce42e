package controller

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/bailiwick-net/bailiwick/controller/revocation"
	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/ca"
	"github.com/bailiwick-net/bailiwick/pki/enroll"
)

// responders are the certificates with which OCSP responses are signed, one for each CA that certificates were issued by.
// Their keys live in memory alone, so that strangers' requests never reach the key of a CA.
type responders struct {
	profile ca.Profile
	subject pki.Controller
	now     func() time.Time
	log     hclog.Logger
	mu      sync.Mutex
	present map[pki.KeyID]revocation.Responder
}

// signing is a CA that issues.
type signing interface {
	Prepare(now time.Time, profile ca.Profile, request enroll.Request, subject pki.Subject) (*ca.Prepared, error)
	Issue(ctx context.Context, p *ca.Prepared) (ca.Issued, error)
}

// get returns the responder of an issuer: a new one when the present one has lived half its life.
func (r *responders) get(ctx context.Context, issuer revocation.Issuer) (revocation.Responder, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now, id := r.now(), issuer.IssuerKeyID()
	present, ok := r.present[id]
	if ok {
		leaf := present.Certificate
		if now.Before(leaf.NotBefore.Add(leaf.NotAfter.Sub(leaf.NotBefore)/2)) && !now.Before(leaf.NotBefore) {
			return present, nil
		}
	}
	next, err := r.issue(ctx, issuer)
	switch {
	case err == nil:
		r.present[id] = next
		return next, nil
	case ok && now.Before(present.Certificate.NotAfter):
		r.log.Error("cannot renew the certificate of the OCSP responder, the present one is used", "not-after", present.Certificate.NotAfter, "error", err)
		return present, nil
	}
	return revocation.Responder{}, err
}

func (r *responders) issue(ctx context.Context, issuer revocation.Issuer) (revocation.Responder, error) {
	authority, ok := issuer.(signing)
	if !ok {
		return revocation.Responder{}, fmt.Errorf("the CA %q issues nothing", issuer.Issuing().Subject)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return revocation.Responder{}, fmt.Errorf("making the OCSP responder's key: %w", err)
	}
	csr, err := enroll.NewRequest(key, r.subject)
	if err != nil {
		return revocation.Responder{}, err
	}
	request, err := enroll.ParseRequest(csr)
	if err != nil {
		return revocation.Responder{}, err
	}
	prepared, err := authority.Prepare(r.now(), r.profile, request, r.subject)
	if err != nil {
		return revocation.Responder{}, fmt.Errorf("preparing the OCSP responder's certificate: %w", err)
	}
	// A stranger who hangs up must not leave a half-issued certificate behind.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	issued, err := authority.Issue(ctx, prepared)
	if err != nil {
		return revocation.Responder{}, err
	}
	r.log.Info("certificate of the OCSP responder issued", "issuer", issuer.Issuing().Subject, "not-after", issued.Leaf.NotAfter.Format(time.RFC3339))
	return revocation.Responder{Certificate: issued.Leaf, Key: key}, nil
}
