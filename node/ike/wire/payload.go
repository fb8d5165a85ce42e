package wire

import (
	"encoding/binary"
	"net/netip"

	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
)

// Payload is one payload of a message. The set is closed: SA, KE, ID, Cert, CertReq, Auth, Nonce, Notify, Delete,
// VendorID, TS, Encrypted, Fragment, Config, EAP, Unknown.
type Payload interface {
	// PayloadType is the number that the preceding next payload field carries.
	PayloadType() PayloadType
	// AppendBody writes the payload without its generic header.
	AppendBody(dst []byte) []byte
	sealed()
}

// KE is a key exchange payload (RFC 7296 3.4). Data is the public value as the group's RFC writes it.
type KE struct {
	Group proposal.Group
	Data  []byte
}

// ID is an identification payload, IDi or IDr (RFC 7296 3.5).
type ID struct {
	Responder bool // IDr
	Type      IDType
	// Reserved holds the reserved octets as received: AUTH covers them (RFC 7296 2.15).
	Reserved [3]byte
	Data     []byte
}

// Cert is a certificate payload (RFC 7296 3.6).
type Cert struct {
	Encoding CertEncoding
	Data     []byte
}

// CertReq is a certificate request (RFC 7296 3.7). Data is a concatenation of SHA-1 hashes of SubjectPublicKeyInfo.
type CertReq struct {
	Encoding CertEncoding
	Data     []byte
}

// Auth is an authentication payload (RFC 7296 3.8).
type Auth struct {
	Method AuthMethod
	Data   []byte
}

// NonceMin and NonceMax bound the length of a nonce in octets (RFC 7296 3.9).
const (
	NonceMin = 16
	NonceMax = 256
)

// Nonce is a nonce payload (RFC 7296 3.9).
type Nonce struct{ Data []byte }

// Notify is a notify payload (RFC 7296 3.10).
type Notify struct {
	Protocol Protocol
	SPI      []byte // empty when the notification concerns no SA or the IKE SA itself
	Type     NotifyType
	Data     []byte
}

// Delete is a delete payload (RFC 7296 3.11). With ProtocolIKE there are no SPIs: the IKE SA that carries it is meant.
// With ESP or AH they are the sender's inbound SPIs.
type Delete struct {
	Protocol Protocol
	SPIs     []sa.SPI
}

// VendorID is a vendor id payload (RFC 7296 3.12).
type VendorID struct{ Data []byte }

// TS is a traffic selector payload, TSi or TSr (RFC 7296 3.13).
type TS struct {
	Responder bool // TSr
	Selectors []sa.Selector
	// Other holds selectors of types that are not address ranges, which this program never narrows to.
	Other []OtherSelector
}

// OtherSelector is a traffic selector of a type other than TS_IPV4_ADDR_RANGE and TS_IPV6_ADDR_RANGE.
type OtherSelector struct {
	Type uint8
	Body []byte // what follows the four octets of type, protocol and length
	// Protocol is the octet beside the type.
	Protocol uint8
}

// Encrypted is an SK payload (RFC 7296 3.14). Body is a view of the datagram: IV, ciphertext and integrity check value.
type Encrypted struct {
	Next PayloadType // type of the first payload inside
	Body []byte
	// Offset is where Body begins in the datagram; the octets before it are the associated data of an AEAD (RFC 5282 5.1).
	Offset int
}

// Fragment is an SKF payload (RFC 7383 2.5).
type Fragment struct {
	Next   PayloadType // type of the first payload inside; zero in all fragments but the first
	Number uint16      // 1..Total
	Total  uint16
	Body   []byte
	Offset int // as in Encrypted; the four octets of Number and Total lie before it
}

// Config is a configuration payload (RFC 7296 3.15).
type Config struct {
	Type       ConfigType
	Attributes []ConfigAttribute
}

// ConfigAttribute is one attribute of a configuration payload.
type ConfigAttribute struct {
	Type  uint16 // 0..32767
	Value []byte
}

// EAP is an EAP payload (RFC 7296 3.16); Message is the whole EAP message, which is not looked into.
type EAP struct{ Message []byte }

// Unknown is a payload of a type that this program does not know. One with the critical bit never leaves the parser.
type Unknown struct {
	Type     PayloadType
	Critical bool
	Body     []byte
}

func (SA) sealed()        {}
func (KE) sealed()        {}
func (ID) sealed()        {}
func (Cert) sealed()      {}
func (CertReq) sealed()   {}
func (Auth) sealed()      {}
func (Nonce) sealed()     {}
func (Notify) sealed()    {}
func (Delete) sealed()    {}
func (VendorID) sealed()  {}
func (TS) sealed()        {}
func (Encrypted) sealed() {}
func (Fragment) sealed()  {}
func (Config) sealed()    {}
func (EAP) sealed()       {}
func (Unknown) sealed()   {}

// PayloadType is TypeKE.
func (KE) PayloadType() PayloadType { return TypeKE }

// PayloadType is TypeIDi or TypeIDr.
func (p ID) PayloadType() PayloadType {
	if p.Responder {
		return TypeIDr
	}
	return TypeIDi
}

// PayloadType is TypeCert.
func (Cert) PayloadType() PayloadType { return TypeCert }

// PayloadType is TypeCertReq.
func (CertReq) PayloadType() PayloadType { return TypeCertReq }

// PayloadType is TypeAuth.
func (Auth) PayloadType() PayloadType { return TypeAuth }

// PayloadType is TypeNonce.
func (Nonce) PayloadType() PayloadType { return TypeNonce }

// PayloadType is TypeNotify.
func (Notify) PayloadType() PayloadType { return TypeNotify }

// PayloadType is TypeDelete.
func (Delete) PayloadType() PayloadType { return TypeDelete }

