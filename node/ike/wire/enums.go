package wire

import "fmt"

// ExchangeType is the exchange type octet of the IKE header (RFC 7296 3.1).
type ExchangeType uint8

// The exchange types.
const (
	IKESAInit       ExchangeType = 34
	IKEAuth         ExchangeType = 35
	CreateChildSA   ExchangeType = 36
	Informational   ExchangeType = 37
	IKEIntermediate ExchangeType = 43 // RFC 9242
	IKEFollowupKE   ExchangeType = 44 // RFC 9370
)

// String gives the IANA name.
func (e ExchangeType) String() string {
	switch e {
	case IKESAInit:
		return "IKE_SA_INIT"
	case IKEAuth:
		return "IKE_AUTH"
	case CreateChildSA:
		return "CREATE_CHILD_SA"
	case Informational:
		return "INFORMATIONAL"
	case IKEIntermediate:
		return "IKE_INTERMEDIATE"
	case IKEFollowupKE:
		return "IKE_FOLLOWUP_KE"
	}
	return fmt.Sprintf("EXCHANGE(%d)", uint8(e))
}

// PayloadType is the number in a next payload field (RFC 7296 3.2).
type PayloadType uint8

// The payload types.
const (
	NoNextPayload PayloadType = 0
	TypeSA        PayloadType = 33
	TypeKE        PayloadType = 34
	TypeIDi       PayloadType = 35
	TypeIDr       PayloadType = 36
	TypeCert      PayloadType = 37
	TypeCertReq   PayloadType = 38
	TypeAuth      PayloadType = 39
	TypeNonce     PayloadType = 40
	TypeNotify    PayloadType = 41
	TypeDelete    PayloadType = 42
	TypeVendorID  PayloadType = 43
	TypeTSi       PayloadType = 44
	TypeTSr       PayloadType = 45
	TypeSK        PayloadType = 46
	TypeConfig    PayloadType = 47
	TypeEAP       PayloadType = 48
	TypeSKF       PayloadType = 53 // RFC 7383
)

// String gives the notation of RFC 7296 1.2 where it has one; it is the form that traces use.
func (p PayloadType) String() string {
	switch p {
	case NoNextPayload:
		return "none"
	case TypeSA:
		return "SA"
	case TypeKE:
		return "KE"
	case TypeIDi:
		return "IDi"
	case TypeIDr:
		return "IDr"
	case TypeCert:
		return "CERT"
	case TypeCertReq:
		return "CERTREQ"
	case TypeAuth:
		return "AUTH"
	case TypeNonce:
		return "Nonce"
	case TypeNotify:
		return "N"
	case TypeDelete:
		return "D"
	case TypeVendorID:
		return "V"
	case TypeTSi:
		return "TSi"
	case TypeTSr:
		return "TSr"
	case TypeSK:
		return "SK"
	case TypeConfig:
		return "CP"
	case TypeEAP:
		return "EAP"
	case TypeSKF:
		return "SKF"
	}
	return fmt.Sprintf("PAYLOAD(%d)", uint8(p))
}

// Protocol is a security protocol identifier (RFC 7296 3.3.1).
type Protocol uint8

// The protocols. ProtocolNone stands in a Notify that concerns no SA.
const (
	ProtocolNone Protocol = 0
	ProtocolIKE  Protocol = 1
	ProtocolAH   Protocol = 2
	ProtocolESP  Protocol = 3
)

// String gives the name of the protocol.
func (p Protocol) String() string {
	switch p {
	case ProtocolNone:
		return "none"
	case ProtocolIKE:
		return "IKE"
	case ProtocolAH:
		return "AH"
	case ProtocolESP:
		return "ESP"
	}
	return fmt.Sprintf("PROTOCOL(%d)", uint8(p))
}

// TransformType tells what a transform is for (RFC 7296 3.3.2).
type TransformType uint8

// The transform types that this program negotiates. Types 6 to 12 are the additional key exchanges of RFC 9370.
const (
	TransformEncryption TransformType = 1
	TransformPRF        TransformType = 2
	TransformIntegrity  TransformType = 3
	TransformGroup      TransformType = 4
	TransformESN        TransformType = 5
	// TransformAdditional1 is ADDKE1, the first of seven.
	TransformAdditional1 TransformType = 6
)

// String gives the abbreviation of RFC 7296 3.3.2.
func (t TransformType) String() string {
	switch t {
	case TransformEncryption:
		return "ENCR"
	case TransformPRF:
		return "PRF"
	case TransformIntegrity:
		return "INTEG"
	case TransformGroup:
		return "KE"
	case TransformESN:
		return "ESN"
	}
	if t.additional() {
		return fmt.Sprintf("ADDKE%d", t-TransformAdditional1+1)
	}
	return fmt.Sprintf("TRANSFORM(%d)", uint8(t))
}

// The transforms of type ESN.
const (
	ESNNo  uint16 = 0
	ESNYes uint16 = 1
)

