package gpipsec

import (
	"crypto/subtle"
	"fmt"
	"io"
	"net/netip"
)

// RuleValue is the ipsecData of an ipsecNFA (MS-GPIPSEC 2.2.1.3.1):
//
//	identifier (16) | length (4) | number of methods (4) | methods | interface type (4) | interface name | tunnel (4) |
//	is tunnel (4) | is active (4) | tunnel name | [0 (1)] |
//	[ identifier ..01 (16) | number (4) | methods ] [ identifier ..02 (16) | 0 (4) | flags (4 each) ]
//	[ identifier ..03 (16) | IPv6 tunnel (16) ] | 0 (1)
//
// A method is type (4) | length (4) | data, a name is length (4) | UTF-16.
type RuleValue struct {
	Methods       []AuthMethod
	Interface     uint32 // 0xFFFFFFFD all, 0xFFFFFFFE LAN, 0xFFFFFFFF dial-up
	InterfaceName string
	Tunnel        netip.Addr // the endpoint; the zero value without a tunnel
	TunnelName    string
	Active        bool
	Unknown       int // octets behind the value that are not understood
}

// The interface types.
const (
	interfaceAll    = 0xFFFFFFFD
	interfaceLAN    = 0xFFFFFFFE
	interfaceDialUp = 0xFFFFFFFF
)

// AuthMethod is one way to authenticate.
type AuthMethod struct {
	Type  uint32 // 1 preshared key, 3 certificate, 5 Kerberos
	CA    string // certificate: the name of the authority as Windows writes it
	Key   Key    // preshared key
	Flags uint32 // certificate, bits: 1 it must map to an account, 2 the CA is not named to peers
}

// The types of an AuthMethod.
const (
	authPSK         = 1
	authCertificate = 3
	authKerberos    = 5
)

// Key is a preshared key as it stood in the directory. It does not show itself.
type Key struct{ text string }

// NewKey returns the key of a text.
func NewKey(text string) Key { return Key{text} }

// Equal compares in constant time.
func (k Key) Equal(o Key) bool {
	return subtle.ConstantTimeCompare([]byte(k.text), []byte(o.text)) == 1
}

const redacted = "[redacted]"

// String does not show the key.
func (Key) String() string { return redacted }

// GoString does not show the key.
func (Key) GoString() string { return redacted }

// Format does not show the key.
func (Key) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// MarshalText does not show the key.
func (Key) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// minMethod is the size of a method without data.
const minMethod = 8

// ParseRule reads the value. The error wraps ErrBlob.
func ParseRule(data []byte) (RuleValue, error) {
	c := open(data, ruleID, "an ipsecNFA")
	v := RuleValue{Methods: c.methods(), Interface: c.u32(), InterfaceName: c.text("the name of an interface")}
	endpoint, tunnel := netip.AddrFrom4(c.four()), c.u32() != 0
	v.Active = c.u32() != 0
	v.TunnelName = c.text("the name of a tunnel's endpoint")
	if c.at(alternateID) {
		// These say the same in the words of newer versions, and may say more: they count instead (note 6).
		c.skip(alternateID)
		if methods := c.methods(); len(methods) > 0 {
			v.Methods = methods
		}
	}
	if c.at(flagsID) {
		c.skip(flagsID)
		c.u32()
		for i := range v.Methods {
			v.Methods[i].Flags = c.u32()
		}
	}
	if c.at(tunnel6ID) {
		c.skip(tunnel6ID)
		if six := netip.AddrFrom16(c.sixteen()); !six.IsUnspecified() {
			endpoint = six.Unmap()
		}
	}
	if tunnel {
		v.Tunnel = endpoint
	}
	v.Unknown = c.end()
	return v, c.err
}

func (c *cursor) methods() []AuthMethod {
	var out []AuthMethod
	for range c.count(minMethod, "authentication methods") {
		m := AuthMethod{Type: c.u32()}
		text := c.text("an authentication method")
		switch m.Type {
		case authPSK:
			m.Key = Key{text}
		case authCertificate:
			m.CA = text
		}
		out = append(out, m)
	}
	return out
}

// Append writes the value as current versions of Windows do, the newer parts only where they say something.
func (v RuleValue) Append(dst []byte) []byte {
	body := v.appendMethods(nil)
	body = appendText(appendU32(body, v.Interface), v.InterfaceName)
	var four [4]byte
	if v.Tunnel.Is4() {
		four = v.Tunnel.As4()
	}
	body = appendFlag(append(body, four[:]...), v.Tunnel.IsValid())
	body = appendText(appendFlag(body, v.Active), v.TunnelName)
	counted := len(body)
	flagged := false
	for _, m := range v.Methods {
		flagged = flagged || m.Flags != 0
	}
	if flagged {
		body = v.appendMethods(append(body, alternateID[:]...))
		body = appendU32(append(body, flagsID[:]...), 0)
		for _, m := range v.Methods {
			body = appendU32(body, m.Flags)
		}
	}
	if v.Tunnel.Is6() {
		six := v.Tunnel.As16()
		body = append(append(body, tunnel6ID[:]...), six[:]...)
	}
	return seal(dst, ruleID, body, counted)
}

func (v RuleValue) appendMethods(dst []byte) []byte {
	dst = appendU32(dst, uint32(len(v.Methods)))
	for _, m := range v.Methods {
		dst = appendText(appendU32(dst, m.Type), m.CA+m.Key.text)
	}
	return dst
}
