package authority

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/bailiwick-net/bailiwick/pki/ca"
	"github.com/bailiwick-net/bailiwick/pki/slots"
	"github.com/bailiwick-net/bailiwick/pki/trust"
)

// step takes one step of a rotation: next makes the state that follows, and says what happened. It returns when the store
// has it, memory follows it, and whoever is told of changes was.
func (k *Keeper) step(ctx context.Context, by string, next func(slots.State) (slots.State, slots.Slot, string, error)) (slots.Slot, error) {
	if err := k.enter(ctx); err != nil {
		return slots.Slot{}, err
	}
	defer k.leave()
	state, revision, err := k.config.Store.Authorities(ctx)
	if err != nil {
		return slots.Slot{}, err
	}
	if err := k.catchUp(ctx, revision); err != nil {
		// The step may be what mends it.
		k.config.Log.Warn("a step is taken by a controller that does not follow the one before", "error", err)
	}
	if err := state.Check(); err != nil {
		return slots.Slot{}, err
	}
	after, slot, what, err := next(state)
	if err != nil {
		return slots.Slot{}, err
	}
	if err := k.config.Store.PutAuthorities(ctx, after, revision, event(slot, what, by)); err != nil {
		return slots.Slot{}, err
	}
	k.config.Log.Warn("the CAs of the fleet changed", "ca", slot.ID, "step", what, "by", by)
	if err := k.follow(ctx); err != nil {
		return slots.Slot{}, fmt.Errorf("%s is done, but this controller does not follow it yet, and looks again: %w", what, err)
	}
	slot, _ = after.Slot(slot.ID)
	return slot, nil
}

// Preparation says how to prepare a rotation.
type Preparation struct {
	// Root asks for a new root as well.
	Root bool
	// Emergency asks for no bridge from the root before, which is not to be trusted any more.
	Emergency bool
	By        string
}

// PrepareNext makes the next CA, which is trusted from now on and issues nothing yet. Below a root that is kept off line it is
// requested only: its Request is to be signed there, and given to Certify.
func (k *Keeper) PrepareNext(ctx context.Context, p Preparation) (slots.Slot, error) {
	return k.step(ctx, p.By, func(state slots.State) (slots.State, slots.Slot, string, error) {
		// Before keys are made, and certificates recorded, for nothing.
		if _, err := state.Add(k.config.Now(), slots.Slot{ID: "next"}); err != nil {
			return slots.State{}, slots.Slot{}, "", err
		}
		slot, what, err := k.next(ctx, state, p)
		if err != nil {
			return slots.State{}, slots.Slot{}, "", err
		}
		after, err := state.Add(k.config.Now(), slot)
		return after, slot, what, err
	})
}

func (k *Keeper) next(ctx context.Context, state slots.State, p Preparation) (slots.Slot, string, error) {
	active := state.Active()
	if active.RootKey == "" {
		// A root that is kept off line is replaced there as well: its answer brings the certificate of whichever signed.
		slot, err := k.request(ctx)
		return slot, "CA requested from a root that is kept off line", err
	}
	rootKey, err := ca.OpenKey([]byte(active.RootKey), k.config.Unlock)
	if err != nil {
		return slots.Slot{}, "", fmt.Errorf("the root's key: %w: %w", ErrKey, err)
	}
	root, err := trust.ParseCertificate(active.Root)
	if err != nil {
		return slots.Slot{}, "", err
	}
	if !p.Root {
		slot, err := k.make(ctx, root, rootKey)
		return slot, "issuing CA prepared", err
	}
	nextKey, err := k.config.CA.RootAlgorithm.GenerateKey()
	if err != nil {
		return slots.Slot{}, "", err
	}
	nextRoot, err := ca.CertifyRoot(ctx, k.config.Store, k.config.Now(), k.config.CA, nextKey)
	if err != nil {
		return slots.Slot{}, "", err
	}
	slot, err := k.make(ctx, nextRoot, nextKey)
	if err != nil || p.Emergency {
		return slot, "root and issuing CA prepared, without a bridge", err
	}
	issuing, err := trust.ParseCertificate(slot.Issuing)
	if err != nil {
		return slots.Slot{}, "", err
	}
	bridge, err := ca.CertifyIssuing(ctx, k.config.Store, k.config.Now(), k.config.CA, root, rootKey, issuing.PublicKey)
	switch {
	case errors.Is(err, ca.ErrIssuerValidity):
		k.config.Log.Warn("the root ends too soon to vouch for its successor, there is no bridge", "error", err)
	case err != nil:
		return slots.Slot{}, "", err
	default:
		slot.Bridge = bridge.Raw
	}
	return slot, "root and issuing CA prepared", nil
}

