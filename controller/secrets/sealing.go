package secrets

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/bailiwick-net/bailiwick/controller/store"
	"github.com/bailiwick-net/bailiwick/pki/ca"
	"github.com/bailiwick-net/bailiwick/policies/preshared"
)

// The key that seals the secrets is a file of one PEM block. Its headers hold what is needed to open it, and are the
// additional data of the seal; its body is the key, sealed with AES-256-GCM under what unlocks the CA:
//
//	-----BEGIN BAILIWICK SECRETS KEY-----
//	Cipher: aes-256-gcm
//	Format: 1
//	Key-ID: <16 hex digits>
//	Nonce: <24 hex digits>
//	Salt: <32 hex digits>
//
//	<base64>
//	-----END BAILIWICK SECRETS KEY-----
const (
	pemKey     = "BAILIWICK SECRETS KEY"
	keyFormat  = "1"
	keyCipher  = "aes-256-gcm"
	keySize    = 32
	saltSize   = 16
	nonceSize  = 12
	maxKeyFile = 4096
	purpose    = "secrets key v1"
)

// sealer seals and opens values. It does not print.
type sealer struct {
	id   string
	aead cipher.AEAD
}

func newSealer(key []byte) (*sealer, error) {
	id, err := hkdf.Expand(sha256.New, key, "bailiwick secrets key id v1", 8)
	if err != nil {
		return nil, fmt.Errorf("naming the key of the secrets: %w", err)
	}
	aead, err := gcm(key)
	if err != nil {
		return nil, err
	}
	return &sealer{hex.EncodeToString(id), aead}, nil
}

func gcm(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("preparing %s: %w", keyCipher, err)
	}
	return cipher.NewGCM(block)
}

// String hides the key.
func (*sealer) String() string { return "[redacted]" }

// GoString hides the key.
func (*sealer) GoString() string { return "[redacted]" }

// The places of a value in a record.
const (
	placeCurrent  = "current"
	placePrevious = "previous"
)

// bound is what a value is sealed together with: moved to another name or place, or given another end, it does not open.
func (s *sealer) bound(r store.SecretRecord, place string, until time.Time) []byte {
	end := ""
	if !until.IsZero() {
		end = until.UTC().Format(time.RFC3339Nano)
	}
	return []byte(strings.Join([]string{"bailiwick secret v1", s.id, r.Name, r.Kind, place, end}, "\x00"))
}

func (s *sealer) seal(r store.SecretRecord, place string, until time.Time, key preshared.Key) store.SealedSecret {
	nonce := make([]byte, nonceSize)
	// crypto/rand.Read never fails (it ends the program instead). A fleet has far fewer values than random nonces allow.
	_, _ = rand.Read(nonce)
	return store.SealedSecret{Nonce: nonce, Sealed: s.aead.Seal(nil, nonce, key.Expose(), s.bound(r, place, until)), Until: until}
}

func (s *sealer) open(r store.SecretRecord, place string, v store.SealedSecret) (preshared.Key, error) {
	if r.Key != s.id {
		return preshared.Key{}, fmt.Errorf("it was sealed with the key %q, the controller has %q; restore that key's file, or set the secret again: %w", r.Key, s.id, ErrUnreadable)
	}
	kind, err := preshared.ParseKind(r.Kind)
	if err != nil {
		return preshared.Key{}, fmt.Errorf("%w: %w", ErrUnreadable, err)
	}
	if len(v.Nonce) != nonceSize {
		return preshared.Key{}, fmt.Errorf("its nonce has %d octets, wanted %d; set the secret again: %w", len(v.Nonce), nonceSize, ErrUnreadable)
	}
	text, err := s.aead.Open(nil, v.Nonce, v.Sealed, s.bound(r, place, v.Until))
	if err != nil {
		return preshared.Key{}, fmt.Errorf("its record in the store was altered; set the secret again: %w", ErrUnreadable)
	}
	defer clear(text)
	key, err := preshared.ParseKey(text, kind)
	if err != nil || key.Len() != len(text) {
		return preshared.Key{}, fmt.Errorf("it holds no key; set the secret again: %w", ErrUnreadable)
	}
	return key, nil
}

