// Package proof makes payloads that show who sent them: each holds a marker, which a wire is searched for, and a code that
// only the real sender can compute. A receiver that gets a payload without it has accepted what somebody else made up.
//
// Its invariant: any 72 octets in a row hold the whole marker, so that no fragment is without it. It leaves sending
// and receiving to its callers.
package proof

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"io"
)

// Sizes in octets.
const (
	markerSize = 24
	codeSize   = 16
	// Header is that of the smallest payload: marker, number, code.
	Header = markerSize + 8 + codeSize
)

// Party knows how to make payloads and how to check them.
type Party struct {
	marker [markerSize]byte
	key    [32]byte
}

// New draws marker and key from a source of random octets.
func New(random io.Reader) (*Party, error) {
	var seed [15 + 32]byte
	if _, err := io.ReadFull(random, seed[:]); err != nil {
		return nil, err
	}
	p := &Party{key: [32]byte(seed[15:])}
	copy(p.marker[:], base32.StdEncoding.EncodeToString(seed[:15]))
	return p, nil
}

// Marker is the text that every payload holds.
func (p *Party) Marker() string { return string(p.marker[:]) }

func (p *Party) code(b []byte) []byte {
	h := hmac.New(sha256.New, p.key[:])
	h.Write(b)
	return h.Sum(nil)[:codeSize]
}

// Append adds a payload of a number of octets, at least Header, to b. The number tells payloads apart.
func (p *Party) Append(b []byte, size int, number uint64) []byte {
	start := len(b)
	b = append(b, p.marker[:]...)
	b = binary.BigEndian.AppendUint64(b, number)
	b = append(b, p.code(b[start:])...)
	for len(b)-start < size {
		b = append(b, p.marker[:min(markerSize, size-(len(b)-start))]...)
	}
	return b
}

// Number returns the number of a payload of this party, and whether it is one: unaltered in every octet.
func (p *Party) Number(b []byte) (number uint64, ours bool) {
	if len(b) < Header {
		return 0, false
	}
	number = binary.BigEndian.Uint64(b[markerSize:])
	return number, hmac.Equal(p.code(b[:markerSize+8]), b[markerSize+8:Header]) && bytes.Equal(p.Append(nil, len(b), number), b)
}
