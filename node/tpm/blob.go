package tpm

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	encoding "encoding/asn1"
	"encoding/pem"
	"fmt"

	"github.com/google/go-tpm/tpm2"
	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// PEM types of what is stored of a key: that of the TCG's TSS2, which OpenSSL's TPM providers read as well, and the name of
// the storage key above it, by which another TPM is told from damage.
const (
	PEMKey     = "TSS2 PRIVATE KEY"
	PEMStorage = "BAILIWICK TPM STORAGE KEY"
)

// A blob is a key as it is outside its TPM:
//
//	TPMKey ::= SEQUENCE {
//	  type       OBJECT IDENTIFIER, -- id-loadablekey, 2.23.133.10.1.3
//	  emptyAuth  [0] EXPLICIT BOOLEAN,
//	  parent     INTEGER,
//	  pubkey     OCTET STRING,      -- TPM2B_PUBLIC
//	  privkey    OCTET STRING }     -- TPM2B_PRIVATE
//
// (ASN.1 Specification for TPM 2.0 Key Files). The forms with a policy, a password or an import secret are not ours.
type blob struct {
	parent  tpm2.TPMHandle
	public  []byte // TPMT_PUBLIC
	private []byte // wrapped
}

var loadableKey = encoding.ObjectIdentifier{2, 23, 133, 10, 1, 3}

const (
	maxBlob = 4096
	// nameSize is that of a name under SHA-256: the algorithm's number and the hash (TPM 2.0 Part 1, 16).
	nameSize = 2 + 32
)

func sized(octets []byte) cryptobyte.BuilderContinuation {
	return func(b *cryptobyte.Builder) {
		b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(octets) })
	}
}

// Append writes the blob as DER.
func (k blob) Append(dst []byte) []byte {
	b := cryptobyte.NewBuilder(dst)
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(loadableKey)
		b.AddASN1(asn1.Tag(0).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) { b.AddASN1Boolean(true) })
		b.AddASN1Uint64(uint64(k.parent))
		b.AddASN1(asn1.OCTET_STRING, sized(k.public))
		b.AddASN1(asn1.OCTET_STRING, sized(k.private))
	})
	return b.BytesOrPanic()
}

func readSized(s *cryptobyte.String, out *[]byte) bool {
	var outer, inner cryptobyte.String
	if !s.ReadASN1(&outer, asn1.OCTET_STRING) || !outer.ReadUint16LengthPrefixed(&inner) || !outer.Empty() || len(inner) == 0 {
		return false
	}
	*out = bytes.Clone(inner)
	return true
}

// parseBlob reads what Append wrote, or another program that keeps to the format.
func parseBlob(der []byte) (blob, error) {
	if len(der) > maxBlob {
		return blob{}, fmt.Errorf("read a key of %d octets where %d are allowed: %w", len(der), maxBlob, ErrFormat)
	}
	var k blob
	var kind encoding.ObjectIdentifier
	var empty bool
	var parent uint32
	whole, tag := cryptobyte.String(der), asn1.Tag(0).ContextSpecific().Constructed()
	var s, flag cryptobyte.String
	if !whole.ReadASN1(&s, asn1.SEQUENCE) || !whole.Empty() || !s.ReadASN1ObjectIdentifier(&kind) {
		return blob{}, fmt.Errorf("read %d octets as a TSS2 private key: %w", len(der), ErrFormat)
	}
	if !kind.Equal(loadableKey) {
		return blob{}, fmt.Errorf("read a TSS2 private key of type %v where %v is known: %w", kind, loadableKey, ErrFormat)
	}
	if !s.ReadASN1(&flag, tag) || !flag.ReadASN1Boolean(&empty) || !flag.Empty() || !empty {
		return blob{}, fmt.Errorf("read a TSS2 private key that is not without a password: %w", ErrFormat)
	}
	if !s.ReadASN1Integer(&parent) || !readSized(&s, &k.public) || !readSized(&s, &k.private) || !s.Empty() {
		return blob{}, fmt.Errorf("read the parts of a TSS2 private key: %w", ErrFormat)
	}
	k.parent = tpm2.TPMHandle(parent)
	return k, nil
}

// publicKey is the public key of a blob that is to sign, as template makes it, and the name that the TPM gives it.
func (k blob) publicKey() (*ecdsa.PublicKey, []byte, error) {
	area, err := tpm2.Unmarshal[tpm2.TPMTPublic](k.public)
	if err != nil {
		return nil, nil, fmt.Errorf("read the public part of a key: %w: %w", ErrFormat, err)
	}
	if area.Type != tpm2.TPMAlgECC || area.NameAlg != tpm2.TPMAlgSHA256 || !bytes.Equal(tpm2.Marshal(*area), k.public) {
		return nil, nil, fmt.Errorf("read the public part of a key of type %#x: %w", uint16(area.Type), ErrFormat)
	}
	a := area.ObjectAttributes
	if !a.FixedTPM || !a.FixedParent || !a.SensitiveDataOrigin || !a.SignEncrypt || a.Restricted || a.Decrypt {
		return nil, nil, fmt.Errorf("read a key that is not one for signatures, made in a TPM and bound to it: %w", ErrFormat)
	}
	parameters, err := area.Parameters.ECCDetail()
	if err != nil {
		return nil, nil, fmt.Errorf("read the parameters of a key: %w: %w", ErrFormat, err)
	}
	curve, ok := curves[parameters.CurveID]
	if !ok {
		return nil, nil, fmt.Errorf("read a key on the curve %#x: %w", uint16(parameters.CurveID), ErrFormat)
	}
	point, err := area.Unique.ECC()
	if err != nil {
		return nil, nil, fmt.Errorf("read the point of a key: %w: %w", ErrFormat, err)
	}
	size := (curve.Params().BitSize + 7) / 8
	if len(point.X.Buffer) > size || len(point.Y.Buffer) > size {
		return nil, nil, fmt.Errorf("read a point of %d and %d octets: %w", len(point.X.Buffer), len(point.Y.Buffer), ErrFormat)
	}
	encoded := make([]byte, 1+2*size)
	encoded[0] = 4 // uncompressed (SEC 1, 2.3.3)
	copy(encoded[1+size-len(point.X.Buffer):], point.X.Buffer)
	copy(encoded[1+2*size-len(point.Y.Buffer):], point.Y.Buffer)
	public, err := ecdsa.ParseUncompressedPublicKey(curve, encoded)
	if err != nil {
		return nil, nil, fmt.Errorf("read the point of a key: %w: %w", ErrFormat, err)
	}
	name, err := tpm2.ObjectName(area)
	if err != nil {
		return nil, nil, fmt.Errorf("name a key: %w: %w", ErrFormat, err)
	}
	return public, name.Buffer, nil
}

var curves = map[tpm2.TPMECCCurve]elliptic.Curve{tpm2.TPMECCNistP256: elliptic.P256(), tpm2.TPMECCNistP384: elliptic.P384()}

// PEM is what is to be stored of the key: two blocks, none of which is secret.
func (k *Key) PEM() []*pem.Block {
	return []*pem.Block{{Type: PEMKey, Bytes: k.blob.Append(nil)}, {Type: PEMStorage, Bytes: bytes.Clone(k.storage)}}
}
