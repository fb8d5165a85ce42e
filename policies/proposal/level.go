package proposal

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Level names a list of offers for Child SAs by how much it protects. Peers of different levels find an offer: each list
// holds the ones of the levels above it behind its own.
type Level uint8

// The levels. The zero value is none.
const (
	LevelLow    Level = iota + 1 // integrity is enough, encryption is accepted; what Windows calls medium
	LevelMedium                  // encryption with keys of 128 bits and more
	LevelHigh                    // encryption with keys of 256 bits
)

var levelNames = [...]string{"low", "medium", "high"}

// String names the level as documents do.
func (l Level) String() string {
	if l >= LevelLow && l <= LevelHigh {
		return levelNames[l-1]
	}
	return fmt.Sprintf("level(%d)", uint8(l))
}

// ParseLevel reads the name of a level.
func ParseLevel(s string) (Level, error) {
	i := slices.Index(levelNames[:], s)
	if i < 0 {
		return 0, fmt.Errorf("%q is not one of %s", s, strings.Join(levelNames[:], ", "))
	}
	return Level(i + 1), nil
}

// Life is the lifetime of the offers of a level: the hour of Windows, without its bound of 100 MB, which was made for
// ciphers of 64-bit blocks.
func (l Level) Life() Life { return Life{Time: time.Hour} }

// Offers lists the offers, most preferred first; none for the zero value.
func (l Level) Offers() []ESP {
	high := []ESP{{Encryption: EncrAESGCM16, KeyBits: 256}, {Encryption: EncrChaCha20Poly1305}}
	medium := []ESP{
		{Encryption: EncrAESGCM16, KeyBits: 128},
		{Encryption: EncrAESCBC, KeyBits: 256, Integrity: IntegHMACSHA256128},
		{Encryption: EncrAESCBC, KeyBits: 128, Integrity: IntegHMACSHA256128},
	}
	low := []ESP{
		{Encryption: EncrNullAESGMAC, KeyBits: 256}, {Encryption: EncrNullAESGMAC, KeyBits: 128},
		{Encryption: EncrNULL, Integrity: IntegHMACSHA256128},
	}
	switch l {
	case LevelLow:
		return slices.Concat(low, high, medium)
	case LevelMedium:
		return slices.Concat(high, medium)
	case LevelHigh:
		return high
	}
	return nil
}
