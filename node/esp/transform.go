package esp

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/binary"
	"fmt"
	"hash"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/bailiwick-net/bailiwick/node/esp/aesgcm"
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
)

// resettableCBC is a CBC mode that takes a new IV without being made anew. The block modes of crypto/aes do.
type resettableCBC interface {
	cipher.BlockMode
	SetIV([]byte)
}

// transform is one direction of one suite with its key: either an AEAD, or GMAC, or HMAC with CBC or with no encryption. It
// holds scratch space, so one goroutine owns it.
type transform struct {
	esn      bool
	ivLen    int
	icvLen   int
	padBlock int // payload, padding and trailer are a multiple of it

	aead  cipher.AEAD
	gmac  bool     // aead authenticates, and encrypts nothing (RFC 4543)
	whole []byte   // what gmac authenticates, where that does not stand in one piece
	nonce [12]byte // salt, then the IV of the packet
	aad   [12]byte

	cbc     resettableCBC
	block   cipher.Block // of cbc
	ivMaker cipher.Block // outbound CBC
	counter [aes.BlockSize]byte

	mac     hash.Hash
	macSum  [sha512.Size]byte
	seqHigh [4]byte
}

// newTransform checks every length before a key is used: an SA whose key does not fit must not come up.
func newTransform(suite proposal.ESP, keys sa.Keys, outbound bool) (*transform, error) {
	if keys.SPI < 256 {
		return nil, fmt.Errorf("SPI %s is reserved (RFC 4303 2.1): %w", keys.SPI, ErrKey)
	}
	t := &transform{esn: suite.ESN, padBlock: 4}
	key := keys.Encryption.Expose()
	var err error
	switch suite.Encryption {
	case proposal.EncrAESGCM16:
		if err = wantKey("AES-GCM", len(key), int(suite.KeyBits)/8+4, suite.KeyBits); err != nil {
			return nil, err
		}
		err = t.setGCM(key)
	case proposal.EncrNullAESGMAC:
		if err = wantKey("AES-GMAC", len(key), int(suite.KeyBits)/8+4, suite.KeyBits); err != nil {
			return nil, err
		}
		t.gmac = true
		err = t.setGCM(key)
	case proposal.EncrChaCha20Poly1305:
		if len(key) != chacha20poly1305.KeySize+4 {
			return nil, fmt.Errorf("ChaCha20-Poly1305 key and salt of %d octets, want 36: %w", len(key), ErrKey)
		}
		t.aead, err = chacha20poly1305.New(key[:chacha20poly1305.KeySize])
		copy(t.nonce[:], key[chacha20poly1305.KeySize:])
	case proposal.EncrAESCBC:
		if err = wantKey("AES-CBC", len(key), int(suite.KeyBits)/8, suite.KeyBits); err != nil {
			return nil, err
		}
		err = t.setCBC(key, outbound)
	case proposal.EncrNULL:
		if len(key) != 0 {
			return nil, fmt.Errorf("key of %d octets for no encryption: %w", len(key), ErrKey)
		}
	default:
		return nil, fmt.Errorf("encryption algorithm %d: %w", suite.Encryption, ErrSuite)
	}
	if err != nil {
		return nil, err
	}
	if t.aead != nil {
		if suite.Integrity != proposal.IntegNone || keys.Integrity.Len() != 0 {
			return nil, fmt.Errorf("integrity algorithm %d beside an AEAD: %w", suite.Integrity, ErrSuite)
		}
		t.ivLen, t.icvLen = 8, t.aead.Overhead()
		return t, nil
	}
	return t, t.setMAC(suite.Integrity, keys.Integrity.Expose())
}

func wantKey(name string, have, want int, bits uint16) error {
	if bits != 128 && bits != 192 && bits != 256 {
		return fmt.Errorf("%s with keys of %d bits: %w", name, bits, ErrSuite)
	}
	if have != want {
		return fmt.Errorf("%s-%d key material of %d octets, want %d: %w", name, bits, have, want, ErrKey)
	}
	return nil
}

