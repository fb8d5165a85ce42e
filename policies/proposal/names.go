package proposal

import "fmt"

const (
	sha256 = "SHA256"
	sha384 = "SHA384"
	sha512 = "SHA512"
)

var prfNames = map[PRF]string{PRFHMACSHA256: sha256, PRFHMACSHA384: sha384, PRFHMACSHA512: sha512}

var integrityNames = map[Integrity]string{IntegHMACSHA256128: sha256, IntegHMACSHA384192: sha384, IntegHMACSHA512256: sha512}

var groupNames = map[Group]string{
	GroupMODP2048: "modp2048", GroupMODP3072: "modp3072", GroupMODP4096: "modp4096",
	GroupECP256: "ecp256", GroupECP384: "ecp384", GroupECP521: "ecp521", GroupX25519: "x25519",
	GroupMLKEM768: "mlkem768", GroupMLKEM1024: "mlkem1024",
}

// String names the methods as offers do: "x25519+mlkem768".
func (k KeyExchange) String() string {
	text := k.Group.String()
	for _, g := range k.Additional.Methods() {
		text += "+" + g.String()
	}
	return text
}

// String names the algorithm without its key length.
func (e Encryption) String() string {
	switch e {
	case EncrNULL:
		return "None"
	case EncrAESCBC:
		return "AES"
	case EncrAESGCM16:
		return "AES-GCM"
	case EncrNullAESGMAC:
		return "AES-GMAC"
	case EncrChaCha20Poly1305:
		return "CHACHA20-POLY1305"
	}
	return fmt.Sprintf("encryption(%d)", uint16(e))
}

// String names the hash of the function as offers do.
func (p PRF) String() string {
	if name, ok := prfNames[p]; ok {
		return name
	}
	return fmt.Sprintf("prf(%d)", uint16(p))
}

// String names the hash of the algorithm as offers do.
func (i Integrity) String() string {
	if i == IntegNone {
		return "None"
	}
	if name, ok := integrityNames[i]; ok {
		return name
	}
	return fmt.Sprintf("integrity(%d)", uint16(i))
}

// String names the method as offers do.
func (g Group) String() string {
	if g == GroupNone {
		return "none"
	}
	if name, ok := groupNames[g]; ok {
		return name
	}
	return fmt.Sprintf("group(%d)", uint16(g))
}
