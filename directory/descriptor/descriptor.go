package descriptor

import (
	"encoding/binary"
	"fmt"

	"github.com/google/uuid"
)

// AceType is the type of an access control entry (MS-DTYP 2.4.4.1).
type AceType uint8

// The types that grant and deny access. All others say nothing about access, and are kept as they are.
const (
	AccessAllowed       AceType = 0x00
	AccessDenied        AceType = 0x01
	AccessAllowedObject AceType = 0x05
	AccessDeniedObject  AceType = 0x06
)

func (t AceType) String() string {
	switch t {
	case AccessAllowed:
		return "allow"
	case AccessDenied:
		return "deny"
	case AccessAllowedObject:
		return "allow object"
	case AccessDeniedObject:
		return "deny object"
	}
	return fmt.Sprintf("entry type %#02x", uint8(t))
}

// InheritOnly is the flag of an entry that says nothing about its own object (MS-DTYP 2.4.4.1).
const InheritOnly = 0x08

// Rights of an object in a directory (MS-ADTS 5.1.3.2), as masks.
const (
	CreateChild   uint32 = 0x00000001
	ListContents  uint32 = 0x00000004
	ReadProperty  uint32 = 0x00000010
	ControlAccess uint32 = 0x00000100 // an extended right
	ReadControl   uint32 = 0x00020000
	GenericAll    uint32 = 0x10000000
	GenericRead   uint32 = 0x80000000
)

// Presence bits of the GUIDs of an object entry (MS-DTYP 2.4.4.3).
const (
	objectTypePresent    = 1
	inheritedTypePresent = 2
)

// GUID is a GUID in the byte order of RFC 9562; the zero GUID stands for none.
type GUID [16]byte

// MustParseGUID reads the text form; it panics when that is none.
func MustParseGUID(s string) GUID { return GUID(uuid.MustParse(s)) }

func (g GUID) String() string { return uuid.UUID(g).String() }

// swap exchanges the byte order of the wire (MS-DTYP 2.3.4.2) with that of RFC 9562.
func (g GUID) swap() GUID {
	g[0], g[1], g[2], g[3] = g[3], g[2], g[1], g[0]
	g[4], g[5], g[6], g[7] = g[5], g[4], g[7], g[6]
	return g
}

// An Entry is an access control entry.
type Entry struct {
	Type  AceType
	Flags uint8
	Mask  uint32
	// Object is the extended right, property or class that an entry of the object types is about; InheritedObject the class
	// that inherits it. Zero for none.
	Object, InheritedObject GUID
	Trustee                 SID

	objectFlags uint32 // as read: what is present may be zero
	tail        []byte // of an entry of another type everything behind its header, else what follows the trustee
}

// known says whether the type is one of those above.
func (t AceType) known() bool {
	return t == AccessAllowed || t == AccessDenied || t.object()
}

func (t AceType) object() bool { return t == AccessAllowedObject || t == AccessDeniedObject }

// A List is an access control list.
type List struct {
	Revision uint8
	Entries  []Entry
}

// A Descriptor is a security descriptor in its self-relative form. Lists that are not there are nil: no discretionary list
// means that everybody may do everything, an empty one that nobody may.
type Descriptor struct {
	Control      uint16
	Owner, Group SID
	System       *List
	Access       *List
}

// Control bits (MS-DTYP 2.4.6).
const (
	accessPresent = 0x0004
	systemPresent = 0x0010
	selfRelative  = 0x8000
)

// Parse reads a security descriptor.
//
//	0        1    2         4          8          12           16
//	+--------+----+---------+----------+----------+------------+------------+
//	|revision|  0 | control | owner at | group at | system at  | access at  | ... little-endian, 0 for none
func Parse(b []byte) (Descriptor, error) {
	fail := func(format string, args ...any) (Descriptor, error) {
		return Descriptor{}, fmt.Errorf("%w security descriptor: %s", ErrMalformed, fmt.Sprintf(format, args...))
	}
	if len(b) < 20 || b[0] != 1 {
		return fail("%d octets, of revision 1 are 20 at least", len(b))
	}
	d := Descriptor{Control: binary.LittleEndian.Uint16(b[2:])}
	if d.Control&selfRelative == 0 {
		return fail("control %#04x does not say that it is self-relative", d.Control)
	}
	part := func(at int) ([]byte, bool) {
		offset := binary.LittleEndian.Uint32(b[at:])
		if offset == 0 {
			return nil, true
		}
		if offset < 20 || uint64(offset) >= uint64(len(b)) {
			return nil, false
		}
		return b[offset:], true
	}
	for at, sid := range map[int]*SID{4: &d.Owner, 8: &d.Group} {
		p, ok := part(at)
		if !ok {
			return fail("an identifier stands outside")
		}
		if p != nil {
			var err error
			if *sid, _, err = takeSID(p); err != nil {
				return fail("%v", err)
			}
		}
	}
	for at, l := range map[int]struct {
		list    **List
		present uint16
	}{12: {&d.System, systemPresent}, 16: {&d.Access, accessPresent}} {
		p, ok := part(at)
		switch {
		case !ok:
			return fail("an access control list stands outside")
		case p == nil:
		case d.Control&l.present == 0:
			return fail("control %#04x does not know of an access control list that is there", d.Control)
		default:
			list, err := parseList(p)
			if err != nil {
				return fail("%v", err)
			}
			*l.list = &list
		}
	}
	return d, nil
}