// setGCM splits KEYMAT into key and salt (RFC 4106 8.1).
func (t *transform) setGCM(key []byte) error {
	copy(t.nonce[:], key[len(key)-4:])
	var err error
	t.aead, err = aesgcm.New(key[:len(key)-4])
	return err
}

func (t *transform) setCBC(key []byte, outbound bool) error {
	block, err := aes.NewCipher(key)
	if err != nil {
		return fmt.Errorf("make AES: %w", err)
	}
	t.ivLen, t.padBlock = aes.BlockSize, aes.BlockSize
	t.block = block
	if !outbound {
		return t.setMode(cipher.NewCBCDecrypter(block, t.counter[:]))
	}
	// RFC 3602 3 wants IVs nobody can foresee. A block cipher over the sequence number gives them (SP 800-38A,
	// appendix C), here under a key of its own so that no block of the payload can meet the same input.
	derive := hmac.New(sha256.New, key)
	derive.Write([]byte("ESP AES-CBC IV"))
	if t.ivMaker, err = aes.NewCipher(derive.Sum(nil)); err != nil {
		return fmt.Errorf("make AES for IVs: %w", err)
	}
	return t.setMode(cipher.NewCBCEncrypter(block, t.counter[:]))
}

func (t *transform) setMode(mode cipher.BlockMode) error {
	resettable, ok := mode.(resettableCBC)
	if !ok {
		return fmt.Errorf("AES-CBC of this Go release takes no new IV: %w", ErrSuite)
	}
	t.cbc = resettable
	return nil
}

// forkOutbound returns the same transform for another goroutine. It works without the key, which its owner may have
// wiped: what is shared has no state, the rest is made anew or cloned.
func (t *transform) forkOutbound() (*transform, error) {
	f := *t
	f.whole = nil
	if t.cbc != nil {
		if err := f.setMode(cipher.NewCBCEncrypter(t.block, t.counter[:])); err != nil {
			return nil, err
		}
	}
	if t.mac == nil {
		return &f, nil
	}
	cloner, ok := t.mac.(hash.Cloner)
	if !ok {
		return nil, fmt.Errorf("HMAC of this Go release cannot be cloned: %w", ErrSuite)
	}
	mac, err := cloner.Clone()
	if err != nil {
		return nil, fmt.Errorf("clone HMAC: %w", err)
	}
	f.mac = mac
	return &f, nil
}

func (t *transform) setMAC(integrity proposal.Integrity, key []byte) error {
	var size int
	switch integrity {
	case proposal.IntegHMACSHA256128:
		t.icvLen, size = 16, sha256.Size
		t.mac = hmac.New(sha256.New, key)
	case proposal.IntegHMACSHA384192:
		t.icvLen, size = 24, sha512.Size384
		t.mac = hmac.New(sha512.New384, key)
	case proposal.IntegHMACSHA512256:
		t.icvLen, size = 32, sha512.Size
		t.mac = hmac.New(sha512.New, key)
	case proposal.IntegNone:
		return fmt.Errorf("encryption without integrity: %w", ErrSuite)
	default:
		return fmt.Errorf("integrity algorithm %d: %w", integrity, ErrSuite)
	}
	// RFC 4868 2.1.1: the key is as long as the hash.
	if len(key) != size {
		return fmt.Errorf("integrity key of %d octets, want %d: %w", len(key), size, ErrKey)
	}
	t.mac.Reset() // so that the first packet does not allocate the saved state
	return nil
}

// padding returns how many octets of padding follow a payload of n octets.
func (t *transform) padding(n int) int {
	return (t.padBlock - (n+trailerLen)%t.padBlock) % t.padBlock
}

// sealedLen returns the length of the ESP packet for a payload of n octets.
func (t *transform) sealedLen(n int) int {
	return headerLen + t.ivLen + n + t.padding(n) + trailerLen + t.icvLen
}

