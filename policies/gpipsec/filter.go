package gpipsec

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
)

// FilterValue is the ipsecData of an ipsecFilter, a whole list (MS-GPIPSEC 2.2.1.5.1):
//
//	identifier (16) | length (4) | number (4) | filters | [0 (1)] |
//	[ identifier (16) | length (4) | number of the first kind (4) | number (4) | filters of the second kind ] | 0 (1)
type FilterValue struct {
	Filters  []Filter1
	Filters2 []Filter2
	Unknown  int // octets behind the value that are not understood
}

// Filter1 is a filter of IPv4 and single ports:
//
//	source name | destination name | description | identifier (16) | mirrored (4) | source (4) | mask (4) |
//	destination (4) | mask (4) | tunnel (4) | protocol (4) | source port (2) | destination port (2) | is tunnel (1) |
//	special (1) | options (2)
type Filter1 struct {
	SourceName, DestinationName, Description string
	ID                                       GUID
	Mirrored                                 bool
	Source, SourceMask                       [4]byte
	Destination, DestinationMask             [4]byte
	Tunnel                                   [4]byte
	Protocol                                 uint32
	SourcePort, DestinationPort              uint16
	IsTunnel                                 bool
	// Special names servers of the machine instead of an address: 1 DNS, 2 WINS, 3 DHCP, 4 gateway as the source, the same
	// with 0x80 as the destination.
	Special uint8
}

const minFilter1 = 64

// Filter2 is a filter of both families, and of ranges:
//
//	source name | destination name | description | identifier (16) | mirrored (4) | source (40) | destination (40) |
//	source port (8) | destination port (8) | protocol (4) | flags (4)
type Filter2 struct {
	SourceName, DestinationName, Description string
	ID                                       GUID
	Mirrored                                 bool
	Source, Destination                      Address2
	SourcePort, DestinationPort              Port2
	Protocol                                 uint32
	Flags                                    uint32 // 8: counts instead of the filters of the first kind that say the same
}

const minFilter2 = 136

// Address2 is type (4) | version (4) | address (16) | second address (16).
type Address2 struct {
	Type    uint32 // 0 any, 1 address, 2 range, 4 subnet, 8 me, 0x10 DNS, 0x20 WINS, 0x40 DHCP, 0x80 gateway
	Version uint32 // 1 IPv4, 2 IPv6, 3 both
	First   [16]byte
	Second  [16]byte // end of the range; mask of an IPv4 subnet; length of the prefix of an IPv6 subnet in the first octet
}

// Port2 is type (4) | port (2) | end (2).
type Port2 struct {
	Type     uint32 // 0 any, 1 one, 2 range
	From, To uint16
}

// ParseFilter reads the value. The error wraps ErrBlob.
func ParseFilter(data []byte) (FilterValue, error) {
	c := open(data, filterID, "an ipsecFilter")
	var v FilterValue
	// A second number, behind the filters, overrides this one (Number-Of-Filters11): what stands before the second part
	// are filters of the first kind, however many were announced.
	announced := c.count(0, "filters")
	second := bytes.Contains(c.rest, filter2ID[:])
	if !second && announced > len(c.rest)/minFilter1 && c.err == nil {
		c.err = fmt.Errorf("%w: %d filters, but only %d octets are left", ErrBlob, announced, len(c.rest))
	}
	for c.err == nil && !c.at(filter2ID) && (second || len(v.Filters) < announced) {
		v.Filters = append(v.Filters, c.filter1())
	}
	if c.at(filter2ID) {
		c.skip(filter2ID)
		c.u32()
		c.u32()
		for range c.count(minFilter2, "filters of the second kind") {
			v.Filters2 = append(v.Filters2, c.filter2())
		}
	}
	v.Unknown = c.end()
	return v, c.err
}

func (c *cursor) filter1() Filter1 {
	f := Filter1{
		SourceName: c.text("the name of a source"), DestinationName: c.text("the name of a destination"), Description: c.text("a description"),
		ID: c.guid(), Mirrored: c.u32() != 0, Source: c.four(), SourceMask: c.four(), Destination: c.four(), DestinationMask: c.four(),
		Tunnel: c.four(), Protocol: c.u32(), SourcePort: c.u16(), DestinationPort: c.u16(), IsTunnel: c.u8() != 0, Special: c.u8(),
	}
	c.u16()
	return f
}

func (c *cursor) filter2() Filter2 {
	return Filter2{
		SourceName: c.text("the name of a source"), DestinationName: c.text("the name of a destination"), Description: c.text("a description"),
		ID: c.guid(), Mirrored: c.u32() != 0, Source: c.address2(), Destination: c.address2(), SourcePort: c.port2(), DestinationPort: c.port2(),
		Protocol: c.u32(), Flags: c.u32(),
	}
}

func (c *cursor) address2() Address2 {
	return Address2{Type: c.u32(), Version: c.u32(), First: c.sixteen(), Second: c.sixteen()}
}

func (c *cursor) port2() Port2 { return Port2{Type: c.u32(), From: c.u16(), To: c.u16()} }

// Append writes the value as current versions of Windows do.
func (v FilterValue) Append(dst []byte) []byte {
	body := appendU32(nil, uint32(len(v.Filters)))
	for _, f := range v.Filters {
		body = appendText(appendText(appendText(body, f.SourceName), f.DestinationName), f.Description)
		body = appendFlag(append(body, f.ID[:]...), f.Mirrored)
		for _, a := range [][4]byte{f.Source, f.SourceMask, f.Destination, f.DestinationMask, f.Tunnel} {
			body = append(body, a[:]...)
		}
		body = appendU32(body, f.Protocol)
		body = binary.LittleEndian.AppendUint16(body, f.SourcePort)
		body = binary.LittleEndian.AppendUint16(body, f.DestinationPort)
		tunnel := byte(0)
		if f.IsTunnel {
			tunnel = 1
		}
		body = append(body, tunnel, f.Special, 0, 0)
	}
	counted := len(body) - 4
	if len(v.Filters2) > 0 {
		second := appendU32(appendU32(nil, uint32(len(v.Filters))), uint32(len(v.Filters2)))
		for _, f := range v.Filters2 {
			second = appendText(appendText(appendText(second, f.SourceName), f.DestinationName), f.Description)
			second = appendFlag(append(second, f.ID[:]...), f.Mirrored)
			for _, a := range []Address2{f.Source, f.Destination} {
				second = appendU32(appendU32(second, a.Type), a.Version)
				second = append(append(second, a.First[:]...), a.Second[:]...)
			}
			for _, p := range []Port2{f.SourcePort, f.DestinationPort} {
				second = binary.LittleEndian.AppendUint16(appendU32(second, p.Type), p.From)
				second = binary.LittleEndian.AppendUint16(second, p.To)
			}
			second = appendU32(appendU32(second, f.Protocol), f.Flags)
		}
		body = append(body, filter2ID[:]...)
		body = appendU32(body, uint32(len(second)))
		body = append(body, second...)
	}
	return seal(dst, filterID, body, counted)
}

// address returns what one address of the first part is called where it is no address of its own: me and any.
func address4(a, mask [4]byte) (p netip.Prefix, contiguous bool) {
	bits := 0
	m := binary.BigEndian.Uint32(mask[:])
	for ; bits < 32 && m&(1<<(31-bits)) != 0; bits++ {
	}
	contiguous = m == ^uint32(0)<<(32-bits) || bits == 0 && m == 0
	return netip.PrefixFrom(netip.AddrFrom4(a), bits).Masked(), contiguous
}
