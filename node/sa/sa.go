// Package sa describes a Child SA as a value: the contract between the IKE engine, which negotiates it, and the
// datapath, which enforces it.
//
// Its invariant: a Child that leaves the engine is complete and never changes; a rekey makes another one. Keys are
// Secrets, which never print. It leaves negotiation to node/ike and packets to node/esp and node/datapath.
package sa

import (
	"crypto/subtle"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"time"

	"github.com/bailiwick-net/bailiwick/policies/proposal"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// SPI is a security parameter index of ESP; values below 256 are reserved (RFC 4303 2.1).
type SPI uint32

// Lane is what the lowest six bits of an inbound SPI say: packets of SPIs in different lanes may be received by different
// threads (node/transport). AnyLane leaves it to chance.
type Lane int8

// The lanes are 0 to Lanes-1.
const (
	AnyLane Lane = -1
	Lanes   Lane = 64
)

// Lane returns the lane of the SPI.
func (s SPI) Lane() Lane { return Lane(s % SPI(Lanes)) }

// String prints the SPI as eight hexadecimal digits.
func (s SPI) String() string { return fmt.Sprintf("%08x", uint32(s)) }

// Mode is the encapsulation mode of a Child SA.
type Mode uint8

// The modes.
const (
	Transport Mode = iota + 1
	Tunnel
)

// String names the mode as RFC 4301 does.
func (m Mode) String() string {
	switch m {
	case Transport:
		return "transport"
	case Tunnel:
		return "tunnel"
	}
	return fmt.Sprintf("mode(%d)", uint8(m))
}

const redacted = "[redacted]"

// Secret is key material. It never prints, is compared in constant time only, and is wiped by its owner.
type Secret struct{ octets []byte }

// NewSecret takes ownership of octets; the caller must not use them any more.
func NewSecret(octets []byte) Secret { return Secret{octets} }

// Expose returns the octets themselves, for the code that needs the key and nothing else.
func (s Secret) Expose() []byte { return s.octets }

// Len returns the length in octets.
func (s Secret) Len() int { return len(s.octets) }

// Equal compares in time that depends only on the lengths.
func (s Secret) Equal(o Secret) bool { return subtle.ConstantTimeCompare(s.octets, o.octets) == 1 }

// Wipe overwrites the octets with zeros.
func (s Secret) Wipe() { clear(s.octets) }

// String hides the key.
func (s Secret) String() string { return redacted }

// GoString hides the key.
func (s Secret) GoString() string { return redacted }

// Format hides the key from every verb.
func (s Secret) Format(w fmt.State, _ rune) { _, _ = io.WriteString(w, redacted) }

// MarshalJSON hides the key.
func (s Secret) MarshalJSON() ([]byte, error) { return json.Marshal(redacted) }

// Selector is one traffic selector, as policies know it.
type Selector = spd.Selector

// Keys is one direction of a Child SA. Encryption holds key and salt as taken from KEYMAT; Integrity is empty with an
// AEAD.
type Keys struct {
	SPI        SPI
	Encryption Secret
	Integrity  Secret
}

// Limits bound the use of a Child SA; zero means no limit of that kind.
type Limits struct {
	Time    time.Duration
	Bytes   uint64
	Packets uint64
}

// Child is a negotiated pair of ESP SAs, inbound and outbound.
type Child struct {
	Rule            string // spd.Rule.ID; empty for the default response
	DefaultResponse bool
	Peer            string // authenticated identity of the peer, printable, escaped
	Mode            Mode
	// Local and Remote are the outer endpoints. With Encap their ports are those of the UDP encapsulation (RFC 3948);
	// without it ESP is IP protocol 50 and the ports mean nothing.
	Local, Remote netip.AddrPort
	Encap         bool
	LocalTS       []Selector
	RemoteTS      []Selector
	Suite         proposal.ESP
	In, Out       Keys
	ReplayWindow  uint32 // packets
	Soft, Hard    Limits // Soft asks for a rekey, Hard ends the SA
	Idle          time.Duration
	// ReplacesIn is the inbound SPI of the SA that this one rekeys; 0 for a new one.
	ReplacesIn SPI
	// Bundle names the SAs that were made together with the same selectors, for as many packet threads (RFC 9611), by an
	// inbound SPI; those that rekey them belong to it as well. 0 for an SA that stands alone.
	Bundle SPI
	// NATRemote tells that the peer sits behind a NAT, so that its address may move (RFC 7296 2.23).
	NATRemote bool
	// Mobile tells that IKE moves the SA (RFC 4555): packets from elsewhere are reported, not followed.
	Mobile bool
}
