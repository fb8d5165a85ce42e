package authority

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/ca"
	"github.com/bailiwick-net/bailiwick/pki/journal"
	"github.com/bailiwick-net/bailiwick/pki/slots"
)

// kind is that of the events of this package in the journal.
const kind = "authority"

func inToken(kept string) bool { return strings.HasPrefix(kept, "pkcs11:") }

// begin makes the first state: from the folder, or anew.
func (k *Keeper) begin(ctx context.Context) error {
	if k.config.Folder != "" {
		files, err := ca.ReadFolder(k.config.Folder)
		if err == nil {
			return k.adopt(ctx, files)
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if !k.config.Init {
		return ErrNone
	}
	if k.config.OfflineRoot {
		return k.await(ctx)
	}
	root, err := k.config.CA.RootAlgorithm.GenerateKey()
	if err != nil {
		return fmt.Errorf("the root: %w", err)
	}
	now := k.config.Now()
	rootCert, err := ca.CertifyRoot(ctx, k.config.Store, now, k.config.CA, root)
	if err != nil {
		return err
	}
	slot, err := k.make(ctx, rootCert, root)
	if err != nil {
		return err
	}
	if err := k.config.Store.PutAuthorities(ctx, slots.Begin(now, slot), 0, event(slot, "CA made", "")); err != nil {
		return err
	}
	k.config.Log.Info("CA made", "ca", slot.ID, "trust-domain", k.config.CA.TrustDomain)
	return nil
}

// adopt takes over the CA of a folder. Its keys stay sealed as they are.
func (k *Keeper) adopt(ctx context.Context, files ca.Folder) error {
	key, err := pki.KeyIDOf(files.Issuing.PublicKey)
	if err != nil {
		return err
	}
	slot := slots.Slot{ID: slots.IDOf(key), Root: files.Root.Raw, Issuing: files.Issuing.Raw, Key: string(files.IssuingKey), RootKey: string(files.RootKey)}
	// Nothing is taken over that could not be used then.
	if _, err := k.openSlot(ctx, slot); err != nil {
		return err
	}
	if err := k.config.Store.PutAuthorities(ctx, slots.Begin(k.config.Now(), slot), 0, event(slot, "CA taken over from a folder", "")); err != nil {
		return err
	}
	k.config.Log.Info("CA taken over into the store, sealed as it was; the folder is of no more use", "ca", slot.ID, "folder", k.config.Folder)
	return nil
}

// await makes the issuing key and a request for its certificate.
func (k *Keeper) await(ctx context.Context) error {
	slot, err := k.request(ctx)
	if err != nil {
		return err
	}
	return k.config.Store.PutAuthorities(ctx, slots.Await(k.config.Now(), slot), 0, event(slot, "CA requested from a root that is kept off line", ""))
}

// make makes an issuing CA below a root whose key is at hand.
func (k *Keeper) make(ctx context.Context, root *x509.Certificate, rootKey crypto.Signer) (slots.Slot, error) {
	slot, key, err := k.newKey(ctx)
	if err != nil {
		return slots.Slot{}, err
	}
	issuing, err := ca.CertifyIssuing(ctx, k.config.Store, k.config.Now(), k.config.CA, root, rootKey, key.Public())
	if err != nil {
		return slots.Slot{}, err
	}
	sealed, err := ca.SealKey(rootKey, k.config.Unlock)
	if err != nil {
		return slots.Slot{}, err
	}
	slot.Root, slot.Issuing, slot.RootKey = root.Raw, issuing.Raw, string(sealed)
	return slot, nil
}

// request makes an issuing key, and a request that its certificate can be made from.
func (k *Keeper) request(ctx context.Context) (slots.Slot, error) {
	slot, key, err := k.newKey(ctx)
	if err != nil {
		return slots.Slot{}, err
	}
	slot.Request, err = x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: "Bailiwick issuing CA " + slot.ID[:8], Organization: []string{k.config.CA.TrustDomain}},
	}, key)
	if err != nil {
		return slots.Slot{}, fmt.Errorf("signing the request of the CA %s: %w", slot.ID, err)
	}
	return slot, nil
}

// newKey makes an issuing key where issuing keys are kept.
func (k *Keeper) newKey(ctx context.Context) (slots.Slot, crypto.Signer, error) {
	var kept string
	var key crypto.Signer
	var err error
	if k.config.Tokens != nil {
		if kept, key, err = k.config.Tokens.Generate(ctx, k.config.CA.Algorithm); err != nil {
			return slots.Slot{}, nil, fmt.Errorf("making the issuing key in the token: %w", err)
		}
	} else {
		if key, err = k.config.CA.Algorithm.GenerateKey(); err != nil {
			return slots.Slot{}, nil, err
		}
		sealed, err := ca.SealKey(key, k.config.Unlock)
		if err != nil {
			return slots.Slot{}, nil, err
		}
		kept = string(sealed)
	}
	id, err := pki.KeyIDOf(key.Public())
	if err != nil {
		return slots.Slot{}, nil, err
	}
	return slots.Slot{ID: slots.IDOf(id), Key: kept}, key, nil
}

// event is the record of a step.
func event(slot slots.Slot, what, by string) journal.Event {
	return journal.Event{Kind: kind, What: what + ": " + slot.ID, By: by}
}
