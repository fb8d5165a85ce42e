package wire

import (
	"encoding/binary"
	"fmt"
)

// SPI is the security parameter index of an IKE SA, one per side; 0 stands for the responder's in the first request.
type SPI uint64

// String prints sixteen hexadecimal digits.
func (s SPI) String() string { return fmt.Sprintf("%016x", uint64(s)) }

// Append writes the eight octets of the SPI.
func (s SPI) Append(dst []byte) []byte { return binary.BigEndian.AppendUint64(dst, uint64(s)) }

// Flags is the flags octet of the IKE header.
type Flags uint8

// The flags (RFC 7296 3.1). FlagInitiator is set by the original initiator of the IKE SA, in requests and responses.
const (
	FlagInitiator Flags = 0x08
	FlagVersion   Flags = 0x10
	FlagResponse  Flags = 0x20
)

// Version2 is the version octet that IKEv2 writes: major 2, minor 0.
const Version2 uint8 = 0x20

// HeaderLen is the length of the IKE header in octets.
const HeaderLen = 28

// The limits on a message, enforced before anything is stored.
const (
	// LimitBeforeAuth bounds a datagram from a peer that is not authenticated, in octets.
	LimitBeforeAuth = 16 << 10
	// LimitAfterAuth bounds a datagram, or a reassembled message, of an authenticated peer, in octets.
	LimitAfterAuth = 64 << 10
	// LimitPayloads bounds the payloads of one chain.
	LimitPayloads = 40
	// LimitNotifies bounds the Notify payloads among them.
	LimitNotifies = 32
	// LimitProposals bounds the proposals of an SA payload.
	LimitProposals = 32
	// LimitTransforms bounds the transforms of a proposal.
	LimitTransforms = 64
	// LimitSelectors bounds the traffic selectors of a TS payload.
	LimitSelectors = 128
)

// Header is the IKE header.
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                       IKE SA Initiator's SPI                  |
//	|                                                               |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                       IKE SA Responder's SPI                  |
//	|                                                               |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|  Next Payload | MjVer | MnVer | Exchange Type |     Flags     |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                          Message ID                           |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                            Length                             |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
type Header struct {
	SPIi, SPIr  SPI
	NextPayload PayloadType // set by AppendMessage and by suite's Seal
	Version     uint8       // 0 is written as Version2
	Exchange    ExchangeType
	Flags       Flags
	MessageID   uint32
	Length      uint32 // set by AppendMessage and by suite's Seal
}

// Response reports whether the message answers a request.
func (h Header) Response() bool { return h.Flags&FlagResponse != 0 }

// FromInitiator reports whether the sender is the original initiator of the IKE SA.
func (h Header) FromInitiator() bool { return h.Flags&FlagInitiator != 0 }

// ParseHeader reads the first HeaderLen octets and looks at nothing behind them; it is for routing a datagram by SPI
// and for telling IKEv1 (major version 1) from IKEv2. It fails only when there are fewer octets.
func ParseHeader(datagram []byte) (Header, error) {
	if len(datagram) < HeaderLen {
		return Header{}, dropf(len(datagram), "%d octets are less than an IKE header", len(datagram))
	}
	return Header{
		SPIi:        SPI(binary.BigEndian.Uint64(datagram)),
		SPIr:        SPI(binary.BigEndian.Uint64(datagram[8:])),
		NextPayload: PayloadType(datagram[16]),
		Version:     datagram[17],
		Exchange:    ExchangeType(datagram[18]),
		Flags:       Flags(datagram[19]),
		MessageID:   binary.BigEndian.Uint32(datagram[20:]),
		Length:      binary.BigEndian.Uint32(datagram[24:]),
	}, nil
}

// Append writes the header as it stands, except that Version 0 becomes Version2.
func (h Header) Append(dst []byte) []byte {
	version := h.Version
	if version == 0 {
		version = Version2
	}
	dst = h.SPIi.Append(dst)
	dst = h.SPIr.Append(dst)
	dst = append(dst, byte(h.NextPayload), version, byte(h.Exchange), byte(h.Flags))
	dst = binary.BigEndian.AppendUint32(dst, h.MessageID)
	return binary.BigEndian.AppendUint32(dst, h.Length)
}
