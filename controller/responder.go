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
	failed  map[pki.KeyID]failure
}

// failure is an attempt that came to nothing.
type failure struct {
	at  time.Time
	err error
}

// retryResponder is how long an issuer that failed is left alone: every attempt is a record in the journal for good, and
// strangers decide how often they ask.
const retryResponder = 30 * time.Second

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
	err := r.failed[id].err
	if since := now.Sub(r.failed[id].at); err == nil || since < 0 || since >= retryResponder {
		var next revocation.Responder
		if next, err = r.issue(ctx, issuer); err == nil {
			r.present[id] = next
			delete(r.failed, id)
			return next, nil
		}
		r.failed[id] = failure{now, err}
		r.log.Error("the OCSP responder gets no certificate, one that it has is used as long as it counts", "retry", retryResponder, "error", err)
	}
	if ok && now.Before(present.Certificate.NotAfter) {
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
