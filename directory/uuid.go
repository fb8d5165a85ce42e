package directory

import (
	"encoding/hex"

	"github.com/google/uuid"
)

// A UUID is the lasting identity of a directory entry: entryUUID (RFC 4530) or objectGUID, in the byte order of RFC 9562.
type UUID [16]byte

// ParseUUID reads the 36-character text form, in either case; the zero UUID is refused, for it identifies nothing.
func ParseUUID(s string) (UUID, error) {
	fail := func(at int, reason string) (UUID, error) {
		return UUID{}, &SyntaxError{What: "UUID", Input: shorten(s), Offset: at, Reason: reason}
	}
	if len(s) != 36 {
		return fail(0, "36 characters are expected, as in 6ba7b810-9dad-11d1-80b4-00c04fd430c8")
	}
	var u UUID
	n := 0
	for i := 0; i < len(s); {
		if i == 8 || i == 13 || i == 18 || i == 23 {
			if s[i] != '-' {
				return fail(i, "a hyphen is expected")
			}
			i++
			continue
		}
		hi, lo := unhex(s[i]), unhex(s[i+1])
		if hi < 0 || lo < 0 {
			return fail(i, "hex digits are expected")
		}
		u[n] = byte(hi<<4 | lo)
		n++
		i += 2
	}
	if u.IsZero() {
		return fail(0, "the nil UUID identifies nothing")
	}
	return u, nil
}

// UUIDFromObjectGUID reads the 16 octets of Active Directory's objectGUID, whose first three fields are little-endian
// (MS-DTYP 2.3.4.2).
func UUIDFromObjectGUID(b []byte) (UUID, error) {
	if len(b) != 16 {
		return UUID{}, &SyntaxError{What: "objectGUID", Input: shorten(hex.EncodeToString(b)), Reason: "16 octets are expected"}
	}
	u := UUID{b[3], b[2], b[1], b[0], b[5], b[4], b[7], b[6]}
	copy(u[8:], b[8:])
	if u.IsZero() {
		return UUID{}, &SyntaxError{What: "objectGUID", Input: hex.EncodeToString(b), Reason: "the nil UUID identifies nothing"}
	}
	return u, nil
}

// IsZero tells the nil UUID, which no entry has.
func (u UUID) IsZero() bool { return u == UUID{} }

// String returns the lower-case text form.
func (u UUID) String() string { return uuid.UUID(u).String() }

// MarshalText returns String.
func (u UUID) MarshalText() ([]byte, error) { return []byte(u.String()), nil }

// UnmarshalText is ParseUUID.
func (u *UUID) UnmarshalText(text []byte) error {
	v, err := ParseUUID(string(text))
	if err != nil {
		return err
	}
	*u = v
	return nil
}

// derivedNamespace separates UUIDs derived here from all other version 5 UUIDs.
var derivedNamespace = uuid.MustParse("6c1d7f34-1a5e-4d2b-9b1e-5b0c2f0e7a41")

// deriveUUID makes a stable identity for an entry that has none: version 5 (RFC 9562 5.5) of its kind, its domain and a
// name that stays when the entry moves.
func deriveUUID(kind, domain, name string) UUID {
	return UUID(uuid.NewSHA1(derivedNamespace, []byte(kind+"\x00"+domain+"\x00"+fold(name))))
}
