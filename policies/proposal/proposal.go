// Package proposal owns the cryptographic offers of a policy: the names an administrator writes, the IANA numbers that
// travel in IKEv2, their parsing, their ranking and the list of what is never negotiated.
//
// Its invariant: a value of type IKE or ESP that passed Validate is complete (integrity is never missing) and contains
// only algorithms this program implements. It leaves the wire encoding to node/ike/wire and the keys to node/ike/suite.
package proposal

// Encryption is an IKEv2 transform type 1 number (IANA "Encryption Algorithm Transform IDs").
type Encryption uint16

// The encryption algorithms that can be negotiated.
const (
	EncrNULL             Encryption = 11
	EncrAESCBC           Encryption = 12
	EncrAESGCM16         Encryption = 20
	EncrNullAESGMAC      Encryption = 21 // integrity alone, by GMAC (RFC 4543)
	EncrChaCha20Poly1305 Encryption = 28
)

// AEAD reports whether the algorithm carries its own integrity (RFC 5282, RFC 4106, RFC 7634, RFC 4543).
func (e Encryption) AEAD() bool {
	return e == EncrAESGCM16 || e == EncrChaCha20Poly1305 || e == EncrNullAESGMAC
}

// Conceals reports whether the algorithm hides what it protects. The others are negotiated only where a policy names them.
func (e Encryption) Conceals() bool { return e != EncrNULL && e != EncrNullAESGMAC }

// PRF is an IKEv2 transform type 2 number.
type PRF uint16

// The pseudo-random functions that can be negotiated (RFC 4868).
const (
	PRFHMACSHA256 PRF = 5
	PRFHMACSHA384 PRF = 6
	PRFHMACSHA512 PRF = 7
)

// Integrity is an IKEv2 transform type 3 number.
type Integrity uint16

// The integrity algorithms that can be negotiated. IntegNone goes with an AEAD only.
const (
	IntegNone          Integrity = 0
	IntegHMACSHA256128 Integrity = 12
	IntegHMACSHA384192 Integrity = 13
	IntegHMACSHA512256 Integrity = 14
)

// Group is an IKEv2 transform type 4 number (key exchange method).
type Group uint16

// The key exchange methods that can be negotiated.
const (
	GroupNone      Group = 0
	GroupMODP2048  Group = 14
	GroupMODP3072  Group = 15
	GroupMODP4096  Group = 16
	GroupECP256    Group = 19
	GroupECP384    Group = 20
	GroupECP521    Group = 21
	GroupX25519    Group = 31
	GroupMLKEM768  Group = 36
	GroupMLKEM1024 Group = 37
)

// KEM reports whether the method is a key encapsulation mechanism (FIPS 203): the responder answers to the public value
// of the initiator, so it cannot make its own beforehand.
func (g Group) KEM() bool { return g == GroupMLKEM768 || g == GroupMLKEM1024 }

// Additional are the key exchange methods of the transform types ADDKE1 to ADDKE7 (RFC 9370 2.2.1), in that order and
// without gaps; GroupNone stands behind the last one.
type Additional [7]Group

// AdditionalOf returns methods as Additional. Those beyond the seventh are left out; Validate sees to it that a policy
// has none.
func AdditionalOf(methods ...Group) Additional {
	var a Additional
	copy(a[:], methods)
	return a
}

// Methods are the methods that are used, in their order.
func (a Additional) Methods() []Group {
	var out []Group
	for _, g := range a {
		if g != GroupNone {
			out = append(out, g)
		}
	}
	return out
}

// KeyExchange is what makes the keys of an SA: one method, and others beside it whose secrets are mixed in, so that the
// keys are as strong as the strongest of them (RFC 9370).
type KeyExchange struct {
	Group      Group
	Additional Additional
}

// IKE is one complete offer for an IKE SA: exactly one algorithm of each type. A policy holds an ordered list of them,
// most preferred first.
type IKE struct {
	Encryption Encryption
	KeyBits    uint16    // 0 for algorithms of fixed key size
	Integrity  Integrity // IntegNone with an AEAD
	PRF        PRF
	Group      Group
	Additional Additional // in IKE_INTERMEDIATE, and in IKE_FOLLOWUP_KE when the IKE SA is rekeyed
}

// KeyExchange are the methods of the offer.
func (o IKE) KeyExchange() KeyExchange { return KeyExchange{o.Group, o.Additional} }

// ESP is one complete offer for a Child SA. Extended sequence numbers are always offered beside 32-bit ones; ESN tells
// in a negotiated value which of the two was chosen.
type ESP struct {
	Encryption Encryption
	KeyBits    uint16
	Integrity  Integrity
	Group      Group      // fresh key exchange at rekey and in CREATE_CHILD_SA ("session key PFS"); GroupNone without
	Additional Additional // beside Group, in IKE_FOLLOWUP_KE
	ESN        bool
}

// KeyExchange are the methods of the offer.
func (o ESP) KeyExchange() KeyExchange { return KeyExchange{o.Group, o.Additional} }
