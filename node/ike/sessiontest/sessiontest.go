// Package sessiontest reads conversations of two strongSwan daemons that were recorded with every key and every plaintext,
// for the tests that replay them.
//
// Its invariant: what it returns is what the file says; nothing is computed here. It leaves the replay to the tests of
// node/ike/suite (octets and keys) and node/ike/engine (behaviour), and nothing but tests imports it.
package sessiontest

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"github.com/bailiwick-net/bailiwick/node/ike/wire"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
)

// Octets is a hexadecimal string in JSON.
type Octets []byte

// UnmarshalJSON reads the hexadecimal string.
func (o *Octets) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	v, err := hex.DecodeString(s)
	*o = v
	return err
}

// Endpoint is an address with a port after the last colon.
type Endpoint struct{ netip.AddrPort }

// UnmarshalJSON reads the address and the port.
func (e *Endpoint) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return fmt.Errorf("endpoint %q has no port", s)
	}
	addr, err := netip.ParseAddr(s[:i])
	if err != nil {
		return err
	}
	port, err := strconv.ParseUint(s[i+1:], 10, 16)
	e.AddrPort = netip.AddrPortFrom(addr, uint16(port))
	return err
}

// SPI reads an IKE SPI.
func (o Octets) SPI() wire.SPI { return wire.SPI(binary.BigEndian.Uint64(o)) }

// Session is one conversation. Side A starts it.
type Session struct {
	Name    string
	Packets []Packet
	ConfigA string  `json:"config_a"` // swanctl.conf of side A
	ConfigB string  `json:"config_b"`
	IKE     []SA    `json:"ike_sas"`
	Child   []Child `json:"child_sas"`
}

// Packet is one datagram: IKE, without the non-ESP marker, when Kind is "ike".
type Packet struct {
	Kind          string
	Source        Endpoint `json:"src"`
	Destination   Endpoint `json:"dst"`
	Hex           Octets
	SPIi          Octets            `json:"spi_i"`
	SPIr          Octets            `json:"spi_r"`
	Exchange      wire.ExchangeType `json:"exchange"`
	FirstPayload  wire.PayloadType  `json:"first_payload"` // inside the Encrypted payload
	Plaintext     Octets
	Fragment      []uint16
	Reassembled   Octets             `json:"reassembled_plaintext"`
	PayloadTypes  []wire.PayloadType `json:"payload_types"`
	Notifies      []wire.NotifyType  `json:"notifies"`
	AuthMethod    wire.AuthMethod    `json:"auth_method"`
	AuthSecret    string             `json:"auth_secret"`
	SignedOctets  Octets             `json:"signed_octets"`
	AuthVerified  bool               `json:"auth_verified"`
	AlgorithmID   Octets             `json:"algorithm_identifier"`
	MessageID     uint32             `json:"message_id"`
	FromInitiator bool               `json:"from_initiator"`
	Response      bool
}

// SA is an IKE SA with its keys.
type SA struct {
	SPIi        Octets    `json:"spi_i"`
	SPIr        Octets    `json:"spi_r"`
	RekeyedFrom []Octets  `json:"rekeyed_from"`
	Transforms  [][]*uint `json:"transforms"` // type, number, key length
	NonceI      Octets    `json:"nonce_i"`
	NonceR      Octets    `json:"nonce_r"`
	D           Octets    `json:"SK_d"`
	AI          Octets    `json:"SK_ai"`
	AR          Octets    `json:"SK_ar"`
	EI          Octets    `json:"SK_ei"`
	ER          Octets    `json:"SK_er"`
	PI          Octets    `json:"SK_pi"`
	PR          Octets    `json:"SK_pr"`
	Shared      Octets    `json:"dh_shared"`
}

// Child is a pair of ESP SAs with its keys.
type Child struct {
	IKESPIi    Octets    `json:"ike_spi_i"`
	IKESPIr    Octets    `json:"ike_spi_r"`
	InI        Octets    `json:"spi_initiator_inbound"`
	InR        Octets    `json:"spi_responder_inbound"`
	Transforms [][]*uint `json:"transforms"`
	NonceI     Octets    `json:"nonce_i"`
	NonceR     Octets    `json:"nonce_r"`
	Shared     Octets    `json:"dh_shared"`
	EncrI      Octets    `json:"encr_i"`
	IntegI     Octets    `json:"integ_i"`
	EncrR      Octets    `json:"encr_r"`
	IntegR     Octets    `json:"integ_r"`
}

// Load reads one file.
func Load(path string) (Session, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return Session{}, err
	}
	var s Session
	if err := json.Unmarshal(b, &s); err != nil {
		return Session{}, fmt.Errorf("read recorded session %s: %w", path, err)
	}
	return s, nil
}

// transform returns number and key length of the transform of one type.
func transform(list [][]*uint, kind uint) (id, bits uint16) {
	for _, t := range list {
		if *t[0] == kind {
			id = uint16(*t[1])
			if t[2] != nil {
				bits = uint16(*t[2])
			}
		}
	}
	return id, bits
}

// SPIs are those of the initiator and of the responder.
func (s SA) SPIs() (i, r wire.SPI) { return s.SPIi.SPI(), s.SPIr.SPI() }

// Suite is what was negotiated, implemented or not.
func (s SA) Suite() proposal.IKE {
	encr, bits := transform(s.Transforms, 1)
	prf, _ := transform(s.Transforms, 2)
	integ, _ := transform(s.Transforms, 3)
	group, _ := transform(s.Transforms, 4)
	return proposal.IKE{
		Encryption: proposal.Encryption(encr), KeyBits: bits, PRF: proposal.PRF(prf),
		Integrity: proposal.Integrity(integ), Group: proposal.Group(group),
	}
}

// Suite is what was negotiated.
func (c Child) Suite() proposal.ESP {
	encr, bits := transform(c.Transforms, 1)
	integ, _ := transform(c.Transforms, 3)
	group, _ := transform(c.Transforms, 4)
	esn, _ := transform(c.Transforms, 5)
	if len(c.Shared) == 0 {
		group = 0 // the offer names a group that IKE_AUTH does not use
	}
	return proposal.ESP{
		Encryption: proposal.Encryption(encr), KeyBits: bits, Integrity: proposal.Integrity(integ),
		Group: proposal.Group(group), ESN: esn == 1,
	}
}