// Certify completes a requested CA with what the root answered: its certificate and the root's, in PEM. Where the root is replaced,
// the answer of the root before to the same request makes the bridge.
func (k *Keeper) Certify(ctx context.Context, certificates []byte, by string) (slots.Slot, error) {
	return k.step(ctx, by, func(state slots.State) (slots.State, slots.Slot, string, error) {
		return k.certified(ctx, state, certificates)
	})
}

// certify is Certify for the first CA, while there is none to load.
func (k *Keeper) certify(ctx context.Context, state slots.State, revision int64, certificates []byte, by string) error {
	after, slot, what, err := k.certified(ctx, state, certificates)
	if err != nil {
		return err
	}
	return k.config.Store.PutAuthorities(ctx, after, revision, event(slot, what, by))
}

func (k *Keeper) certified(ctx context.Context, state slots.State, certificates []byte) (slots.State, slots.Slot, string, error) {
	refused := func(err error) (slots.State, slots.Slot, string, error) {
		return slots.State{}, slots.Slot{}, "", err
	}
	coming, ok := state.Coming()
	if !ok || coming.Status != slots.Requested {
		return refused(fmt.Errorf("no CA waits for a certificate: %w", slots.ErrStep))
	}
	bundle, err := trust.ParseBundlePEM(0, certificates)
	if err != nil {
		return refused(fmt.Errorf("the certificates of the root's answer: %w: %w", ca.ErrAuthority, err))
	}
	parts, err := answerOf(bundle, state)
	if err != nil {
		return refused(err)
	}
	key, err := k.openKey(ctx, coming.Key)
	if err != nil {
		return refused(err)
	}
	for _, part := range parts {
		// It refuses a certificate for another key, and one that the root did not sign.
		made, err := ca.New(part.root, part.issuing, key, k.config.Store)
		if err != nil {
			return refused(err)
		}
		if err := ca.CheckIssuing(part.root, part.issuing, k.config.CA); err != nil {
			return refused(err)
		}
		// The list of its root may say so before anybody asks for it to be trusted.
		if err := k.revoked().CheckPath([]*x509.Certificate{part.issuing, part.root}); err != nil {
			return refused(fmt.Errorf("the issuing CA's certificate: %w: %w", ca.ErrAuthority, err))
		}
		if left := made.Remaining(k.config.Now()); left <= 0 {
			return refused(fmt.Errorf("the issuing CA's certificate by %q ended %v ago: %w", part.root.Subject, -left, ca.ErrAuthority))
		}
	}
	certified := slots.Certificates{Root: parts[0].root.Raw, Issuing: parts[0].issuing.Raw}
	if len(parts) > 1 {
		certified.Bridge = parts[1].issuing.Raw
	}
	after, err := state.Certify(k.config.Now(), coming.ID, certified)
	return after, coming, "CA certified by a root that is kept off line", err
}

// part is what one root answered.
type part struct{ root, issuing *x509.Certificate }

