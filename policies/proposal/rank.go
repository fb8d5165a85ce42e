package proposal

import (
	"cmp"
	"slices"
	"time"
)

// The defaults of the lifetimes.
const (
	DefaultIKELifetime   = 8 * time.Hour
	DefaultChildLifetime = time.Hour
)

// DefaultIKE returns the offers for IKE SAs of a policy that names none, most preferred first.
func DefaultIKE() []IKE {
	return []IKE{
		// What is recorded today stays secret before a quantum computer; peers that cannot do it take the next one.
		{Encryption: EncrAESGCM16, KeyBits: 256, PRF: PRFHMACSHA384, Group: GroupX25519, Additional: AdditionalOf(GroupMLKEM768)},
		{Encryption: EncrAESGCM16, KeyBits: 256, PRF: PRFHMACSHA384, Group: GroupX25519},
		{Encryption: EncrAESGCM16, KeyBits: 256, PRF: PRFHMACSHA384, Group: GroupECP384},
		{Encryption: EncrAESGCM16, KeyBits: 256, PRF: PRFHMACSHA256, Group: GroupX25519},
		{Encryption: EncrAESGCM16, KeyBits: 256, PRF: PRFHMACSHA256, Group: GroupECP256},
		{Encryption: EncrAESGCM16, KeyBits: 128, PRF: PRFHMACSHA256, Group: GroupECP256},
		{Encryption: EncrAESCBC, KeyBits: 256, Integrity: IntegHMACSHA256128, PRF: PRFHMACSHA256, Group: GroupMODP3072},
	}
}

// DefaultESP returns the offers for Child SAs of an action that names none, most preferred first.
func DefaultESP() []ESP {
	return []ESP{
		{Encryption: EncrAESGCM16, KeyBits: 256},
		{Encryption: EncrAESGCM16, KeyBits: 128},
		{Encryption: EncrAESCBC, KeyBits: 256, Integrity: IntegHMACSHA256128},
	}
}

// groupBits is the strength of a key exchange (NIST SP 800-57 part 1, table 2; RFC 3526 8; RFC 7748 7; FIPS 203 8).
var groupBits = map[Group]int{
	GroupMODP2048: 112, GroupMODP3072: 128, GroupMODP4096: 152, GroupECP256: 128, GroupECP384: 192, GroupECP521: 256, GroupX25519: 128,
	GroupMLKEM768: 192, GroupMLKEM1024: 256,
}

// Strength is that of the strongest method in bits, because all of them must be broken to learn the keys.
func (k KeyExchange) Strength() int {
	bits := groupBits[k.Group]
	for _, g := range k.Additional.Methods() {
		bits = max(bits, groupBits[g])
	}
	return bits
}

// PostQuantum reports whether one of the methods withstands a quantum computer.
func (k KeyExchange) PostQuantum() bool {
	return k.Group.KEM() || slices.ContainsFunc(k.Additional.Methods(), Group.KEM)
}

// Strength returns the security strength of the offer in bits, which is that of its weakest part. It is 0 for an offer
// that does not pass Validate.
func (o IKE) Strength() int {
	if o.Validate() != nil {
		return 0
	}
	return min(cipherBits(o.Encryption, o.KeyBits), o.KeyExchange().Strength())
}

// Strength returns the strength of the confidentiality of the offer in bits, its group excepted, because without one the
// group of the IKE SA counts. It is 0 for an offer that does not encrypt or does not pass Validate.
func (o ESP) Strength() int {
	if o.Validate() != nil {
		return 0
	}
	return cipherBits(o.Encryption, o.KeyBits)
}

func cipherBits(e Encryption, bits uint16) int {
	switch e {
	case EncrNULL, EncrNullAESGMAC:
		return 0
	case EncrChaCha20Poly1305:
		return 256
	case EncrAESCBC, EncrAESGCM16:
		return int(bits)
	}
	return 0
}

// CompareIKE orders offers from the strongest; of the same strength those that withstand a quantum computer come first,
// then those with an AEAD. It is total.
func CompareIKE(a, b IKE) int {
	return cmp.Or(
		cmp.Compare(b.Strength(), a.Strength()),
		compareBool(b.KeyExchange().PostQuantum(), a.KeyExchange().PostQuantum()),
		compareBool(b.Encryption.AEAD(), a.Encryption.AEAD()),
		cmp.Compare(b.KeyBits, a.KeyBits),
		cmp.Compare(b.Encryption, a.Encryption),
		cmp.Compare(b.Integrity, a.Integrity),
		cmp.Compare(b.PRF, a.PRF),
		cmp.Compare(len(b.Additional.Methods()), len(a.Additional.Methods())),
		cmp.Compare(b.Group, a.Group),
		slices.Compare(b.Additional[:], a.Additional[:]),
	)
}

// CompareESP orders offers from the strongest; of the same strength those with an AEAD come first. It is total.
func CompareESP(a, b ESP) int {
	return cmp.Or(
		cmp.Compare(b.Strength(), a.Strength()),
		compareBool(b.Encryption.AEAD(), a.Encryption.AEAD()),
		cmp.Compare(b.Encryption, a.Encryption),
		cmp.Compare(b.KeyBits, a.KeyBits),
		cmp.Compare(b.Integrity, a.Integrity),
		cmp.Compare(len(b.Additional.Methods()), len(a.Additional.Methods())),
		cmp.Compare(b.Group, a.Group),
		slices.Compare(b.Additional[:], a.Additional[:]),
		compareBool(b.ESN, a.ESN),
	)
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

// KeyExchanges returns the key exchanges of the offers without repetition, in their order.
func KeyExchanges(offers []IKE) []KeyExchange {
	var out []KeyExchange
	for _, o := range offers {
		if k := o.KeyExchange(); !slices.Contains(out, k) {
			out = append(out, k)
		}
	}
	return out
}
