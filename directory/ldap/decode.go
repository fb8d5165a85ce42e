package ldap

import (
	"errors"
	"fmt"

	ber "github.com/go-asn1-ber/asn1-ber"
	goldap "github.com/go-ldap/ldap/v3"

	"github.com/bailiwick-net/bailiwick/directory"
)

// The identifier octets of RFC 4511 that are read here.
const (
	opSearchRequest         = 0x63
	opSearchResultEntry     = 0x64
	opSearchResultDone      = 0x65
	opSearchResultReference = 0x73
	opIntermediateResponse  = 0x79

	tagInteger     = 0x02
	tagOctetString = 0x04
	tagEnumerated  = 0x0a
	tagSequence    = 0x30
	tagSet         = 0x31
	tagBoolean     = 0x01
	tagControls    = 0xa0
)

// maxHeader is how many octets the beginning of a message takes up to the kind of its operation, at most: two identifiers
// with lengths of up to five octets, and a message ID.
const maxHeader = 24

// errDecode says that a message is not what RFC 4511 has at its place.
var errDecode = errors.New("malformed message of the server")

// tlv reads the identifier and the length at the beginning of b (RFC 4511 5.1: definite lengths only). It returns the octets
// of both and the length of the value, of which b may hold less; ok is false when the identifier is another, or b too
// short.
func tlv[B ~[]byte | ~string](b B, tag byte) (header, length int, ok bool) {
	if len(b) < 2 || b[0] != tag {
		return 0, 0, false
	}
	first := b[1]
	if first < 0x80 {
		return 2, int(first), true
	}
	n := int(first & 0x7f)
	if n == 0 || n > 4 || len(b) < 2+n {
		return 0, 0, false
	}
	for i := 2; i < 2+n; i++ {
		length = length<<8 | int(b[i])
	}
	return 2 + n, length, true
}

// element takes the element with the tag off the beginning of b.
func element[B ~[]byte | ~string](b B, tag byte) (value, rest B, ok bool) {
	header, length, ok := tlv(b, tag)
	if !ok || length > len(b)-header {
		return b[:0], b, false
	}
	return b[header : header+length], b[header+length:], true
}

// integer reads a small INTEGER or ENUMERATED that is not negative.
func integer[B ~[]byte | ~string](b B) (int64, bool) {
	if len(b) == 0 || len(b) > 8 || b[0]&0x80 != 0 {
		return 0, false
	}
	var n int64
	for i := range len(b) {
		n = n<<8 | int64(b[i])
	}
	return n, true
}

// messageKind reads the message ID and the operation of the inside of an LDAPMessage.
func messageKind(b []byte) (id int64, op byte, ok bool) {
	number, rest, ok := element(b, tagInteger)
	if !ok || len(rest) == 0 {
		return 0, 0, false
	}
	id, ok = integer(number)
	return id, rest[0], ok
}

// subtreeSearch reads the message ID of a SearchRequest with scope wholeSubtree.
func subtreeSearch(message []byte) (int64, bool) {
	inside, _, ok := element(message, tagSequence)
	if !ok {
		return 0, false
	}
	id, op, ok := messageKind(inside)
	if !ok || op != opSearchRequest {
		return 0, false
	}
	_, rest, _ := element(inside, tagInteger)
	request, _, ok := element(rest, opSearchRequest)
	if !ok {
		return 0, false
	}
	_, rest, ok = element(request, tagOctetString)
	if !ok {
		return 0, false
	}
	scope, _, ok := element(rest, tagEnumerated)
	n, small := integer(scope)
	return id, ok && small && n == goldap.ScopeWholeSubtree
}

// A decoder reads messages of a search. An entry that it returns is good until the next one: its lists are used again, and
// its texts are parts of the message.
type decoder struct {
	attributes []directory.Attribute
	values     []string
}

// received is one message of a search: an entry with its controls, a reference, or an intermediate response.
type received struct {
	op    byte
	entry directory.Entry
	// controls is what is inside of the Controls of an entry.
	controls string
	// uri is the first of a reference.
	uri string
	// intermediate is the whole message of an intermediate response.
	intermediate []byte
}

// each reads a batch of messages.
func (d *decoder) each(batch []byte, do func(received) error) error {
	for len(batch) > 0 {
		inside, rest, ok := element(batch, tagSequence)
		if !ok {
			return errDecode
		}
		r, err := d.message(batch[:len(batch)-len(rest)], inside)
		if err != nil {
			return err
		}
		if err := do(r); err != nil {
			return err
		}
		batch = rest
	}
	return nil
}