// answerOf takes an answer apart: a root with an issuing CA, or, where a root is replaced, first those that are to come and then
// what the root before says of the same issuing CA.
func answerOf(answer trust.Bundle, state slots.State) ([]part, error) {
	roots, issuers := answer.Roots(), answer.Intermediates()
	if len(roots) != len(issuers) || len(roots) < 1 || len(roots) > 2 {
		return nil, fmt.Errorf("the root's answer has %d roots and %d issuing CAs, wanted one of each, or two where the root before signed as well: %w",
			len(roots), len(issuers), ca.ErrAuthority)
	}
	var parts []part
	former := 0
	for _, root := range roots {
		i := slices.IndexFunc(issuers, func(c *x509.Certificate) bool { return bytes.Equal(c.RawIssuer, root.RawSubject) })
		if i < 0 {
			return nil, fmt.Errorf("the answer has no issuing CA of its root %q: %w", root.Subject, ca.ErrAuthority)
		}
		if state.Trusts(root) {
			former++
			parts = append(parts, part{root, issuers[i]})
		} else {
			parts = slices.Insert(parts, 0, part{root, issuers[i]})
		}
	}
	if len(parts) == 2 && former != 1 {
		return nil, fmt.Errorf("of the two roots in the answer %d are trusted by the fleet, wanted one, which vouches for the other's issuing CA: %w", former, ca.ErrAuthority)
	}
	return parts, nil
}

// Activate makes the prepared CA issue. lagging are the nodes that do not trust it yet; with any it is refused, unless
// emergency says that it must be.
func (k *Keeper) Activate(ctx context.Context, lagging []string, emergency bool, by string) (slots.Slot, error) {
	return k.step(ctx, by, func(state slots.State) (slots.State, slots.Slot, string, error) {
		coming, ok := state.Coming()
		if !ok {
			return slots.State{}, slots.Slot{}, "", fmt.Errorf("no CA is prepared: %w", slots.ErrStep)
		}
		if len(lagging) > 0 && !emergency {
			return slots.State{}, slots.Slot{}, "", fmt.Errorf("%d nodes do not trust the CA %s yet, as %s; they could not believe peers with its certificates: %w",
				len(lagging), coming.ID, some(lagging), ErrNotReady)
		}
		after, err := state.Activate(k.config.Now(), coming.ID)
		what := "CA activated"
		if len(lagging) > 0 {
			what = fmt.Sprintf("CA activated in an emergency, before %d nodes trusted it", len(lagging))
		}
		return after, coming, what, err
	})
}

// Retire ends the trust in a CA. It is refused while certificates of it count, or are all that a machine has to renew with,
// unless emergency says that they shall not.
func (k *Keeper) Retire(ctx context.Context, id string, emergency bool, by string) (slots.Slot, error) {
	return k.step(ctx, by, func(state slots.State) (slots.State, slots.Slot, string, error) {
		slot, ok := state.Slot(id)
		if !ok {
			return slots.State{}, slots.Slot{}, "", fmt.Errorf("there is no CA %q: %w", id, slots.ErrStep)
		}
		uses, err := k.Uses(ctx)
		if err != nil {
			return slots.State{}, slots.Slot{}, "", err
		}
		use := uses[id]
		if use.Certificates > 0 && slot.Status == slots.Superseded && !emergency {
			return slots.State{}, slots.Slot{}, "", fmt.Errorf("%d certificates of the CA %s count or may still be renewed, the last until %s, as those of %s: %w",
				use.Certificates, id, use.Until.UTC().Format(time.RFC3339), some(use.Subjects), ErrNotReady)
		}
		after, err := state.Retire(k.config.Now(), id)
		what := "CA retired"
		if use.Certificates > 0 {
			what = fmt.Sprintf("CA retired in an emergency, with %d certificates", use.Certificates)
		}
		return after, slot, what, err
	})
}

func some(names []string) string {
	if len(names) > someSubjects {
		return fmt.Sprintf("%q and others", names[:someSubjects])
	}
	return fmt.Sprintf("%q", names)
}

// RequestPEM is a request as a file.
func RequestPEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}
