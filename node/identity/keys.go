package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/bailiwick-net/bailiwick/node/tpm"
)

// Place is where the machine's keys are made.
type Place uint8

// The places.
const (
	InFile Place = iota // in the state directory, for its owner only
	InTPM               // in the machine's TPM, or not at all
	Auto                // in the TPM where the machine has one, else in a file
)

func (p Place) String() string {
	switch p {
	case InFile:
		return "file"
	case InTPM:
		return "tpm"
	case Auto:
		return "auto"
	}
	return fmt.Sprintf("Place(%d)", uint8(p))
}

// Keys says where the machine's keys are made, and reads those that were. The zero value makes them on P-256 in files.
type Keys struct {
	Place Place
	// Curve is P-256, as nil is, or P-384.
	Curve elliptic.Curve
	// TPM has the keys that are in one; nil means that at tpm.DefaultDevice.
	TPM *tpm.Device
}

func (k Keys) device() *tpm.Device {
	if k.TPM != nil {
		return k.TPM
	}
	return tpm.New(tpm.DefaultDevice)
}

// Close frees what this process has in the TPM.
func (k Keys) Close() error {
	if k.TPM == nil {
		return nil
	}
	return k.TPM.Close()
}

// NewKey makes a private key for a certificate request: ECDSA P-256, in memory.
func NewKey() (*ecdsa.PrivateKey, error) { return newKey(elliptic.P256()) }

func newKey(curve elliptic.Curve) (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a machine key: %w", err)
	}
	return key, nil
}

// fresh makes the key that is to follow present, which is nil where there is none. A key in a TPM is followed by one in a
// file only where that is asked for by name: Auto is no leave to do without a TPM that is gone.
func (k Keys) fresh(present crypto.Signer) (crypto.Signer, error) {
	inside, err := k.wantTPM(present)
	if err != nil {
		return nil, err
	}
	curve := k.Curve
	if curve == nil {
		curve = elliptic.P256()
	}
	if !inside {
		return newKey(curve)
	}
	key, err := k.device().NewKey(curve)
	if err != nil {
		return nil, err
	}
	return key, nil
}

// wantTPM reports whether the key that follows present is to be made in the TPM.
func (k Keys) wantTPM(present crypto.Signer) (bool, error) {
	switch k.Place {
	case InFile:
		return false, nil
	case InTPM:
		return true, nil
	case Auto:
	}
	if inTPM(present) {
		return true, nil
	}
	return k.device().Present()
}

// successor is the key for the next certificate. A machine whose key is in a file and is to move into a TPM that does not
// work keeps its key, and so its place in the fleet; Problem tells.
func (k Keys) successor(present crypto.Signer) (crypto.Signer, error) {
	key, err := k.fresh(present)
	if err != nil && k.Place != InFile && !inTPM(present) {
		return present, nil
	}
	return key, err
}

func inTPM(key crypto.Signer) bool {
	_, inside := key.(*tpm.Key)
	return inside
}

// Where tells in words where a key is.
func Where(key crypto.Signer) string {
	switch k := key.(type) {
	case nil:
		return ""
	case *tpm.Key:
		return "in the TPM " + k.Device().Path()
	}
	return "in a file"
}

// Problem says what is wrong with where the key is, or with the use of it; nil when nothing is.
func (k Keys) Problem(key crypto.Signer) error {
	if inside, ok := key.(*tpm.Key); ok {
		if failure := inside.Device().Failure(); failure != nil {
			return failure
		}
		if k.Place == InFile {
			return errors.New("identity.key is file, and the key moves there with the next certificate")
		}
		return nil
	}
	if key == nil || k.Place == InFile {
		return nil
	}
	want, err := k.wantTPM(key)
	switch {
	case err != nil:
		return err
	case !want:
		return nil
	}
	problem := fmt.Errorf("identity.key is %s, and the key moves into the TPM with the next certificate", k.Place)
	if failure := k.device().Failure(); failure != nil {
		problem = fmt.Errorf("%w; the last attempt failed: %w", problem, failure)
	}
	return problem
}

// encodeKey is the key as it is stored: itself, or what its TPM needs to know it again.
func encodeKey(key crypto.Signer) ([]*pem.Block, error) {
	if inside, ok := key.(*tpm.Key); ok {
		return inside.PEM(), nil
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode machine key: %w", err)
	}
	return []*pem.Block{{Type: typeKey, Bytes: encoded}}, nil
}

// storedKey collects the blocks of one key.
type storedKey struct {
	keys                  Keys
	plain                 crypto.Signer
	wrapped, storage      []byte
	plainCount, tpmBlocks int
}

// take reads a block, and reports whether it is one of a key.
func (s *storedKey) take(block *pem.Block) (bool, error) {
	switch block.Type {
	case typeKey:
		key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		if err != nil {
			return true, fmt.Errorf("private key: %w", err)
		}
		s.plainCount++
		s.plain, _ = key.(crypto.Signer)
	case tpm.PEMKey:
		s.tpmBlocks++
		s.wrapped = block.Bytes
	case tpm.PEMStorage:
		s.tpmBlocks++
		s.storage = block.Bytes
	default:
		return false, nil
	}
	return true, nil
}

// key is the key, of which there must be one; nil where no block was one of a key.
func (s *storedKey) key() (crypto.Signer, error) {
	switch {
	case s.plainCount == 0 && s.tpmBlocks == 0:
		return nil, nil
	case s.plainCount == 1 && s.tpmBlocks == 0 && s.plain != nil:
		return s.plain, nil
	case s.plainCount == 0 && s.tpmBlocks == 2 && s.wrapped != nil && s.storage != nil:
		key, err := s.keys.device().Key(s.wrapped, s.storage)
		if err != nil {
			return nil, fmt.Errorf("private key: %w", err)
		}
		return key, nil
	}
	return nil, errors.New("not exactly one signing key")
}
