package tpm

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/bailiwick-net/bailiwick/e2e/lab/swtpm"
)

func start(t *testing.T) (*swtpm.TPM, *Device) {
	t.Helper()
	chip := swtpm.ForTest(t)
	return chip, New(chip.Device)
}

func newKey(t *testing.T, d *Device, curve elliptic.Curve) *Key {
	t.Helper()
	key, err := d.NewKey(curve)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// again is the key as another process reads it.
func again(t *testing.T, k *Key, path string) *Key {
	t.Helper()
	blocks := k.PEM()
	read, err := New(path).Key(blocks[0].Bytes, blocks[1].Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return read
}

// wantSignature has the key sign, and the public key tell whether it did.
func wantSignature(t *testing.T, k *Key) {
	t.Helper()
	digest := sha256.Sum256([]byte(t.Name()))
	signature, err := k.Sign(rand.Reader, digest[:], crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	if !ecdsa.VerifyASN1(k.Public().(*ecdsa.PublicKey), digest[:], signature) {
		t.Fatal("the signature is not by the key")
	}
}

// wantFailure has the key sign, which fails with what is to be done.
func wantFailure(t *testing.T, k *Key, want error, advice string) {
	t.Helper()
	digest := sha256.Sum256(nil)
	_, err := k.Sign(rand.Reader, digest[:], crypto.SHA256)
	if !errors.Is(err, want) || !strings.Contains(err.Error(), advice) || !strings.Contains(err.Error(), k.Device().Path()) {
		t.Fatalf("sign: %v; want %v, the device and %q", err, want, advice)
	}
	if k.Device().Failure() == nil {
		t.Error("the device tells no failure")
	}
}

func TestKeysSignWithEveryHash(t *testing.T) {
	_, device := start(t)
	for _, curve := range []elliptic.Curve{elliptic.P256(), elliptic.P384()} {
		key := newKey(t, device, curve)
		if public := key.Public().(*ecdsa.PublicKey); public.Curve != curve {
			t.Errorf("the key is on %s, want %s", public.Params().Name, curve.Params().Name)
		}
		short, middle, long := sha256.Sum256([]byte("1")), sha512.Sum384([]byte("2")), sha512.Sum512([]byte("3"))
		for hash, digest := range map[crypto.Hash][]byte{crypto.SHA256: short[:], crypto.SHA384: middle[:], crypto.SHA512: long[:]} {
			signature, err := key.Sign(rand.Reader, digest, hash)
			if err != nil || !ecdsa.VerifyASN1(key.Public().(*ecdsa.PublicKey), digest, signature) {
				t.Errorf("%s with %v: %v, or another's signature", curve.Params().Name, hash, err)
			}
		}
		for hash, digest := range map[crypto.Hash][]byte{crypto.SHA1: short[:20], crypto.SHA384: short[:], 0: short[:]} {
			if _, err := key.Sign(rand.Reader, digest, hash); err == nil {
				t.Errorf("%s signed %d octets by %v", curve.Params().Name, len(digest), hash)
			}
		}
	}
	if _, err := device.NewKey(elliptic.P521()); !errors.Is(err, ErrFormat) {
		t.Errorf("a key on P-521: %v, want ErrFormat", err)
	}
}

// TestKeySurvivesRestarts uses one key as a process after the other does, some of which were killed and have left what they
// had loaded, and after the TPM was switched off.
func TestKeySurvivesRestarts(t *testing.T) {
	chip, device := start(t)
	key := newKey(t, device, elliptic.P256())
	for range 6 {
		key = again(t, key, chip.Device)
		wantSignature(t, key)
	}
	chip.Kill()
	wantFailure(t, key, ErrUnavailable, "attach it")
	if _, err := key.Device().NewKey(elliptic.P256()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a new key without a TPM: %v", err)
	}
	if err := chip.Start(); err != nil {
		t.Fatal(err)
	}
	wantSignature(t, key)
	if err := key.Device().Failure(); err != nil {
		t.Errorf("the device still tells %v", err)
	}
	// The TPM starts again between two uses: sessions and loaded keys are gone.
	chip.Kill()
	if err := chip.Start(); err != nil {
		t.Fatal(err)
	}
	wantSignature(t, key)
	if err := key.Device().Close(); err != nil {
		t.Error(err)
	}
	wantSignature(t, key)
}

func TestManyKeysShareTheTPM(t *testing.T) {
	_, device := start(t)
	keys := []*Key{newKey(t, device, elliptic.P256()), newKey(t, device, elliptic.P256()), newKey(t, device, elliptic.P384())}
	var running sync.WaitGroup
	for i := range 24 {
		running.Go(func() {
			key, digest := keys[i%len(keys)], sha256.Sum256([]byte{byte(i)})
			signature, err := key.Sign(rand.Reader, digest[:], crypto.SHA256)
			if err != nil || !ecdsa.VerifyASN1(key.Public().(*ecdsa.PublicKey), digest[:], signature) {
				t.Errorf("signature %d: %v, or another's", i, err)
			}
		})
	}
	running.Wait()
}

func TestAnotherTPMRefusesTheKey(t *testing.T) {
	chip, device := start(t)
	key := newKey(t, device, elliptic.P256())
	if err := chip.Replace(); err != nil {
		t.Fatal(err)
	}
	wantFailure(t, key, ErrOtherTPM, "join")
	if err := key.Check(); !errors.Is(err, ErrOtherTPM) {
		t.Errorf("check: %v, want ErrOtherTPM", err)
	}
	wantSignature(t, newKey(t, device, elliptic.P256()))
}

func TestDamagedKeysAreTold(t *testing.T) {
	_, device := start(t)
	key := newKey(t, device, elliptic.P256())
	other := newKey(t, device, elliptic.P256())
	for what, change := range map[string]func(*blob){
		"an octet of the private part": func(b *blob) { b.private[len(b.private)/2] ^= 1 },
		"a shorter private part":       func(b *blob) { b.private = b.private[:len(b.private)-1] },
		"another key's private part":   func(b *blob) { b.private = other.blob.private },
	} {
		changed := blob{parent: key.blob.parent, public: key.blob.public, private: append([]byte(nil), key.blob.private...)}
		change(&changed)
		read, err := device.Key(changed.Append(nil), key.storage)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if err := read.Check(); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "restore") {
			t.Errorf("%s: %v, want ErrDamaged", what, err)
		}
	}
	wantSignature(t, key)
}

// TestLockout has somebody guess passwords until the TPM refuses them all. Our key has none, and goes on signing.
func TestLockout(t *testing.T) {
	chip, device := start(t)
	key := newKey(t, device, elliptic.P256())
	wantSignature(t, key)
	if err := device.Close(); err != nil {
		t.Fatal(err)
	}
	guess(t, chip.Device)
	wantSignature(t, key)
	wantSignature(t, again(t, key, chip.Device))
	wantSignature(t, newKey(t, device, elliptic.P256()))
}

// guess tries wrong passwords on a key that is protected against that, until the TPM is locked.
func guess(t *testing.T, path string) {
	t.Helper()
	c, err := connect(path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	if err := c.use(nil); err != nil {
		t.Fatal(err)
	}
	guarded, err := template(elliptic.P256())
	if err != nil {
		t.Fatal(err)
	}
	guarded.ObjectAttributes.NoDA = false
	made, err := tpm2.Create{
		ParentHandle: c.parent(), InPublic: tpm2.New2B(guarded),
		InSensitive: tpm2.TPM2BSensitiveCreate{Sensitive: &tpm2.TPMSSensitiveCreate{UserAuth: tpm2.TPM2BAuth{Buffer: []byte("secret")}}},
	}.Execute(c.tpm)
	if err != nil {
		t.Fatal(err)
	}
	loaded, err := tpm2.Load{ParentHandle: c.parent(), InPrivate: made.OutPrivate, InPublic: made.OutPublic}.Execute(c.tpm)
	if err != nil {
		t.Fatal(err)
	}
	c.loaded = loadedKey{handle: loaded.ObjectHandle, name: loaded.Name.Buffer}
	digest := sha256.Sum256(nil)
	for range 64 {
		_, err := tpm2.Sign{
			KeyHandle:  tpm2.AuthHandle{Handle: loaded.ObjectHandle, Name: loaded.Name, Auth: tpm2.PasswordAuth([]byte("guess"))},
			Digest:     tpm2.TPM2BDigest{Buffer: digest[:]},
			InScheme:   tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgECDSA, Details: tpm2.NewTPMUSigScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSchemeHash{HashAlg: tpm2.TPMAlgSHA256})},
			Validation: tpm2.TPMTTKHashCheck{Tag: tpm2.TPMSTHashCheck, Hierarchy: tpm2.TPMRHNull},
		}.Execute(c.tpm)
		if errors.Is(err, tpm2.TPMRCLockout) {
			return
		}
		if err == nil {
			t.Fatal("a wrong password signed")
		}
	}
	t.Fatal("the TPM was not locked after 64 wrong passwords")
}

// TestOwnerPassword sets one. Then only a storage key that the owner keeps can be used.
func TestOwnerPassword(t *testing.T) {
	chip, device := start(t)
	before := newKey(t, device, elliptic.P256())
	c, err := connect(chip.Device)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	owner := func(password string) tpm2.AuthHandle {
		return tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth([]byte(password))}
	}
	if _, err := (tpm2.HierarchyChangeAuth{AuthHandle: owner(""), NewAuth: tpm2.TPM2BAuth{Buffer: []byte("owner")}}).Execute(c.tpm); err != nil {
		t.Fatal(err)
	}
	if err := device.Close(); err != nil {
		t.Fatal(err)
	}
	wantFailure(t, before, ErrPassword, "0x81000001")
	if _, err := device.NewKey(elliptic.P256()); !errors.Is(err, ErrPassword) {
		t.Errorf("a new key: %v, want ErrPassword", err)
	}
	made, err := tpm2.CreatePrimary{PrimaryHandle: owner("owner"), InPublic: tpm2.New2B(tpm2.ECCSRKTemplate)}.Execute(c.tpm)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (tpm2.EvictControl{Auth: owner("owner"), ObjectHandle: &tpm2.NamedHandle{Handle: made.ObjectHandle, Name: made.Name}, PersistentHandle: storageHandle}).Execute(c.tpm); err != nil {
		t.Fatal(err)
	}
	if err := c.flush(made.ObjectHandle); err != nil {
		t.Fatal(err)
	}
	wantSignature(t, before)
	key := newKey(t, device, elliptic.P256())
	if key.blob.parent != storageHandle {
		t.Errorf("the key's parent is %#x, want %#x", uint32(key.blob.parent), uint32(storageHandle))
	}
	wantSignature(t, again(t, key, chip.Device))
}

// TestSilentTPM has the TPM stop in the middle: who waits gives up in time, and when it answers again, all goes on.
func TestSilentTPM(t *testing.T) {
	chip, device := start(t)
	key := newKey(t, device, elliptic.P256())
	device.patience = 50 * time.Millisecond
	if err := chip.Pause(); err != nil {
		t.Fatal(err)
	}
	wantFailure(t, key, ErrUnavailable, "did not answer")
	wantFailure(t, key, ErrUnavailable, "others waited")
	if err := chip.Resume(); err != nil {
		t.Fatal(err)
	}
	device.patience = patience
	wantSignature(t, key)
}

func TestPresent(t *testing.T) {
	chip, device := start(t)
	if present, err := device.Present(); !present || err != nil {
		t.Errorf("a TPM that runs is present: %v, %v", present, err)
	}
	chip.Kill()
	if present, err := device.Present(); present || err != nil {
		t.Errorf("a TPM that is gone is present: %v, %v", present, err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := New(file).NewKey(elliptic.P256()); !errors.Is(err, ErrUnavailable) {
		t.Errorf("a file in place of a TPM: %v, want ErrUnavailable", err)
	}
}
