package gpipsec

import (
	"encoding/binary"
	"fmt"
)

// PolicyValue is the ipsecData of an ipsecPolicy (MS-GPIPSEC 2.2.1.1.1):
//
//	identifier (16) | length (4) | polling interval (4) | 0 (1)
type PolicyValue struct {
	Polling uint32 // seconds; 0 means 10,800
	Unknown int    // octets behind the value that are not understood
}

// ParsePolicy reads the value. The error wraps ErrBlob.
func ParsePolicy(data []byte) (PolicyValue, error) {
	c := open(data, policyID, "an ipsecPolicy")
	v := PolicyValue{Polling: c.u32()}
	v.Unknown = c.end()
	return v, c.err
}

// Append writes the value as current versions of Windows do.
func (v PolicyValue) Append(dst []byte) []byte {
	return seal(dst, policyID, appendU32(nil, v.Polling), 4)
}

// MainMode is the ipsecData of an ipsecISAKMPPolicy (MS-GPIPSEC 2.2.1.2.1):
//
//	identifier (16) | length (4) | instance (16) | 0 (4) | master PFS (4) | options (4) | new DH (4 x 1) |
//	limit of quick modes (4) | lifetime (4) | 0 (20) | number of methods (4) | methods (64 each) | 0 (1)
type MainMode struct {
	Instance  GUID
	MasterPFS bool
	Options   uint32 // bits: 1 the certificate must map to an account, 2 the CA is not named to peers
	// NewDH are methods with the 2048 bit group that come before Methods: 1 DES/MD5, 2 DES/SHA1, 3 3DES/MD5, 4 3DES/SHA1;
	// 0 is none.
	NewDH    [4]uint8
	Limit    uint32 // quick modes per main mode; 0 means any number
	Lifetime uint32 // seconds; 0 means that of the methods
	Methods  []Method
	Unknown  int // octets behind the value that are not understood
}

// Method is one main mode method, 64 octets:
//
//	version (4) | encryption (4 of 8) | 0 (4) | hash (4 of 8) | 0 (12) | override (1) | 0 (7) | group (4) |
//	limit of quick modes (4) | lifetime in kB (4) | lifetime in s (4) | identity PFS (4)
//
// What surrounds the fields is not initialised by some writers and means nothing.
type Method struct {
	Encryption uint32 // 1 DES, 2 and 3 3DES
	Hash       uint32 // 1 MD5, 2 SHA1
	Override   uint8  // as MainMode.NewDH
	Group      uint32 // 1, 2, or 0x10000001 for group 14
	Limit      uint32
	Kilobytes  uint32
	Seconds    uint32
}

const methodSize = 64

// ParseMainMode reads the value. The error wraps ErrBlob.
func ParseMainMode(data []byte) (MainMode, error) {
	c := open(data, mainModeID, "an ipsecISAKMPPolicy")
	v := MainMode{Instance: c.guid()}
	c.u32()
	v.MasterPFS = c.u32() != 0
	v.Options = c.u32()
	copy(v.NewDH[:], c.take(4, "the groups"))
	v.Limit, v.Lifetime = c.u32(), c.u32()
	c.take(20, "the zeros")
	for range c.count(methodSize, "main mode methods") {
		b := c.take(methodSize, "a main mode method")
		word := func(at int) uint32 { return binary.LittleEndian.Uint32(b[at:]) }
		v.Methods = append(v.Methods, Method{
			Encryption: word(4), Hash: word(16), Override: b[36], Group: word(44), Limit: word(48), Kilobytes: word(52), Seconds: word(56),
		})
	}
	v.Unknown = c.end()
	return v, c.err
}

// Append writes the value as current versions of Windows do.
func (v MainMode) Append(dst []byte) []byte {
	body := append([]byte(nil), v.Instance[:]...)
	body = appendFlag(appendU32(body, 0), v.MasterPFS)
	body = append(appendU32(body, v.Options), v.NewDH[:]...)
	body = appendU32(appendU32(body, v.Limit), v.Lifetime)
	body = append(body, make([]byte, 20)...)
	body = appendU32(body, uint32(len(v.Methods)))
	for _, m := range v.Methods {
		var b [methodSize]byte
		for at, word := range map[int]uint32{4: m.Encryption, 16: m.Hash, 44: m.Group, 48: m.Limit, 52: m.Kilobytes, 56: m.Seconds} {
			binary.LittleEndian.PutUint32(b[at:], word)
		}
		b[36] = m.Override
		body = append(body, b[:]...)
	}
	return seal(dst, mainModeID, body, len(body))
}

// String prints the method as netsh does: "3DES-SHA1-2".
func (m Method) String() string {
	if name, ok := overrides[m.Override]; ok {
		return name
	}
	group := fmt.Sprint(m.Group)
	if m.Group == 0x10000001 {
		group = "3"
	}
	return encryptionName(m.Encryption) + "-" + hashName(m.Hash) + "-" + group
}