// additional returns what the AEAD authenticates beside the ciphertext: SPI and sequence number, 64 bits of it with
// ESN (RFC 4106 5).
func (t *transform) additional(spi []byte, seq uint64) []byte {
	copy(t.aad[:4], spi[:4])
	if t.esn {
		binary.BigEndian.PutUint64(t.aad[4:], seq)
		return t.aad[:12]
	}
	binary.BigEndian.PutUint32(t.aad[4:], uint32(seq))
	return t.aad[:8]
}

// authenticated returns what GMAC covers: SPI, sequence number with all its bits, IV, payload and trailer (RFC 4543 3.3). It is valid
// until the next call.
func (t *transform) authenticated(esp []byte, seq uint64) []byte {
	if !t.esn {
		return esp
	}
	t.whole = append(t.whole[:0], t.additional(esp, seq)...)
	t.whole = append(t.whole, esp[headerLen:]...)
	return t.whole
}

// icv returns the ICV over authenticated, to which the high half of the sequence number is appended with ESN
// (RFC 4303 2.2.1). It is valid until the next call.
func (t *transform) icv(authenticated []byte, seq uint64) []byte {
	t.mac.Reset()
	t.mac.Write(authenticated)
	if t.esn {
		binary.BigEndian.PutUint32(t.seqHigh[:], uint32(seq>>32))
		t.mac.Write(t.seqHigh[:])
	}
	return t.mac.Sum(t.macSum[:0])[:t.icvLen]
}

// seal fills the IV, the ciphertext and the ICV of esp, whose header is written and whose length is sealedLen. plain is
// payload, padding and trailer; it is where the ciphertext goes, or overlaps nothing of esp.
func (t *transform) seal(esp, plain []byte, seq uint64) {
	body := headerLen + t.ivLen
	if t.aead != nil {
		// The IV is the sequence number, which is never the same for one key (RFC 4106 3.1, RFC 7634 2).
		binary.BigEndian.PutUint64(t.nonce[4:], seq)
		copy(esp[headerLen:body], t.nonce[4:])
		if t.gmac {
			end := len(esp) - t.icvLen
			copy(esp[body:end], plain)
			t.aead.Seal(esp[end:end], t.nonce[:], nil, t.authenticated(esp[:end], seq))
			return
		}
		t.aead.Seal(esp[body:body], t.nonce[:], plain, t.additional(esp, seq))
		return
	}
	end := len(esp) - t.icvLen
	if t.cbc != nil {
		binary.BigEndian.PutUint64(t.counter[8:], seq)
		t.ivMaker.Encrypt(esp[headerLen:body], t.counter[:])
		t.cbc.SetIV(esp[headerLen:body])
		t.cbc.CryptBlocks(esp[body:end], plain)
	} else {
		copy(esp[body:end], plain)
	}
	copy(esp[end:], t.icv(esp[:end], seq))
}

// open verifies the ICV of esp and decrypts it in place, in this order. It returns payload, padding and trailer.
func (t *transform) open(esp []byte, seq uint64) ([]byte, bool) {
	body, end := headerLen+t.ivLen, len(esp)-t.icvLen
	if t.aead != nil {
		copy(t.nonce[4:], esp[headerLen:body])
		if t.gmac {
			_, err := t.aead.Open(nil, t.nonce[:], esp[end:], t.authenticated(esp[:end], seq))
			return esp[body:end], err == nil
		}
		plain, err := t.aead.Open(esp[body:body], t.nonce[:], esp[body:], t.additional(esp, seq))
		return plain, err == nil
	}
	if subtle.ConstantTimeCompare(t.icv(esp[:end], seq), esp[end:]) != 1 {
		return nil, false
	}
	if t.cbc != nil {
		t.cbc.SetIV(esp[headerLen:body])
		t.cbc.CryptBlocks(esp[body:end], esp[body:end])
	}
	return esp[body:end], true
}