func (d *decoder) message(whole, inside []byte) (received, error) {
	_, op, ok := messageKind(inside)
	if !ok {
		return received{}, errDecode
	}
	_, rest, _ := element(inside, tagInteger)
	value, rest, ok := element(rest, op)
	if !ok {
		return received{}, errDecode
	}
	r := received{op: op}
	switch op {
	case opSearchResultEntry:
		// One text for all: what is kept of it is copied where it is kept.
		text := string(value) + string(rest)
		var err error
		if r.entry, err = d.entry(text[:len(value)]); err != nil {
			return received{}, err
		}
		if len(rest) > 0 {
			var after string
			if r.controls, after, ok = element(text[len(value):], tagControls); !ok || after != "" {
				return received{}, fmt.Errorf("%w: the controls of entry %q", errDecode, r.entry.DN)
			}
		}
	case opSearchResultReference:
		uri, _, ok := element(value, tagOctetString)
		if !ok {
			return received{}, fmt.Errorf("%w: a reference without URI", errDecode)
		}
		r.uri = string(uri)
	case opIntermediateResponse:
		r.intermediate = whole
	}
	return r, nil
}

// entry reads the inside of a SearchResultEntry (RFC 4511 4.5.2).
func (d *decoder) entry(text string) (directory.Entry, error) {
	dn, rest, ok := element(text, tagOctetString)
	if !ok {
		return directory.Entry{}, fmt.Errorf("%w: an entry without name", errDecode)
	}
	list, rest, ok := element(rest, tagSequence)
	if !ok || rest != "" {
		return directory.Entry{}, fmt.Errorf("%w: entry %q without list of attributes", errDecode, dn)
	}
	d.attributes, d.values = d.attributes[:0], d.values[:0]
	for list != "" {
		var attribute string
		if attribute, list, ok = element(list, tagSequence); !ok {
			return directory.Entry{}, fmt.Errorf("%w: an attribute of entry %q", errDecode, dn)
		}
		name, rest, named := element(attribute, tagOctetString)
		set, rest, has := element(rest, tagSet)
		if !named || !has || rest != "" {
			return directory.Entry{}, fmt.Errorf("%w: an attribute of entry %q", errDecode, dn)
		}
		first := len(d.values)
		for set != "" {
			var value string
			if value, set, ok = element(set, tagOctetString); !ok {
				return directory.Entry{}, fmt.Errorf("%w: a value of %s of entry %q", errDecode, name, dn)
			}
			d.values = append(d.values, value)
		}
		d.attributes = append(d.attributes, directory.Attribute{Name: name, Values: d.values[first:len(d.values):len(d.values)]})
	}
	return directory.Entry{DN: dn, Attributes: d.attributes}, nil
}

// syncState is a Sync State Control (RFC 4533 2.3).
type syncState struct {
	state  int64
	uuid   directory.UUID
	cookie string
}

// syncStates reads the Sync State Controls among controls.
func syncStates(controls string) ([]syncState, error) {
	var states []syncState
	for controls != "" {
		control, after, ok := element(controls, tagSequence)
		if !ok {
			return nil, fmt.Errorf("%w: a control", errDecode)
		}
		controls = after
		oid, rest, ok := element(control, tagOctetString)
		if !ok {
			return nil, fmt.Errorf("%w: a control without type", errDecode)
		}
		if oid != goldap.ControlTypeSyncState {
			continue
		}
		if _, after, ok := element(rest, tagBoolean); ok {
			rest = after
		}
		value, _, ok := element(rest, tagOctetString)
		if !ok {
			return nil, fmt.Errorf("%w: a Sync State Control without value", errDecode)
		}
		s, err := readSyncState(value)
		if err != nil {
			return nil, err
		}
		states = append(states, s)
	}
	return states, nil
}

func readSyncState(value string) (syncState, error) {
	var s syncState
	inside, after, ok := element(value, tagSequence)
	number, rest, numbered := element(inside, tagEnumerated)
	state, small := integer(number)
	uuid, rest, identified := element(rest, tagOctetString)
	if !ok || after != "" || !numbered || !small || !identified || len(uuid) != len(s.uuid) {
		return s, fmt.Errorf("%w: a Sync State Control", errDecode)
	}
	s.state = state
	copy(s.uuid[:], uuid)
	if rest != "" {
		if s.cookie, after, ok = element(rest, tagOctetString); !ok || after != "" {
			return s, fmt.Errorf("%w: the cookie of a Sync State Control", errDecode)
		}
	}
	return s, nil
}

// intermediate reads an intermediate response by the client's own decoder: there are few.
func intermediate(message []byte) ([]goldap.Control, error) {
	packet, err := ber.DecodePacketErr(message)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errDecode, err)
	}
	if len(packet.Children) < 2 {
		return nil, errDecode
	}
	control, err := goldap.DecodeControl(packet.Children[1])
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errDecode, err)
	}
	return []goldap.Control{control}, nil
}
