package suite

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"fmt"
	"hash"
	"math"
	"slices"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/bailiwick-net/bailiwick/node/ike/impair"
	"github.com/bailiwick-net/bailiwick/node/ike/wire"
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
)

const (
	aeadIVLen        = 8
	genericHeaderLen = 4
	fragmentLen      = 4 // Fragment Number and Total Fragments (RFC 7383 2.5)
	// messagesPerKey bounds what one key protects. Message IDs have 32 bits and an IKE SA is rekeyed far earlier.
	messagesPerKey = math.MaxUint32
)

// Protection protects the messages of one direction of an IKE SA: it seals what this side sends, or opens what the
// peer sent. It belongs to one goroutine.
//
//	                     1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	| Next Payload  |C|  RESERVED   |         Payload Length        |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|        Fragment Number        |        Total Fragments        | SKF only
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                     Initialization Vector                     |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	~             encrypted: payloads, padding, Pad Length          ~
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	~                    Integrity Checksum Data                    ~
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
type Protection struct {
	aead cipher.AEAD // nil with CBC
	salt [saltLen]byte
	room [saltLen + aeadIVLen]byte // for a nonce
	// sealed counts the messages, and is the IV of the next one: so no (key, IV) pair is ever used twice.
	sealed uint64

	block  cipher.Block
	hash   func() hash.Hash
	key    []byte // of the HMAC
	icvLen int
}

// NewProtection takes SK_e and SK_a of one direction (SK_a is empty with an AEAD). The error is ErrUnsupported.
func NewProtection(chosen proposal.IKE, encryption, integrity sa.Secret) (*Protection, error) {
	encr, integ, err := keyLens(chosen.Encryption, chosen.KeyBits, chosen.Integrity)
	if err != nil {
		return nil, err
	}
	if encryption.Len() != encr || integrity.Len() != integ {
		return nil, fmt.Errorf("protect with keys of %d and %d octets where %d and %d are needed: %w",
			encryption.Len(), integrity.Len(), encr, integ, ErrUnsupported)
	}
	p := &Protection{}
	key := encryption.Expose()
	switch chosen.Encryption {
	case proposal.EncrAESGCM16, proposal.EncrChaCha20Poly1305:
		p.salt = [saltLen]byte(key[encr-saltLen:])
		p.aead, err = newAEAD(chosen.Encryption, key[:encr-saltLen])
	case proposal.EncrAESCBC:
		p.block, err = aes.NewCipher(key)
		p.key = append([]byte(nil), integrity.Expose()...)
		p.hash, p.icvLen = integrityHash(chosen.Integrity)
	default: // RFC 8247 2.1: NULL MUST NOT protect IKE
		err = fmt.Errorf("protect IKE with encryption %d: %w", uint16(chosen.Encryption), ErrUnsupported)
	}
	if err != nil {
		return nil, err
	}
	return p, nil
}

// String hides the keys.
func (p Protection) String() string { return "[redacted]" }

// GoString hides the keys.
func (p Protection) GoString() string { return p.String() }

// Format hides the keys from every verb.
func (p Protection) Format(w fmt.State, _ rune) { fmt.Fprint(w, p.String()) }