// IDType is the type of an identification payload (RFC 7296 3.5).
type IDType uint8

// The identification types.
const (
	IDIPv4Addr  IDType = 1
	IDFQDN      IDType = 2
	IDRFC822    IDType = 3
	IDIPv6Addr  IDType = 5
	IDDERASN1DN IDType = 9
	IDDERASN1GN IDType = 10
	IDKeyID     IDType = 11
	IDNull      IDType = 13 // RFC 7619
)

// String gives the IANA name.
func (t IDType) String() string {
	switch t {
	case IDIPv4Addr:
		return "ID_IPV4_ADDR"
	case IDFQDN:
		return "ID_FQDN"
	case IDRFC822:
		return "ID_RFC822_ADDR"
	case IDIPv6Addr:
		return "ID_IPV6_ADDR"
	case IDDERASN1DN:
		return "ID_DER_ASN1_DN"
	case IDDERASN1GN:
		return "ID_DER_ASN1_GN"
	case IDKeyID:
		return "ID_KEY_ID"
	case IDNull:
		return "ID_NULL"
	}
	return fmt.Sprintf("ID(%d)", uint8(t))
}

// AuthMethod is the method of an AUTH payload (RFC 7296 3.8).
type AuthMethod uint8

// The authentication methods.
const (
	AuthRSA              AuthMethod = 1
	AuthSharedKey        AuthMethod = 2
	AuthDSS              AuthMethod = 3
	AuthECDSA256         AuthMethod = 9  // RFC 4754
	AuthECDSA384         AuthMethod = 10 // RFC 4754
	AuthECDSA521         AuthMethod = 11 // RFC 4754
	AuthNull             AuthMethod = 13 // RFC 7619
	AuthDigitalSignature AuthMethod = 14 // RFC 7427
)

// String names the method.
func (m AuthMethod) String() string {
	switch m {
	case AuthRSA:
		return "RSA"
	case AuthSharedKey:
		return "PSK"
	case AuthDSS:
		return "DSS"
	case AuthECDSA256:
		return "ECDSA-256"
	case AuthECDSA384:
		return "ECDSA-384"
	case AuthECDSA521:
		return "ECDSA-521"
	case AuthNull:
		return "NULL"
	case AuthDigitalSignature:
		return "DIGITAL-SIGNATURE"
	}
	return fmt.Sprintf("AUTH(%d)", uint8(m))
}

// HashAlgorithm is a number in the SIGNATURE_HASH_ALGORITHMS notify (RFC 7427 4, RFC 8420).
type HashAlgorithm uint16

// The hash algorithms. HashIdentity goes with EdDSA. SHA-1 is named so that it can be refused by name.
const (
	HashSHA1     HashAlgorithm = 1
	HashSHA256   HashAlgorithm = 2
	HashSHA384   HashAlgorithm = 3
	HashSHA512   HashAlgorithm = 4
	HashIdentity HashAlgorithm = 5
)

// String gives the IANA name.
func (h HashAlgorithm) String() string {
	switch h {
	case HashSHA1:
		return "SHA1"
	case HashSHA256:
		return "SHA2-256"
	case HashSHA384:
		return "SHA2-384"
	case HashSHA512:
		return "SHA2-512"
	case HashIdentity:
		return "identity"
	}
	return fmt.Sprintf("HASH(%d)", uint16(h))
}

// CertEncoding is the encoding octet of CERT and CERTREQ payloads (RFC 7296 3.6).
type CertEncoding uint8

// The encodings.
const (
	CertPKCS7         CertEncoding = 1
	CertX509Signature CertEncoding = 4
	CertCRL           CertEncoding = 7
	CertHashURL       CertEncoding = 12
	CertOCSP          CertEncoding = 14 // RFC 4806
	CertRawPublicKey  CertEncoding = 15 // RFC 7670
)

// String names the encoding.
func (c CertEncoding) String() string {
	switch c {
	case CertPKCS7:
		return "PKCS7"
	case CertX509Signature:
		return "X509"
	case CertCRL:
		return "CRL"
	case CertHashURL:
		return "HASH-URL"
	case CertOCSP:
		return "OCSP"
	case CertRawPublicKey:
		return "RAW-PUBLIC-KEY"
	}
	return fmt.Sprintf("CERT(%d)", uint8(c))
}

// ConfigType is the type octet of a CP payload (RFC 7296 3.15).
type ConfigType uint8

// The configuration types.
const (
	ConfigRequest ConfigType = 1
	ConfigReply   ConfigType = 2
	ConfigSet     ConfigType = 3
	ConfigAck     ConfigType = 4
)

// String gives the name of RFC 7296 3.15.
func (c ConfigType) String() string {
	switch c {
	case ConfigRequest:
		return "CFG_REQUEST"
	case ConfigReply:
		return "CFG_REPLY"
	case ConfigSet:
		return "CFG_SET"
	case ConfigAck:
		return "CFG_ACK"
	}
	return fmt.Sprintf("CFG(%d)", uint8(c))
}