// loadKey reads the key file. A file that is not there gives an error that wraps fs.ErrNotExist.
func loadKey(path string, unlock ca.Unlock) (*sealer, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if mode := info.Mode(); !mode.IsRegular() || mode.Perm()&0o077 != 0 || info.Size() > maxKeyFile {
		return nil, fmt.Errorf("%s has the mode %v and %d octets, wanted a regular file for its owner alone (chmod 600) of at most %d: %w",
			path, mode, info.Size(), maxKeyFile, ErrKey)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	key, id, err := openKey(text, unlock)
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w; it is opened by what unlocks the CA: give the passphrase or key file that it was made with, or restore the file", path, err)
	}
	defer clear(key)
	s, err := newSealer(key)
	if err == nil && s.id != id {
		err = fmt.Errorf("opening %s: its header names another key: %w", path, ErrKey)
	}
	return s, err
}

// keyHeaders are the headers of the file, and with them what the key is sealed together with.
func keyHeaders(id string, nonce, salt []byte) map[string]string {
	return map[string]string{"Cipher": keyCipher, "Format": keyFormat, "Key-ID": id, "Nonce": hex.EncodeToString(nonce), "Salt": hex.EncodeToString(salt)}
}

// openKey reads the content of the key file.
func openKey(text []byte, unlock ca.Unlock) (key []byte, id string, err error) {
	block, rest := pem.Decode(text)
	if block == nil || block.Type != pemKey || len(bytes.TrimSpace(rest)) != 0 {
		return nil, "", fmt.Errorf("not one PEM block %q: %w", pemKey, ErrKey)
	}
	h := block.Headers
	nonce, nonceErr := hex.DecodeString(h["Nonce"])
	salt, saltErr := hex.DecodeString(h["Salt"])
	if h["Format"] != keyFormat || h["Cipher"] != keyCipher || len(h) != 5 || nonceErr != nil || saltErr != nil || len(nonce) != nonceSize || len(salt) != saltSize {
		return nil, "", fmt.Errorf("its headers are not those of format %s with %s: %w", keyFormat, keyCipher, ErrKey)
	}
	wrapping, err := unlock.Derive(purpose, salt)
	if err != nil {
		return nil, "", err
	}
	defer clear(wrapping)
	aead, err := gcm(wrapping)
	if err != nil {
		return nil, "", err
	}
	key, err = aead.Open(nil, nonce, block.Bytes, pem.EncodeToMemory(&pem.Block{Type: pemKey, Headers: h}))
	if err != nil || len(key) != keySize {
		return nil, "", fmt.Errorf("wrong passphrase or key file, or the file was altered: %w", ErrKey)
	}
	return key, h["Key-ID"], nil
}

// makeKey draws a key and stores it. It never replaces a file.
func makeKey(path string, unlock ca.Unlock) (*sealer, error) {
	drawn := make([]byte, keySize+nonceSize+saltSize)
	_, _ = rand.Read(drawn) // never fails
	key, nonce, salt := drawn[:keySize], drawn[keySize:keySize+nonceSize], drawn[keySize+nonceSize:]
	defer clear(key)
	s, err := newSealer(key)
	if err != nil {
		return nil, err
	}
	wrapping, err := unlock.Derive(purpose, salt)
	if err != nil {
		return nil, err
	}
	defer clear(wrapping)
	aead, err := gcm(wrapping)
	if err != nil {
		return nil, err
	}
	block := &pem.Block{Type: pemKey, Headers: keyHeaders(s.id, nonce, salt)}
	block.Bytes = aead.Seal(nil, nonce, key, pem.EncodeToMemory(&pem.Block{Type: pemKey, Headers: block.Headers}))
	if err := writeNew(path, pem.EncodeToMemory(block)); err != nil {
		return nil, fmt.Errorf("storing the key of the secrets: %w", err)
	}
	return s, nil
}

// writeNew writes a file for its owner alone, whole and to the disk, where there is none yet.
func writeNew(path string, content []byte) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*") // with mode 0600
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(f.Name())) }()
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Link(f.Name(), path); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("there is a file %s already, which is never replaced: %w", path, ErrKey)
		}
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
