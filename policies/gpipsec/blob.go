// Package gpipsec owns the IPsec policies that Windows keeps in a directory for Group Policy (MS-GPIPSEC): the five kinds
// of binary values, the objects that refer to one another, and what they say as documents of package policies.
//
// Its invariant: no length and no reference of the directory is believed; what cannot be said in a document comes out as
// a Note, never silently, and a preshared key never comes out at all. Documents that Convert returns pass
// policies.Validate. It leaves reading the directory to directory/ldif and directory/ldap.
package gpipsec

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"unicode/utf16"
)

// MaxBlob is the largest value that is looked at, in octets: far beyond the 10,000 filters of any policy that was seen.
const MaxBlob = 4 << 20

// ErrBlob is wrapped by every error about a value that is not what its object says.
var ErrBlob = errors.New("not a value of MS-GPIPSEC")

// GUID is an identifier in the order of octets of the wire: three fields little-endian, the rest as it is printed.
type GUID [16]byte

// String prints the identifier in braces, as directories do.
func (g GUID) String() string {
	return fmt.Sprintf("{%08X-%04X-%04X-%X-%X}", binary.LittleEndian.Uint32(g[:4]), binary.LittleEndian.Uint16(g[4:6]), binary.LittleEndian.Uint16(g[6:8]),
		g[8:10], g[10:])
}

// The identifiers at the head of each kind of value (MS-GPIPSEC 2.2.1).
var (
	policyID      = GUID{0x63, 0x21, 0x20, 0x22, 0x4c, 0x4f, 0xd1, 0x11, 0x86, 0x3b, 0x00, 0xa0, 0x24, 0x8d, 0x30, 0x21}
	mainModeID    = GUID{0xb8, 0x20, 0xdc, 0x80, 0xc8, 0x2e, 0xd1, 0x11, 0xa8, 0x9e, 0x00, 0xa0, 0x24, 0x8d, 0x30, 0x21}
	ruleID        = GUID{0x00, 0xac, 0xbb, 0x11, 0x8d, 0x49, 0xd1, 0x11, 0x86, 0x39, 0x00, 0xa0, 0x24, 0x8d, 0x30, 0x21}
	negotiationID = GUID{0xb9, 0x20, 0xdc, 0x80, 0xc8, 0x2e, 0xd1, 0x11, 0xa8, 0x9e, 0x00, 0xa0, 0x24, 0x8d, 0x30, 0x21}
	filterID      = GUID{0xb5, 0x20, 0xdc, 0x80, 0xc8, 0x2e, 0xd1, 0x11, 0xa8, 0x9e, 0x00, 0xa0, 0x24, 0x8d, 0x30, 0x21}
	filter2ID     = GUID{0x3d, 0xcd, 0xfe, 0x35, 0x29, 0xae, 0x73, 0x43, 0x8a, 0x6a, 0xc5, 0xd8, 0xfa, 0xb2, 0xfb, 0x08}
	alternateID   = GUID{1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}
	flagsID       = GUID{1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2}
	tunnel6ID     = GUID{1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 3}
)

// cursor walks a value from its head. The first thing that is missing ends the walk: everything after it is zero.
type cursor struct {
	rest []byte
	err  error
}

// open checks the head. The length that follows is read over: writers disagree on what it counts (with or without the
// number of elements, with or without the last octet), so that only the content tells where something ends.
func open(data []byte, id GUID, what string) *cursor {
	c := &cursor{rest: data}
	if len(data) > MaxBlob {
		c.err = fmt.Errorf("%w: %s of %d octets, at most %d are read", ErrBlob, what, len(data), MaxBlob)
		return c
	}
	if head := c.guid(); c.err == nil && head != id {
		c.err = fmt.Errorf("%w: %s begins with %s, not with %s", ErrBlob, what, head, id)
	}
	c.u32()
	return c
}

func (c *cursor) take(n uint32, what string) []byte {
	if c.err == nil && uint64(n) > uint64(len(c.rest)) {
		c.err = fmt.Errorf("%w: %s wants %d octets, %d are left", ErrBlob, what, n, len(c.rest))
	}
	if c.err != nil {
		return nil
	}
	out := c.rest[:n]
	c.rest = c.rest[n:]
	return out
}

func (c *cursor) u8() uint8 {
	if b := c.take(1, "an octet"); b != nil {
		return b[0]
	}
	return 0
}

func (c *cursor) u16() uint16 {
	if b := c.take(2, "a number"); b != nil {
		return binary.LittleEndian.Uint16(b)
	}
	return 0
}

func (c *cursor) u32() uint32 {
	if b := c.take(4, "a number"); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

func (c *cursor) guid() (g GUID) {
	copy(g[:], c.take(16, "an identifier"))
	return g
}

func (c *cursor) four() (a [4]byte) {
	copy(a[:], c.take(4, "an address"))
	return a
}

func (c *cursor) sixteen() (a [16]byte) {
	copy(a[:], c.take(16, "an address"))
	return a
}

// text reads a length in octets and that much UTF-16, up to a NUL.
func (c *cursor) text(what string) string { return decodeText(c.take(c.u32(), what)) }

func decodeText(b []byte) string {
	units := make([]uint16, 0, len(b)/2)
	for ; len(b) >= 2; b = b[2:] {
		u := binary.LittleEndian.Uint16(b)
		if u == 0 {
			break
		}
		units = append(units, u)
	}
	return string(utf16.Decode(units))
}

// count reads how many elements of at least size octets follow, and refuses more than there is room for.
func (c *cursor) count(size int, what string) int {
	n := c.u32()
	if c.err == nil && uint64(n)*uint64(size) > uint64(len(c.rest)) {
		c.err = fmt.Errorf("%w: %d %s, but only %d octets are left", ErrBlob, n, what, len(c.rest))
	}
	if c.err != nil {
		return 0
	}
	return int(n)
}

// at reports whether the identifier is next, at most one octet of zero before it: some writers end what precedes an
// optional part with one.
func (c *cursor) at(id GUID) bool {
	if c.err != nil {
		return false
	}
	if bytes.HasPrefix(c.rest, id[:]) {
		return true
	}
	return len(c.rest) > 0 && c.rest[0] == 0 && bytes.HasPrefix(c.rest[1:], id[:])
}

// skip moves behind the identifier that at found.
func (c *cursor) skip(id GUID) {
	if !bytes.HasPrefix(c.rest, id[:]) {
		c.u8()
	}
	c.guid()
}

// end returns how many octets were not understood; one octet of zero closes a value.
func (c *cursor) end() int {
	if len(c.rest) == 1 && c.rest[0] == 0 {
		return 0
	}
	return len(c.rest)
}

func appendU32(dst []byte, v uint32) []byte { return binary.LittleEndian.AppendUint32(dst, v) }

func appendFlag(dst []byte, v bool) []byte {
	if v {
		return appendU32(dst, 1)
	}
	return appendU32(dst, 0)
}

// appendText writes UTF-16 with a NUL behind it.
func appendText(dst []byte, s string) []byte {
	units := append(utf16.Encode([]rune(s)), 0)
	dst = appendU32(dst, uint32(2*len(units)))
	for _, u := range units {
		dst = binary.LittleEndian.AppendUint16(dst, u)
	}
	return dst
}

// seal writes the head and its length behind which body stands, and the last octet. Counted says how many octets of the
// body the length counts.
func seal(dst []byte, id GUID, body []byte, counted int) []byte {
	dst = append(dst, id[:]...)
	dst = appendU32(dst, uint32(counted))
	return append(append(dst, body...), 0)
}
