// Package descriptor reads and writes what Windows says about security as octets: security identifiers, and security
// descriptors with their access control lists (MS-DTYP 2.4), and tells what an access control list grants to whom.
//
// Its invariant: what was parsed is written as the same octets, and octets that do not say everything are refused: an access
// control list of which an entry cannot be read grants nothing. It is pure, and knows no directory: who is a member of what
// is an argument.
package descriptor

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// ErrMalformed is wrapped by every error of a Parse function.
var ErrMalformed = errors.New("malformed")

// maxSubAuthorities is what a SID may have (MS-DTYP 2.4.2.2).
const maxSubAuthorities = 15

// SID is a security identifier: who is meant. The zero SID is nobody. SIDs can be compared with ==.
type SID struct {
	count     uint8
	authority uint64 // 48 bits
	sub       [maxSubAuthorities]uint32
}

// NewSID makes S-1-authority-sub...; it panics when authority or number of sub-authorities are out of range.
func NewSID(authority uint64, sub ...uint32) SID {
	if authority >= 1<<48 || len(sub) > maxSubAuthorities {
		panic("a SID out of range")
	}
	s := SID{count: uint8(len(sub)), authority: authority}
	copy(s.sub[:], sub)
	return s
}

// Well-known SIDs (MS-DTYP 2.4.2.4).
var (
	Everyone           = NewSID(1, 0)
	AuthenticatedUsers = NewSID(5, 11)
	// EnterpriseDomainControllers are the domain controllers of the forest.
	EnterpriseDomainControllers = NewSID(5, 9)
)

// The relative identifiers of groups that every domain has.
const (
	DomainComputers   = 515
	DomainControllers = 516
)

// ParseSID reads the octets of a SID, and nothing behind it.
//
//	0        1        2                          8                  12
//	+--------+--------+--------------------------+------------------+ ...
//	|revision| count  | authority, big-endian    | sub-authority, little-endian, count times
func ParseSID(b []byte) (SID, error) {
	s, rest, err := takeSID(b)
	if err == nil && len(rest) > 0 {
		err = fmt.Errorf("%w security identifier: %d octets behind it", ErrMalformed, len(rest))
	}
	if err != nil {
		return SID{}, err
	}
	return s, nil
}

func takeSID(b []byte) (SID, []byte, error) {
	switch {
	case len(b) < 8:
		return SID{}, nil, fmt.Errorf("%w security identifier: %d octets, 8 at least", ErrMalformed, len(b))
	case b[0] != 1:
		return SID{}, nil, fmt.Errorf("%w security identifier: revision %d, only 1 is known", ErrMalformed, b[0])
	case b[1] > maxSubAuthorities:
		return SID{}, nil, fmt.Errorf("%w security identifier: %d sub-authorities, at most %d", ErrMalformed, b[1], maxSubAuthorities)
	case len(b) < 8+4*int(b[1]):
		return SID{}, nil, fmt.Errorf("%w security identifier: %d octets for %d sub-authorities", ErrMalformed, len(b), b[1])
	}
	s := SID{count: b[1]}
	for _, o := range b[2:8] {
		s.authority = s.authority<<8 | uint64(o)
	}
	for i := range int(s.count) {
		s.sub[i] = binary.LittleEndian.Uint32(b[8+4*i:])
	}
	return s, b[8+4*int(s.count):], nil
}

// Append appends the octets.
func (s SID) Append(b []byte) []byte {
	b = append(b, 1, s.count)
	for shift := 40; shift >= 0; shift -= 8 {
		b = append(b, byte(s.authority>>shift))
	}
	for _, sub := range s.sub[:s.count] {
		b = binary.LittleEndian.AppendUint32(b, sub)
	}
	return b
}

// RID returns the relative identifier: the last sub-authority, 0 when there is none.
func (s SID) RID() uint32 {
	if s.count == 0 {
		return 0
	}
	return s.sub[s.count-1]
}

// Domain returns the SID of the domain of an account or group: S-1-5-21 and three numbers; ok is false for all others.
func (s SID) Domain() (domain SID, ok bool) {
	if s.authority != 5 || s.count != 5 || s.sub[0] != 21 {
		return SID{}, false
	}
	domain = s
	domain.count, domain.sub[4] = 4, 0
	return domain, true
}

// IsZero tells the zero SID.
func (s SID) IsZero() bool { return s == SID{} }

// String writes S-1-5-21-...; an authority of 2^32 and more stands in hex (MS-DTYP 2.4.2.1).
func (s SID) String() string {
	var b strings.Builder
	b.WriteString("S-1-")
	if s.authority >= 1<<32 {
		fmt.Fprintf(&b, "0x%012X", s.authority)
	} else {
		b.WriteString(strconv.FormatUint(s.authority, 10))
	}
	for _, sub := range s.sub[:s.count] {
		b.WriteByte('-')
		b.WriteString(strconv.FormatUint(uint64(sub), 10))
	}
	return b.String()
}