// parseList reads the list that b begins with (MS-DTYP 2.4.5).
func parseList(b []byte) (List, error) {
	if len(b) < 8 {
		return List{}, fmt.Errorf("access control list of %d octets, 8 at least", len(b))
	}
	size, count := int(binary.LittleEndian.Uint16(b[2:])), int(binary.LittleEndian.Uint16(b[4:]))
	if (b[0] != 2 && b[0] != 4) || size < 8 || size > len(b) {
		return List{}, fmt.Errorf("access control list of revision %d with %d octets of %d", b[0], size, len(b))
	}
	l := List{Revision: b[0]}
	b = b[8:size]
	for i := range count {
		if len(b) < 4 {
			return List{}, fmt.Errorf("entry %d of %d is not there", i+1, count)
		}
		n := int(binary.LittleEndian.Uint16(b[2:]))
		if n < 4 || n > len(b) {
			return List{}, fmt.Errorf("entry %d of %d has %d octets, there are %d", i+1, count, n, len(b))
		}
		e, err := parseEntry(b[:n])
		if err != nil {
			return List{}, fmt.Errorf("entry %d: %w", i+1, err)
		}
		l.Entries = append(l.Entries, e)
		b = b[n:]
	}
	return l, nil
}

// parseEntry reads one entry with its header: type, flags, size, and for those that are known mask, GUIDs and trustee.
func parseEntry(b []byte) (Entry, error) {
	e := Entry{Type: AceType(b[0]), Flags: b[1]}
	b = b[4:]
	if !e.Type.known() {
		e.tail = append([]byte(nil), b...)
		return e, nil
	}
	take := func(n int) ([]byte, bool) {
		if len(b) < n {
			return nil, false
		}
		head := b[:n]
		b = b[n:]
		return head, true
	}
	mask, ok := take(4)
	if !ok {
		return Entry{}, fmt.Errorf("it ends before its mask")
	}
	e.Mask = binary.LittleEndian.Uint32(mask)
	if e.Type.object() {
		flags, ok := take(4)
		if !ok {
			return Entry{}, fmt.Errorf("it ends before its flags")
		}
		e.objectFlags = binary.LittleEndian.Uint32(flags)
		for _, g := range []struct {
			bit  uint32
			into *GUID
		}{{objectTypePresent, &e.Object}, {inheritedTypePresent, &e.InheritedObject}} {
			if e.objectFlags&g.bit == 0 {
				continue
			}
			octets, ok := take(16)
			if !ok {
				return Entry{}, fmt.Errorf("it ends before its object type")
			}
			*g.into = GUID(octets).swap()
		}
	}
	var err error
	if e.Trustee, b, err = takeSID(b); err != nil {
		return Entry{}, err
	}
	e.tail = append([]byte(nil), b...)
	return e, nil
}

// Append appends the octets: what comes first in Windows comes first, the lists, then owner and group.
func (d Descriptor) Append(b []byte) []byte {
	control := d.Control | selfRelative
	start := len(b)
	b = append(b, 1, 0, 0, 0)
	b = append(b, make([]byte, 16)...)
	put := func(at int, part []byte) {
		binary.LittleEndian.PutUint32(b[start+at:], uint32(len(b)-start))
		b = append(b, part...)
	}
	if d.System != nil {
		control |= systemPresent
		put(12, d.System.append(nil))
	}
	if d.Access != nil {
		control |= accessPresent
		put(16, d.Access.append(nil))
	}
	if !d.Owner.IsZero() {
		put(4, d.Owner.Append(nil))
	}
	if !d.Group.IsZero() {
		put(8, d.Group.Append(nil))
	}
	binary.LittleEndian.PutUint16(b[start+2:], control)
	return b
}

func (l List) append(b []byte) []byte {
	start := len(b)
	b = append(b, l.Revision, 0, 0, 0)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(l.Entries)))
	b = append(b, 0, 0)
	for _, e := range l.Entries {
		b = e.append(b)
	}
	binary.LittleEndian.PutUint16(b[start+2:], uint16(len(b)-start))
	return b
}

func (e Entry) append(b []byte) []byte {
	start := len(b)
	b = append(b, byte(e.Type), e.Flags, 0, 0)
	if e.Type.known() {
		b = binary.LittleEndian.AppendUint32(b, e.Mask)
		if e.Type.object() {
			flags := e.objectFlags
			if e.Object != (GUID{}) {
				flags |= objectTypePresent
			}
			if e.InheritedObject != (GUID{}) {
				flags |= inheritedTypePresent
			}
			b = binary.LittleEndian.AppendUint32(b, flags)
			if flags&objectTypePresent != 0 {
				g := e.Object.swap()
				b = append(b, g[:]...)
			}
			if flags&inheritedTypePresent != 0 {
				g := e.InheritedObject.swap()
				b = append(b, g[:]...)
			}
		}
		b = e.Trustee.Append(b)
	}
	b = append(b, e.tail...)
	binary.LittleEndian.PutUint16(b[start+2:], uint16(len(b)-start))
	return b
}

// Extended tells about an extended right: the trustees of the entries that grant it and of those that deny it, in their
// order, without duplicates. everybody says that there is no list at all, which grants everything.
//
// An entry is about the right when it names the right or no object, and has the bit of extended rights or that of all
// rights (MS-ADTS 5.1.3.3.4). One that inheritors alone heed is not.
func (d Descriptor) Extended(right GUID) (granted, denied []SID, everybody bool) {
	if d.Access == nil {
		return nil, nil, true
	}
	add := func(list []SID, s SID) []SID {
		for _, have := range list {
			if have == s {
				return list
			}
		}
		return append(list, s)
	}
	for _, e := range d.Access.Entries {
		if !e.Type.known() || e.Flags&InheritOnly != 0 || e.Mask&(ControlAccess|GenericAll) == 0 || e.Object != (GUID{}) && e.Object != right {
			continue
		}
		if e.Type == AccessAllowed || e.Type == AccessAllowedObject {
			granted = add(granted, e.Trustee)
		} else {
			denied = add(denied, e.Trustee)
		}
	}
	return granted, denied, false
}