// overrides are the methods that one octet names.
var overrides = map[uint8]string{1: "DES-MD5-3", 2: "DES-SHA1-3", 3: "3DES-MD5-3", 4: "3DES-SHA1-3"}

func encryptionName(n uint32) string {
	switch n {
	case 0:
		return "None"
	case 1:
		return "DES"
	case 2, 3:
		return "3DES"
	}
	return fmt.Sprintf("encryption(%d)", n)
}

func hashName(n uint32) string {
	switch n {
	case 0:
		return "None"
	case 1:
		return "MD5"
	case 2:
		return "SHA1"
	}
	return fmt.Sprintf("hash(%d)", n)
}

// Negotiation is the ipsecData of an ipsecNegotiationPolicy (MS-GPIPSEC 2.2.1.4.1):
//
//	identifier (16) | length (4) | number of offers (4) | offers (80 each) | 0 (1)
type Negotiation struct {
	Offers  []QuickOffer
	Unknown int // octets behind the value that are not understood
}

// QuickOffer is one quick mode offer, 80 octets:
//
//	lifetime in s (4) | lifetime in kB (4) | options (4) | PFS (4) | number of algorithms (4) | algorithms (3 x 20)
//
// An offer without algorithms as the last one permits clear traffic with peers that do not answer ("soft").
type QuickOffer struct {
	Seconds, Kilobytes uint32
	PFS                bool
	Algorithms         []Algorithm // at most three
}

// Algorithm protects packets in one way: algorithm (4) | integrity of ESP (4) | kind (4) | 0 (8).
type Algorithm struct {
	// AH: 1 MD5, 2 SHA1. ESP: 0 none, 1 DES, 3 3DES. The specification has ESP with 1 none and 2 DES; the offers of the
	// predefined policies, which Microsoft made, are 3 and then 1, where everybody's documentation says 3DES and then DES.
	Algorithm uint32
	Integrity uint32 // ESP alone: 0 none, 1 MD5, 2 SHA1
	Kind      uint32 // 1 AH, 2 ESP
}

// The kinds of an Algorithm.
const (
	kindAH  = 1
	kindESP = 2
)

const (
	offerSize     = 80
	maxAlgorithms = 3
)

// ParseNegotiation reads the value. The error wraps ErrBlob.
func ParseNegotiation(data []byte) (Negotiation, error) {
	c := open(data, negotiationID, "an ipsecNegotiationPolicy")
	var v Negotiation
	for range c.count(offerSize, "quick mode offers") {
		o := QuickOffer{Seconds: c.u32(), Kilobytes: c.u32()}
		c.u32()
		o.PFS = c.u32() != 0
		n := c.u32()
		for i := range uint32(maxAlgorithms) {
			a := Algorithm{Algorithm: c.u32(), Integrity: c.u32(), Kind: c.u32()}
			c.take(8, "an algorithm")
			if i < n {
				o.Algorithms = append(o.Algorithms, a)
			}
		}
		if n > maxAlgorithms && c.err == nil {
			c.err = fmt.Errorf("%w: an offer of %d algorithms, at most %d fit", ErrBlob, n, maxAlgorithms)
		}
		v.Offers = append(v.Offers, o)
	}
	v.Unknown = c.end()
	return v, c.err
}

// Append writes the value as current versions of Windows do. Algorithms beyond the third are left away.
func (v Negotiation) Append(dst []byte) []byte {
	body := appendU32(nil, uint32(len(v.Offers)))
	for _, o := range v.Offers {
		body = appendU32(appendU32(body, o.Seconds), o.Kilobytes)
		body = appendFlag(appendU32(body, 0), o.PFS)
		algorithms := o.Algorithms[:min(len(o.Algorithms), maxAlgorithms)]
		body = appendU32(body, uint32(len(algorithms)))
		for i := range maxAlgorithms {
			var a Algorithm
			if i < len(algorithms) {
				a = algorithms[i]
			}
			body = appendU32(appendU32(appendU32(body, a.Algorithm), a.Integrity), a.Kind)
			body = append(body, make([]byte, 8)...)
		}
	}
	return seal(dst, negotiationID, body, len(body))
}

// String prints the offer as netsh does: "AH[SHA1]+ESP[3DES,MD5]".
func (o QuickOffer) String() string {
	if len(o.Algorithms) == 0 {
		return "soft"
	}
	text := ""
	for _, a := range o.Algorithms {
		if text != "" {
			text += "+"
		}
		text += a.String()
	}
	return text
}

// String prints the algorithm as netsh does: "ESP[3DES,SHA1]".
func (a Algorithm) String() string {
	switch a.Kind {
	case kindAH:
		return "AH[" + hashName(a.Algorithm) + "]"
	case kindESP:
		encryption := a.Algorithm
		if encryption == 2 {
			encryption = 1
		}
		return "ESP[" + encryptionName(encryption) + "," + hashName(a.Integrity) + "]"
	}
	return fmt.Sprintf("kind(%d)", a.Kind)
}
