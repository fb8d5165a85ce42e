package revocation

import (
	"context"
	"crypto/rand"
	"errors"
	"time"

	"github.com/bailiwick-net/bailiwick/controller/store"
	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/revocation"
)

const (
	// maxResponses bounds the responses that are made at once: strangers ask, and each costs a signature.
	maxResponses = 8
	// responseWait is how long a request waits for one of these places.
	responseWait = time.Second
	// responseWork bounds the reading for one response.
	responseWork = 5 * time.Second
)

// Answer answers an OCSP request. cacheable says for how long anybody may repeat the answer; 0 is not at all.
func (k *Keeper) Answer(ctx context.Context, der []byte) (response []byte, cacheable time.Duration) {
	request, err := revocation.ParseRequest(der)
	if err != nil {
		return revocation.MalformedRequest.Append(nil), 0
	}
	wait := time.NewTimer(responseWait)
	defer wait.Stop()
	select {
	case k.busy <- struct{}{}:
		defer func() { <-k.busy }()
	case <-wait.C:
		return revocation.TryLater.Append(nil), 0
	case <-ctx.Done():
		return revocation.TryLater.Append(nil), 0
	}
	ctx, cancel := context.WithTimeout(ctx, responseWork)
	defer cancel()
	now := k.config.Now()
	out := revocation.Response{Nonce: request.Nonce, ProducedAt: now, ThisUpdate: now, NextUpdate: now.Add(k.config.ResponseLifetime)}
	var by Issuer
	for _, id := range request.Certificates {
		issuer, ok := k.issuer(func(i Issuer) bool { return id.Matches(i.Issuing()) })
		// A responder speaks for the CA that issued its certificate, and for no other (RFC 6960 4.2.2.2); a response has
		// one responder.
		if !ok || by != nil && by.IssuerKeyID() != issuer.IssuerKeyID() {
			return revocation.Unauthorized.Append(nil), 0
		}
		by = issuer
		single, err := k.answerOne(ctx, issuer.IssuerKeyID(), id)
		if err != nil {
			k.config.Log.Error("OCSP request cannot be answered", "serial", id.Serial.Text(16), "error", err)
			return revocation.TryLater.Append(nil), 0
		}
		out.Answers = append(out.Answers, single)
	}
	responder, err := k.config.Responder(ctx, by)
	if err != nil {
		k.config.Log.Error("OCSP has nobody who signs its responses", "error", err)
		return revocation.TryLater.Append(nil), 0
	}
	// Nobody believes the response longer than its signer (RFC 6960 4.2.2.2), so nobody may keep it longer.
	if end := responder.Certificate.NotAfter; out.NextUpdate.After(end) {
		out.NextUpdate = end
	}
	der, err = out.Sign(rand.Reader, responder.Certificate, responder.Key)
	if err != nil {
		k.config.Log.Error("OCSP response cannot be signed", "error", err)
		return revocation.InternalError.Append(nil), 0
	}
	if request.Nonce == nil {
		cacheable = out.NextUpdate.Sub(now) / 4
	}
	return der, cacheable
}

// answerOne looks a certificate up. What was never issued is unknown, never good.
func (k *Keeper) answerOne(ctx context.Context, issuer pki.KeyID, id revocation.CertID) (revocation.Single, error) {
	out := revocation.Single{ID: id}
	if !revocation.IsSerial(id.Serial) {
		return out, nil
	}
	serial := id.Serial.Text(16) // as the journal spells it
	if r, ok := k.Record(serial); ok && r.Issuer == issuer {
		reason, err := revocation.ParseReason(r.Reason)
		if err != nil {
			reason = revocation.Unspecified
		}
		out.State, out.At, out.Reason = revocation.Revoked, r.At, reason
		return out, nil
	}
	e, err := k.config.Store.Issuance(ctx, serial)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return out, nil
	case err != nil:
		return out, err
	case e.Intention.Issuer == issuer:
		out.State = revocation.Good
	}
	return out, nil
}
