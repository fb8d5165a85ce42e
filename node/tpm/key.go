package tpm

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"fmt"
	"io"

	"github.com/google/go-tpm/tpm2"
	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// Key is an ECDSA key in a TPM: a crypto.Signer, safe for concurrent use. Signing takes as long as the TPM does, and its
// turn to come.
type Key struct {
	device  *Device
	blob    blob
	storage []byte // name of the storage key that wraps it
	name    []byte
	public  *ecdsa.PublicKey
}

// Key is the key that was stored as the contents of the two blocks of Key.PEM. It asks nothing of the TPM: a key whose TPM
// is gone is still the machine's, and says so when it is to sign.
func (d *Device) Key(der, storage []byte) (*Key, error) {
	b, err := parseBlob(der)
	if err != nil {
		return nil, err
	}
	if len(storage) != nameSize {
		return nil, fmt.Errorf("read the name of a storage key of %d octets, want %d: %w", len(storage), nameSize, ErrFormat)
	}
	return d.key(b, storage)
}

func (d *Device) key(b blob, storage []byte) (*Key, error) {
	public, name, err := b.publicKey()
	if err != nil {
		return nil, err
	}
	return &Key{device: d, blob: b, storage: bytes.Clone(storage), name: name, public: public}, nil
}

// NewKey has the TPM make a key on the curve, P-256 or P-384.
func (d *Device) NewKey(curve elliptic.Curve) (*Key, error) {
	return do(d, "make a key", func(c *connection) (*Key, error) {
		made, storage, err := c.create(curve)
		if err != nil {
			return nil, err
		}
		return d.key(made, storage)
	})
}

// Device is the TPM that has the key.
func (k *Key) Device() *Device { return k.device }

// Public is an *ecdsa.PublicKey.
func (k *Key) Public() crypto.PublicKey { return k.public }

// Check has the TPM load the key, and tells whether it can sign.
func (k *Key) Check() error {
	_, err := do(k.device, "load the machine key", func(c *connection) (struct{}, error) {
		_, err := c.load(k)
		return struct{}{}, err
	})
	return err
}

// Sign signs a digest, as ASN.1 (RFC 3279 2.2.3). The TPM draws the randomness.
func (k *Key) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if h := opts.HashFunc(); h == 0 || h.Size() != len(digest) || len(digest) < 32 {
		return nil, fmt.Errorf("sign a digest of %d octets by %v: a TPM signs digests of SHA-2", len(digest), h)
	}
	signature, err := do(k.device, "sign", func(c *connection) (*tpm2.TPMSSignatureECC, error) {
		handle, err := c.load(k)
		if err != nil {
			return nil, err
		}
		return c.sign(handle, k, digest)
	})
	if err != nil {
		return nil, err
	}
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1BigInt(integer(signature.SignatureR))
		b.AddASN1BigInt(integer(signature.SignatureS))
	})
	encoded, err := b.Bytes()
	if err != nil {
		return nil, fmt.Errorf("encode the signature of the TPM %s: %w", k.device.path, err)
	}
	// A TPM that computes wrongly must not be what tells a peer about our key.
	if !ecdsa.VerifyASN1(k.public, digest, encoded) {
		return nil, fmt.Errorf("the TPM %s gave a signature that is not by its key: %w; see the TPM's own diagnostics, and join again if this goes on", k.device.path, ErrUnavailable)
	}
	return encoded, nil
}

// fit brings a digest to the size of the curve: ECDSA uses the leftmost bits of a longer one, and a shorter one as the same
// number (FIPS 186-5 6.4.1). So a key needs one hash of the TPM, whichever a peer asked for.
func fit(digest []byte, curve elliptic.Curve) []byte {
	size := curve.Params().BitSize / 8
	if len(digest) >= size {
		return digest[:size]
	}
	return append(make([]byte, size-len(digest)), digest...)
}