func newAEAD(e proposal.Encryption, key []byte) (cipher.AEAD, error) {
	if e == proposal.EncrChaCha20Poly1305 {
		return chacha20poly1305.New(key)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// integrityHash returns hash and truncated length in octets (RFC 4868 2.3); keyLens has checked i.
func integrityHash(i proposal.Integrity) (func() hash.Hash, int) {
	switch i {
	case proposal.IntegHMACSHA384192:
		return sha512.New384, 24
	case proposal.IntegHMACSHA512256:
		return sha512.New, 32
	default: // IntegHMACSHA256128
		return sha256.New, 16
	}
}

// RandomIVLen is the number of random octets that Seal needs as iv: 16 with CBC, where the IV must be unpredictable
// (RFC 3602 3); 0 with an AEAD, which counts its own.
func (p *Protection) RandomIVLen() int {
	if p.aead != nil {
		return 0
	}
	return aes.BlockSize
}

// Seal appends a whole message to dst: header h, whose NextPayload and Length it sets, and one SK payload around inner,
// a chain of payloads that begins with type first. iv has RandomIVLen octets. The error is ErrExhausted, or tells that
// the message is too long for a payload.
func (p *Protection) Seal(dst []byte, h wire.Header, first wire.PayloadType, inner, iv []byte) ([]byte, error) {
	h.NextPayload = wire.TypeSK
	return p.seal(dst, h, first, nil, inner, iv)
}

// SealFragment appends a whole message with one SKF payload (RFC 7383 2.5) around part. first is written in fragment 1
// only; number counts from 1 to total.
func (p *Protection) SealFragment(dst []byte, h wire.Header, first wire.PayloadType, number, total uint16, part, iv []byte) ([]byte, error) {
	if number == 0 || number > total {
		return nil, fmt.Errorf("seal fragment %d of %d: %w", number, total, ErrUnsupported)
	}
	if number != 1 {
		first = wire.NoNextPayload
	}
	h.NextPayload = wire.TypeSKF
	var numbers [fragmentLen]byte
	binary.BigEndian.PutUint16(numbers[:], number)
	binary.BigEndian.PutUint16(numbers[2:], total)
	return p.seal(dst, h, first, numbers[:], part, iv)
}

// FragmentRoom is the number of inner octets that fit into an SKF message of at most size octets; 0 when none do.
func (p *Protection) FragmentRoom(size int) int {
	room := size - wire.HeaderLen - genericHeaderLen - fragmentLen
	if p.aead != nil {
		room -= aeadIVLen + p.aead.Overhead()
	} else {
		room -= aes.BlockSize + p.icvLen
		room -= room & (aes.BlockSize - 1)
	}
	return max(room-1, 0) // the Pad Length octet
}

// MessageLen is the length of the message that Seal makes from inner payloads of this length.
func (p *Protection) MessageLen(inner int) int {
	return wire.HeaderLen + genericHeaderLen + p.bodyLen(inner)
}

// bodyLen is the length of IV, ciphertext and check value.
func (p *Protection) bodyLen(inner int) int {
	if p.aead != nil {
		return aeadIVLen + inner + 1 + p.aead.Overhead()
	}
	return aes.BlockSize + inner + 1 + p.padLen(inner) + p.icvLen
}

// padLen fills up to whole blocks; an AEAD needs no padding.
func (p *Protection) padLen(inner int) int {
	if p.aead != nil {
		return 0
	}
	return aes.BlockSize - 1 - inner%aes.BlockSize
}

func (p *Protection) seal(dst []byte, h wire.Header, first wire.PayloadType, numbers, inner, iv []byte) ([]byte, error) {
	if len(iv) != p.RandomIVLen() {
		return nil, fmt.Errorf("seal with an initialization vector of %d octets where %d are needed: %w", len(iv), p.RandomIVLen(), ErrUnsupported)
	}
	length := genericHeaderLen + len(numbers) + p.bodyLen(len(inner))
	if length > math.MaxUint16 {
		return nil, fmt.Errorf("seal %d octets into one payload: %w", len(inner), ErrTooLong)
	}
	if p.sealed >= messagesPerKey {
		return nil, ErrExhausted
	}
	var counter [aeadIVLen]byte
	if p.aead != nil {
		binary.BigEndian.PutUint64(counter[:], p.sealed)
		iv = counter[:]
	}
	if !impair.On(impair.VectorRepeats) {
		p.sealed++
	}

	dst = slices.Grow(dst, wire.HeaderLen+length)
	start := len(dst)
	outside := impairedOutside(&h)
	h.Length = uint32(wire.HeaderLen + len(outside) + length)
	dst = append(h.Append(dst), outside...)
	dst = append(dst, byte(first), 0)
	dst = binary.BigEndian.AppendUint16(dst, uint16(length))
	dst = append(dst, numbers...)
	prefix := len(dst)
	dst = append(dst, iv...)
	plain := len(dst)
	dst = append(dst, inner...)
	pad := p.padLen(len(inner))
	for i := range pad { // RFC 7296 3.14 leaves the content open; ESP's 1, 2, 3... betrays nothing
		dst = append(dst, byte(i+1))
	}
	dst = append(dst, byte(pad))

	if p.aead != nil {
		// RFC 5282 5.1: associated data is everything from the IKE header to the SK (or SKF) header.
		sealed := p.aead.Seal(dst[:plain], p.nonce(iv), dst[plain:], dst[start:prefix:prefix])
		return sealed, nil
	}
	cipher.NewCBCEncrypter(p.block, iv).CryptBlocks(dst[plain:], dst[plain:])
	sum := mac(p.hash, p.key, dst[start:])
	return append(dst, sum[:p.icvLen]...), nil
}

// nonce is salt and IV (RFC 5282 4). It is valid until the next one is made.
func (p *Protection) nonce(iv []byte) []byte {
	copy(p.room[:], p.salt[:])
	copy(p.room[saltLen:], iv)
	return p.room[:]
}

// Open checks and decrypts the SK payload of a message and returns the payloads inside, in a new slice. datagram is the
// whole message that sk was parsed from. The error is always ErrIntegrity: what failed is nobody's business.
func (p *Protection) Open(datagram []byte, sk wire.Encrypted) ([]byte, error) {
	return p.open(datagram, sk.Offset)
}

// OpenFragment checks and decrypts the SKF payload of a message and returns the part inside, as Open does.
func (p *Protection) OpenFragment(datagram []byte, skf wire.Fragment) ([]byte, error) {
	return p.open(datagram, skf.Offset)
}

func (p *Protection) open(datagram []byte, offset int) ([]byte, error) {
	if offset < wire.HeaderLen || offset > len(datagram) {
		return nil, ErrIntegrity
	}
	var plain []byte
	var err error
	if p.aead != nil {
		plain, err = p.openAEAD(datagram, offset)
	} else {
		plain, err = p.openCBC(datagram, offset)
	}
	if err != nil {
		return nil, err
	}
	// The padding is authentic; a pad length beyond the payload is the peer's bug and is treated as forged.
	pad := int(plain[len(plain)-1])
	if pad >= len(plain) {
		return nil, ErrIntegrity
	}
	return plain[:len(plain)-1-pad], nil
}

func (p *Protection) openAEAD(datagram []byte, offset int) ([]byte, error) {
	body := datagram[offset:]
	if len(body) < aeadIVLen+1+p.aead.Overhead() {
		return nil, ErrIntegrity
	}
	plain, err := p.aead.Open(nil, p.nonce(body[:aeadIVLen]), body[aeadIVLen:], datagram[:offset])
	if err != nil {
		return nil, ErrIntegrity
	}
	return plain, nil
}

func (p *Protection) openCBC(datagram []byte, offset int) ([]byte, error) {
	body := len(datagram) - offset - aes.BlockSize - p.icvLen
	if body < aes.BlockSize || body%aes.BlockSize != 0 {
		return nil, ErrIntegrity
	}
	// Encrypt-then-MAC: nothing is decrypted before the check value over the whole message is proved.
	end := len(datagram) - p.icvLen
	sum := mac(p.hash, p.key, datagram[:end])
	if !hmac.Equal(sum[:p.icvLen], datagram[end:]) {
		return nil, ErrIntegrity
	}
	iv := datagram[offset : offset+aes.BlockSize]
	plain := make([]byte, body)
	cipher.NewCBCDecrypter(p.block, iv).CryptBlocks(plain, datagram[offset+aes.BlockSize:end])
	return plain, nil
}

// Wipe overwrites the keys that this value holds itself and makes it useless; those inside the ciphers of the standard
// library are left to the garbage collector.
func (p *Protection) Wipe() {
	clear(p.key)
	clear(p.salt[:])
	p.sealed = messagesPerKey
}
