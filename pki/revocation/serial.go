package revocation

import (
	"math/big"
	"strings"
)

// MaxSerialBits bounds a serial number: 20 octets (RFC 5280 4.1.2.2).
const MaxSerialBits = 160

// ParseSerial reads a serial number as people copy it: hexadecimal in any case, with colons or 0x.
func ParseSerial(text string) (*big.Int, bool) {
	digits := strings.TrimPrefix(strings.ToLower(strings.ReplaceAll(text, ":", "")), "0x")
	number, ok := new(big.Int).SetString(digits, 16)
	return number, ok && IsSerial(number)
}

// IsSerial reports whether a number can be a serial number.
func IsSerial(number *big.Int) bool {
	return number != nil && number.Sign() > 0 && number.BitLen() <= MaxSerialBits
}
