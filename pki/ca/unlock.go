package ca

import (
	"crypto/hkdf"
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"os"

	"golang.org/x/crypto/argon2"
)

const redacted = "[redacted]"

// Unlock is what encrypts and decrypts the CA's keys: a passphrase or the content of a key file. It does not print.
type Unlock struct {
	derivation derivation
	secret     []byte
}

// derivation is how an Unlock becomes a key.
type derivation uint8

const (
	derivationArgon2id derivation = iota + 1 // for passphrases: slow and memory-hard (RFC 9106)
	derivationHKDF                           // for key files, which hold a full-strength key (RFC 5869)
)

func (d derivation) String() string {
	switch d {
	case derivationArgon2id:
		return "argon2id"
	case derivationHKDF:
		return "hkdf-sha256"
	}
	return fmt.Sprintf("derivation %d", uint8(d))
}

// The lengths accepted, in octets.
const (
	minPassphrase = 12
	maxPassphrase = 1024
	minKeyFile    = 32
	maxKeyFile    = 4096
)

// Passphrase makes an Unlock from a passphrase of 12 to 1024 octets, taken as it is. Errors wrap ErrUnlock.
func Passphrase(passphrase []byte) (Unlock, error) {
	if len(passphrase) < minPassphrase || len(passphrase) > maxPassphrase {
		return Unlock{}, fmt.Errorf("passphrase of %d octets, wanted %d to %d: %w", len(passphrase), minPassphrase, maxPassphrase, ErrUnlock)
	}
	return Unlock{derivationArgon2id, append([]byte{}, passphrase...)}, nil
}

// KeyFile makes an Unlock from a file of 32 to 4096 random octets, for example made with "head -c 32 /dev/urandom". The
// file must be readable by its owner alone. Errors wrap ErrKeyFile, or os errors.
func KeyFile(path string) (Unlock, error) {
	content, err := readPrivate(path, maxKeyFile)
	if err != nil {
		return Unlock{}, fmt.Errorf("reading the key file that unlocks the CA: %w", err)
	}
	unlock, err := KeyOctets(content)
	if err != nil {
		return Unlock{}, fmt.Errorf("key file %s: %w", path, err)
	}
	return unlock, nil
}

// KeyOctets makes an Unlock from the content of a key file that came another way. Errors wrap ErrKeyFile.
func KeyOctets(content []byte) (Unlock, error) {
	if len(content) < minKeyFile || len(content) > maxKeyFile {
		return Unlock{}, fmt.Errorf("%d octets, wanted %d to %d random ones: %w", len(content), minKeyFile, maxKeyFile, ErrKeyFile)
	}
	return Unlock{derivationHKDF, content}, nil
}

// String returns "[redacted]".
func (Unlock) String() string { return redacted }

// GoString returns "[redacted]".
func (Unlock) GoString() string { return redacted }

// Format writes "[redacted]" whatever the verb.
func (Unlock) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(redacted)) }

// LogValue returns "[redacted]".
func (Unlock) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalJSON writes "[redacted]".
func (Unlock) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// argon2Cost is the cost of deriving from a passphrase.
type argon2Cost struct {
	passes    uint32
	memoryKiB uint32
	threads   uint8
}

// recommendedCost is the second recommendation of RFC 9106 4, for machines that cannot spare 2 GiB.
var recommendedCost = argon2Cost{passes: 3, memoryKiB: 64 << 10, threads: 4}

// check bounds what a key file may make us spend, and refuses costs so low that a passphrase could be guessed.
func (c argon2Cost) check() error {
	if c.passes < 1 || c.passes > 16 || c.memoryKiB < 16<<10 || c.memoryKiB > 1<<20 || c.threads < 1 || c.threads > 16 {
		return fmt.Errorf("argon2id with %d passes over %d KiB in %d threads, wanted 1 to 16 over 16384 to 1048576 in 1 to 16: %w",
			c.passes, c.memoryKiB, c.threads, ErrKeyFile)
	}
	return nil
}

// wrapKeySize is the size of an AES-256 key.
const wrapKeySize = 32

// key derives the key that encrypts a private key. cost counts for passphrases alone.
func (u Unlock) key(salt []byte, cost argon2Cost) ([]byte, error) {
	switch u.derivation {
	case derivationArgon2id:
		return argon2.IDKey(u.secret, salt, cost.passes, cost.memoryKiB, cost.threads, wrapKeySize), nil
	case derivationHKDF:
		return hkdf.Key(sha256.New, u.secret, salt, "bailiwick ca key v1", wrapKeySize)
	}
	return nil, fmt.Errorf("no passphrase and no key file was given: %w", ErrUnlock)
}

// readPrivate reads a small file that only its owner may read. The checks are made on the open file, not on its name.
func readPrivate(path string, most int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file: %w", path, ErrKeyFile)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("%s has the mode %04o, so others than its owner can reach it; chmod 600 %s: %w", path, mode, path, ErrKeyFile)
	}
	content, err := io.ReadAll(io.LimitReader(f, most+1))
	if err != nil {
		return nil, err
	}
	if int64(len(content)) > most {
		return nil, fmt.Errorf("%s has more than %d octets: %w", path, most, ErrKeyFile)
	}
	return content, nil
}
