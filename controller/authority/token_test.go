//go:build cgo

package authority_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	cryptoki "github.com/miekg/pkcs11"

	"github.com/bailiwick-net/bailiwick/controller/authority"
	"github.com/bailiwick-net/bailiwick/pki/ca"
	"github.com/bailiwick-net/bailiwick/pki/pkcs11"
)

const softHSM = "/usr/lib/softhsm/libsofthsm2.so"

// token makes a token of SoftHSM and loads the module.
func token(t *testing.T) pkcs11.Config {
	t.Helper()
	if _, err := os.Stat(softHSM); err != nil {
		t.Fatalf("the Debian package softhsm2 is needed: %v", err)
	}
	dir := t.TempDir()
	conf := filepath.Join(dir, "softhsm2.conf")
	if err := os.WriteFile(conf, []byte("directories.tokendir = "+dir+"\nobjectstore.backend = file\nlog.level = ERROR\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SOFTHSM2_CONF", conf)
	out, err := exec.CommandContext(t.Context(), "softhsm2-util", "--init-token", "--free", "--label", "the fleet", "--pin", "123456", "--so-pin", "654321").CombinedOutput()
	if err != nil {
		t.Fatalf("making a token: %v\n%s", err, out)
	}
	return pkcs11.Config{Module: softHSM, Token: "the fleet", PIN: "123456"}
}

// An issuing key in a token certifies, is rotated, and is found again by the next controller; the store has its name alone.
func TestIssuingKeyInAToken(t *testing.T) {
	tokenConfig := token(t)
	wrong := tokenConfig
	wrong.PIN = "000000"
	if m, err := pkcs11.Load(wrong); !errors.Is(err, pkcs11.ErrToken) {
		t.Errorf("a wrong PIN gave %v, %v, want ErrToken", m, err)
	}
	wrong = tokenConfig
	wrong.Token = "another fleet"
	if m, err := pkcs11.Load(wrong); !errors.Is(err, pkcs11.ErrToken) || !strings.Contains(err.Error(), `"the fleet"`) {
		t.Errorf("a wrong label gave %v, %v, want ErrToken that names what there is", m, err)
	}
	wrong.Module = "/nowhere.so"
	if m, err := pkcs11.Load(wrong); !errors.Is(err, pkcs11.ErrNoModule) {
		t.Errorf("a module that is not there gave %v, %v, want ErrNoModule", m, err)
	}
	for _, algorithm := range []ca.Algorithm{ca.ECDSAP256, ca.ECDSAP384, ca.RSA3072} {
		t.Run(algorithm.String(), func(t *testing.T) {
			m, err := pkcs11.Load(tokenConfig)
			if err != nil {
				t.Fatal(err)
			}
			s := newSpace(t)
			config := s.config()
			config.Tokens, config.CA.Algorithm = m, algorithm
			k, err := authority.Open(t.Context(), config)
			if err != nil {
				t.Fatal(err)
			}
			if kept := k.State().Active().Key; !strings.HasPrefix(kept, "pkcs11:token=the%20fleet;id=") {
				t.Errorf("the store has %q", kept)
			}
			if !believes(t, s.now, k.Trust(), mustIssue(t, s, k).Chain()) {
				t.Error("what a key in a token signed is not believed")
			}
			if _, err := k.PrepareNext(t.Context(), authority.Preparation{}); err != nil {
				t.Fatal(err)
			}
			if _, err := k.Activate(t.Context(), nil, false, ""); err != nil {
				t.Fatal(err)
			}
			if err := m.Close(); err != nil {
				t.Fatal(err)
			}
			// Without the module the next start says what is missing, with it it finds the key.
			config.Tokens = nil
			if _, err := authority.Open(t.Context(), config); !errors.Is(err, authority.ErrKey) || !strings.Contains(err.Error(), "ca.pkcs11") {
				t.Errorf("a start without a module gave %v, want ErrKey that names the setting", err)
			}
			if m, err = pkcs11.Load(tokenConfig); err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			config.Tokens = m
			if k, err = authority.Open(t.Context(), config); err != nil {
				t.Fatal(err)
			}
			if !believes(t, s.now, k.Trust(), mustIssue(t, s, k).Chain()) {
				t.Error("what the second key signed is not believed")
			}
			if _, err := m.Open(t.Context(), "pkcs11:token=the%20fleet;id=%00%11;type=private"); !errors.Is(err, pkcs11.ErrKey) {
				t.Errorf("a key that is not there gave %v, want ErrKey", err)
			}
		})
	}
}

// The PIN of a token was changed while the controller runs: it shows the wrong one once, when its session is gone, and never
// again by itself, whatever asks for signatures.
func TestWrongPINIsShownOnce(t *testing.T) {
	const right, other = "123456", "999999"
	config := token(t)
	m, err := pkcs11.Load(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	uri, _, err := m.Generate(t.Context(), ca.ECDSAP256)
	if err != nil {
		t.Fatal(err)
	}
	// The same library again: its sessions are those of the process.
	module := cryptoki.New(softHSM)
	slot := tokenSlot(t, module, config.Token)
	change := func(from, to string) {
		t.Helper()
		if err := module.CloseAllSessions(slot); err != nil {
			t.Fatal(err)
		}
		session, err := module.OpenSession(slot, cryptoki.CKF_SERIAL_SESSION|cryptoki.CKF_RW_SESSION)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(module.Login(session, cryptoki.CKU_USER, from), module.SetPIN(session, from, to), module.CloseAllSessions(slot)); err != nil {
			t.Fatal(err)
		}
	}
	// A session that is gone is opened anew.
	change(right, right)
	if _, err := m.Open(t.Context(), uri); err != nil {
		t.Fatalf("after its session was closed: %v", err)
	}
	change(right, other)
	if _, err := m.Open(t.Context(), uri); !errors.Is(err, pkcs11.ErrPIN) {
		t.Fatalf("with a PIN that was changed: %v, want ErrPIN", err)
	}
	// Another attempt would succeed now, so there is none.
	change(other, right)
	for range 3 {
		if _, err := m.Open(t.Context(), uri); !errors.Is(err, pkcs11.ErrPIN) || !errors.Is(err, pkcs11.ErrToken) {
			t.Fatalf("after the token refused the PIN: %v, want ErrPIN without another attempt", err)
		}
	}
}

// tokenSlot finds the slot of a token.
func tokenSlot(t *testing.T, module *cryptoki.Ctx, label string) uint {
	t.Helper()
	present, err := module.GetSlotList(true)
	if err != nil {
		t.Fatal(err)
	}
	for _, slot := range present {
		if info, err := module.GetTokenInfo(slot); err == nil && strings.TrimRight(info.Label, " \x00") == label {
			return slot
		}
	}
	t.Fatalf("no token %q", label)
	return 0
}
