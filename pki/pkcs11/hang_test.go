//go:build cgo

package pkcs11

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/pkcs11"
)

// A token that hangs in the middle of something holds nobody for longer than the bound, neither who asked nor who asks next;
// when it comes back it is used as before.
func TestTokenThatHangsHoldsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &Module{turn: make(chan struct{}, 1)}
		m.guarded.module, m.guarded.open = &pkcs11.Ctx{}, true
		back := make(chan struct{})
		began := time.Now()
		if err := m.with(t.Context(), patience, func(*pkcs11.Ctx, pkcs11.SessionHandle) error { <-back; return nil }); !errors.Is(err, ErrSilent) {
			t.Errorf("whoever asked got %v, want ErrSilent", err)
		}
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		digest := sha256.Sum256(nil)
		if _, err := (&signer{module: m, public: key.Public()}).Sign(nil, digest[:], crypto.SHA256); !errors.Is(err, ErrSilent) || !errors.Is(err, ErrToken) {
			t.Errorf("a signature for who asked next gave %v, want ErrToken and ErrSilent", err)
		}
		if err := m.Close(); !errors.Is(err, ErrSilent) {
			t.Errorf("closing gave %v, want ErrSilent", err)
		}
		if took := time.Since(began); took != 3*patience {
			t.Errorf("three calls waited %v, want %v", took, 3*patience)
		}
		close(back)
		synctest.Wait()
		ran := false
		if err := m.with(t.Context(), patience, func(*pkcs11.Ctx, pkcs11.SessionHandle) error { ran = true; return nil }); err != nil || !ran {
			t.Errorf("when the token was back: %v, ran %v", err, ran)
		}
	})
}