// PayloadType is TypeVendorID.
func (VendorID) PayloadType() PayloadType { return TypeVendorID }

// PayloadType is TypeTSi or TypeTSr.
func (p TS) PayloadType() PayloadType {
	if p.Responder {
		return TypeTSr
	}
	return TypeTSi
}

// PayloadType is TypeSK.
func (Encrypted) PayloadType() PayloadType { return TypeSK }

// PayloadType is TypeSKF.
func (Fragment) PayloadType() PayloadType { return TypeSKF }

// PayloadType is TypeConfig.
func (Config) PayloadType() PayloadType { return TypeConfig }

// PayloadType is TypeEAP.
func (EAP) PayloadType() PayloadType { return TypeEAP }

// PayloadType is the type that was received.
func (p Unknown) PayloadType() PayloadType { return p.Type }

// AppendBody writes group, reserved octets and the public value.
func (p KE) AppendBody(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint16(dst, uint16(p.Group))
	return append(append(dst, 0, 0), p.Data...)
}

// AppendBody writes type, reserved octets and data: the octets that RFC 7296 2.15 calls RestOfInitIDPayload.
func (p ID) AppendBody(dst []byte) []byte {
	dst = append(dst, byte(p.Type))
	return append(append(dst, p.Reserved[:]...), p.Data...)
}

// AppendBody writes encoding and certificate.
func (p Cert) AppendBody(dst []byte) []byte {
	return append(append(dst, byte(p.Encoding)), p.Data...)
}

// AppendBody writes encoding and authorities.
func (p CertReq) AppendBody(dst []byte) []byte {
	return append(append(dst, byte(p.Encoding)), p.Data...)
}

// AppendBody writes method, reserved octets and data.
func (p Auth) AppendBody(dst []byte) []byte {
	return append(append(dst, byte(p.Method), 0, 0, 0), p.Data...)
}

// AppendBody writes the nonce.
func (p Nonce) AppendBody(dst []byte) []byte { return append(dst, p.Data...) }

// AppendBody writes protocol, SPI, type and data.
func (p Notify) AppendBody(dst []byte) []byte {
	dst = append(dst, byte(p.Protocol), byte(len(p.SPI)))
	dst = binary.BigEndian.AppendUint16(dst, uint16(p.Type))
	return append(append(dst, p.SPI...), p.Data...)
}

// AppendBody writes protocol, SPI size, count and SPIs.
func (p Delete) AppendBody(dst []byte) []byte {
	size := byte(4)
	if p.Protocol == ProtocolIKE {
		size = 0 // RFC 7296 3.11: MUST be zero for IKE
	}
	dst = append(dst, byte(p.Protocol), size)
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(p.SPIs)))
	for _, spi := range p.SPIs {
		dst = binary.BigEndian.AppendUint32(dst, uint32(spi))
	}
	return dst
}

// AppendBody writes the vendor id.
func (p VendorID) AppendBody(dst []byte) []byte { return append(dst, p.Data...) }

// The traffic selector types (RFC 7296 3.13.1).
const (
	tsIPv4Range = 7
	tsIPv6Range = 8
)

// AppendBody writes the number of selectors and the selectors, address ranges first.
func (p TS) AppendBody(dst []byte) []byte {
	dst = append(dst, byte(len(p.Selectors)+len(p.Other)), 0, 0, 0)
	for _, s := range p.Selectors {
		kind, length := byte(tsIPv4Range), uint16(16)
		if s.From.Is6() {
			kind, length = tsIPv6Range, 40
		}
		dst = append(dst, kind, s.Protocol)
		dst = binary.BigEndian.AppendUint16(dst, length)
		dst = binary.BigEndian.AppendUint16(dst, s.PortFrom)
		dst = binary.BigEndian.AppendUint16(dst, s.PortTo)
		dst = appendAddr(appendAddr(dst, s.From), s.To)
	}
	for _, o := range p.Other {
		dst = append(dst, o.Type, o.Protocol)
		dst = binary.BigEndian.AppendUint16(dst, uint16(4+len(o.Body)))
		dst = append(dst, o.Body...)
	}
	return dst
}

func appendAddr(dst []byte, a netip.Addr) []byte {
	if a.Is4() {
		b := a.As4()
		return append(dst, b[:]...)
	}
	b := a.As16()
	return append(dst, b[:]...)
}

// AppendBody writes IV, ciphertext and integrity check value.
func (p Encrypted) AppendBody(dst []byte) []byte { return append(dst, p.Body...) }

// AppendBody writes number, total, IV, ciphertext and integrity check value.
func (p Fragment) AppendBody(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint16(dst, p.Number)
	dst = binary.BigEndian.AppendUint16(dst, p.Total)
	return append(dst, p.Body...)
}

// AppendBody writes type and attributes.
func (p Config) AppendBody(dst []byte) []byte {
	dst = append(dst, byte(p.Type), 0, 0, 0)
	for _, a := range p.Attributes {
		dst = binary.BigEndian.AppendUint16(dst, a.Type&0x7fff)
		dst = binary.BigEndian.AppendUint16(dst, uint16(len(a.Value)))
		dst = append(dst, a.Value...)
	}
	return dst
}

// AppendBody writes the EAP message.
func (p EAP) AppendBody(dst []byte) []byte { return append(dst, p.Message...) }

// AppendBody writes the octets that were received.
func (p Unknown) AppendBody(dst []byte) []byte { return append(dst, p.Body...) }

// IDFromAddr is the identification payload of an address.
func IDFromAddr(responder bool, addr netip.Addr) ID {
	addr = addr.Unmap()
	kind := IDIPv4Addr
	if addr.Is6() {
		kind = IDIPv6Addr
	}
	return ID{Responder: responder, Type: kind, Data: addr.AsSlice()}
}
