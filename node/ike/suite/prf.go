package suite

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"fmt"
	"hash"

	"github.com/bailiwick-net/bailiwick/node/ike/wire"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
)

// prfHash returns the hash of an HMAC PRF (RFC 4868 2.4).
func prfHash(prf proposal.PRF) (func() hash.Hash, error) {
	switch prf {
	case proposal.PRFHMACSHA256:
		return sha256.New, nil
	case proposal.PRFHMACSHA384:
		return sha512.New384, nil
	case proposal.PRFHMACSHA512:
		return sha512.New, nil
	}
	return nil, fmt.Errorf("use PRF %d: %w", uint16(prf), ErrUnsupported)
}

// maxPRFSize is the longest output of a PRF in octets.
const maxPRFSize = sha512.Size

// prfSize is the length of the output of an HMAC PRF in octets, which is also that of its preferred key.
func prfSize(prf proposal.PRF) (int, error) {
	switch prf {
	case proposal.PRFHMACSHA256:
		return sha256.Size, nil
	case proposal.PRFHMACSHA384:
		return sha512.Size384, nil
	case proposal.PRFHMACSHA512:
		return sha512.Size, nil
	}
	return 0, fmt.Errorf("use PRF %d: %w", uint16(prf), ErrUnsupported)
}

// mac is prf(key, parts[0] | parts[1] | ...).
func mac(h func() hash.Hash, key []byte, parts ...[]byte) []byte {
	return appendMAC(nil, h, key, parts...)
}

// appendMAC appends what mac returns to dst.
func appendMAC(dst []byte, h func() hash.Hash, key []byte, parts ...[]byte) []byte {
	m := hmac.New(h, key)
	for _, p := range parts {
		m.Write(p)
	}
	return m.Sum(dst)
}

// prfPlus is prf+ (RFC 7296 2.13): T1 = prf(K, S | 0x01), Tn = prf(K, Tn-1 | S | n). The counter is one octet, so
// there are at most 255 blocks.
func prfPlus(h func() hash.Hash, key, seed []byte, length int) ([]byte, error) {
	m := hmac.New(h, key) // its key schedule serves every block
	size := m.Size()
	if length > 255*size {
		return nil, fmt.Errorf("expand a key to %d octets with a limit of %d: %w", length, 255*size, ErrUnsupported)
	}
	out := make([]byte, 0, length+size)
	var last []byte
	counter := make([]byte, 1)
	for n := byte(1); len(out) < length; n++ {
		counter[0] = n
		m.Reset()
		m.Write(last)
		m.Write(seed)
		m.Write(counter)
		out = m.Sum(out)
		last = out[len(out)-size:]
	}
	return out[:length:length], nil
}

// CheckNonce tells whether a nonce is long enough for the PRF: at least half of its key size (RFC 7296 2.10), and 16
// to 256 octets (RFC 7296 3.9). The error is ErrNonce, or ErrUnsupported for the PRF.
func CheckNonce(prf proposal.PRF, nonce []byte) error {
	size, err := prfSize(prf)
	if err != nil {
		return err
	}
	if least := max(wire.NonceMin, size/2); len(nonce) < least || len(nonce) > wire.NonceMax {
		return fmt.Errorf("use a nonce of %d octets where %d to %d are allowed: %w", len(nonce), least, wire.NonceMax, ErrNonce)
	}
	return nil
}
