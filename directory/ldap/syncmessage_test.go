package ldap

import (
	"errors"
	"strings"
	"testing"

	ber "github.com/go-asn1-ber/asn1-ber"
	goldap "github.com/go-ldap/ldap/v3"
	"github.com/google/uuid"

	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/directory/ldap/contentsync"
)

// control encodes a control, or with the intermediate response's tags one of those.
func control(oid string, intermediate bool, value *ber.Packet) []byte {
	p := ber.Encode(ber.ClassUniversal, ber.TypeConstructed, ber.TagSequence, nil, "")
	name, content := ber.TagOctetString, ber.TagOctetString
	class := ber.ClassUniversal
	if intermediate {
		// RFC 4511 4.13
		class, name, content = ber.ClassContext, 0, 1
		p = ber.Encode(ber.ClassApplication, ber.TypeConstructed, goldap.ApplicationIntermediateResponse, nil, "")
	}
	p.AppendChild(ber.NewString(class, ber.TypePrimitive, name, oid, ""))
	p.AppendChild(ber.NewString(class, ber.TypePrimitive, content, string(value.Bytes()), ""))
	return p.Bytes()
}

func sequence(class ber.Class, tag ber.Tag, members ...*ber.Packet) *ber.Packet {
	p := ber.Encode(class, ber.TypeConstructed, tag, nil, "")
	for _, m := range members {
		p.AppendChild(m)
	}
	return p
}

func octetString(s string) *ber.Packet {
	return ber.NewString(ber.ClassUniversal, ber.TypePrimitive, ber.TagOctetString, s, "")
}

func truth(b bool) *ber.Packet {
	return ber.NewBoolean(ber.ClassUniversal, ber.TypePrimitive, ber.TagBoolean, b, "")
}

func stateControl(state int64, u uuid.UUID, rest ...*ber.Packet) []byte {
	members := append([]*ber.Packet{ber.NewInteger(ber.ClassUniversal, ber.TypePrimitive, ber.TagEnumerated, state, ""), octetString(string(u[:]))}, rest...)
	return control(goldap.ControlTypeSyncState, false, sequence(ber.ClassUniversal, ber.TagSequence, members...))
}

func infoResponse(value *ber.Packet) []byte { return control(goldap.ControlTypeSyncInfo, true, value) }

var someUUID = uuid.MustParse("6ba7b810-9dad-11d1-80b4-00c04fd430c8")

func set(members ...*ber.Packet) *ber.Packet {
	return sequence(ber.ClassUniversal, ber.TagSet, members...)
}

// infos are intermediate responses and what they mean.
func infos() map[string]struct {
	data []byte
	want contentsync.Message
} {
	type row = struct {
		data []byte
		want contentsync.Message
	}
	u := directory.UUID(someUUID)
	return map[string]row{
		// The client loses this cookie: it reads the value of a universal type only.
		"new cookie":                     {infoResponse(ber.NewString(ber.ClassContext, ber.TypePrimitive, 0, "c", "")), contentsync.NewCookie{}},
		"refreshDelete":                  {infoResponse(sequence(ber.ClassContext, 1, octetString("c"))), contentsync.PhaseEnd{Deletes: true, Done: true, Cookie: "c"}},
		"refreshDelete, not done":        {infoResponse(sequence(ber.ClassContext, 1, truth(false))), contentsync.PhaseEnd{Deletes: true}},
		"refreshPresent, nothing in it":  {infoResponse(sequence(ber.ClassContext, 2)), contentsync.PhaseEnd{Done: true}},
		"refreshPresent, cookie, false":  {infoResponse(sequence(ber.ClassContext, 2, octetString("c"), truth(false))), contentsync.PhaseEnd{Cookie: "c"}},
		"syncIdSet":                      {infoResponse(sequence(ber.ClassContext, 3, set(octetString(string(someUUID[:]))))), contentsync.IDSet{UUIDs: []directory.UUID{u}}},
		"syncIdSet, cookie and deletes":  {infoResponse(sequence(ber.ClassContext, 3, octetString("c"), truth(true), set(octetString(string(someUUID[:]))))), contentsync.IDSet{Deletes: true, Cookie: "c", UUIDs: []directory.UUID{u}}},
		"syncIdSet of no entries":        {infoResponse(sequence(ber.ClassContext, 3, set())), contentsync.IDSet{UUIDs: []directory.UUID{}}},
		"syncIdSet of a short UUID":      {infoResponse(sequence(ber.ClassContext, 3, set(octetString("short")))), nil},
		"syncIdSet of the nil UUID":      {infoResponse(sequence(ber.ClassContext, 3, set(octetString(strings.Repeat("\x00", 16))))), nil},
		"an alternative that is not one": {infoResponse(sequence(ber.ClassContext, 4)), nil},
		"another intermediate response":  {control("1.2.3", true, octetString("x")), nil},
	}
}

// decode is the way of an intermediate response from the wire.
func decode(data []byte) (contentsync.Message, error) {
	p, err := ber.DecodePacketErr(data)
	if err != nil {
		return nil, err
	}
	c, err := goldap.DecodeControl(p)
	if err != nil {
		return nil, err
	}
	return syncIntermediate([]goldap.Control{c})
}

func TestSyncInfo(t *testing.T) {
	for name, tc := range infos() {
		got, err := decode(tc.data)
		if tc.want == nil {
			if got != nil {
				t.Errorf("%s is %+v", name, got)
			}
			continue
		}
		if err != nil || !equalMessages(got, tc.want) {
			t.Errorf("%s = %#v, %v; want %#v", name, got, err, tc.want)
		}
	}
}

func equalMessages(a, b contentsync.Message) bool {
	x, ok := a.(contentsync.IDSet)
	y, too := b.(contentsync.IDSet)
	if !ok || !too {
		return !ok && !too && a == b
	}
	if len(x.UUIDs) != len(y.UUIDs) {
		return false
	}
	for i := range x.UUIDs {
		if x.UUIDs[i] != y.UUIDs[i] {
			return false
		}
	}
	return x.Deletes == y.Deletes && x.Cookie == y.Cookie
}

func machineEntry(name, u string) directory.Entry {
	return entry("cn="+name+",dc=bank,dc=example", "objectClass", "device", "cn", name, "entryUUID", u)
}

// entry makes an entry of names of attributes, each with one value.
func entry(dn string, attributes ...string) directory.Entry {
	e := directory.Entry{DN: dn}
	for i := 0; i < len(attributes); i += 2 {
		e.Attributes = append(e.Attributes, directory.Attribute{Name: attributes[i], Values: attributes[i+1 : i+2]})
	}
	return e
}

func TestSyncEntry(t *testing.T) {
	state := func(s int64, u uuid.UUID) syncState { return syncState{s, directory.UUID(u), "c"} }
	for name, tc := range map[string]struct {
		entry    directory.Entry
		controls []syncState
		state    contentsync.State
		err      error
	}{
		"add":            {machineEntry("a", someUUID.String()), []syncState{state(1, someUUID)}, contentsync.Add, nil},
		"modify":         {machineEntry("a", someUUID.String()), []syncState{state(2, someUUID)}, contentsync.Modify, nil},
		"present":        {entry("cn=a"), []syncState{state(0, someUUID)}, contentsync.Present, nil},
		"delete":         {entry("cn=a"), []syncState{state(3, someUUID)}, contentsync.Delete, nil},
		"none of ours":   {entry("cn=a,dc=x", "objectClass", "person"), []syncState{state(1, someUUID)}, contentsync.Add, nil},
		"no control":     {machineEntry("a", someUUID.String()), nil, 0, errMessage},
		"two controls":   {machineEntry("a", someUUID.String()), []syncState{state(1, someUUID), state(1, someUUID)}, 0, errMessage},
		"another state":  {machineEntry("a", someUUID.String()), []syncState{state(4, someUUID)}, 0, errMessage},
		"the nil UUID":   {machineEntry("a", someUUID.String()), []syncState{state(1, uuid.Nil)}, 0, errMessage},
		"two identities": {machineEntry("a", "6ba7b811-9dad-11d1-80b4-00c04fd430c8"), []syncState{state(1, someUUID)}, 0, errMessage},
		"no identity":    {entry("cn=a,dc=x", "objectClass", "device", "cn", "a"), []syncState{state(1, someUUID)}, 0, directory.ErrInconsistent},
		"no name":        {entry("?", "objectClass", "person"), []syncState{state(1, someUUID)}, 0, directory.ErrSyntax},
		"ranged":         {entry("cn=a,dc=x", "member;range=0-9", "cn=b"), []syncState{state(1, someUUID)}, 0, errMessage},
	} {
		m, err := syncEntry(directory.OpenLDAP(), tc.entry, tc.controls)
		if tc.err != nil {
			if !errors.Is(err, tc.err) {
				t.Errorf("%s = %+v, %v; want %v", name, m, err, tc.err)
			}
			continue
		}
		e, ok := m.(contentsync.EntryState)
		if err != nil || !ok || e.State != tc.state || e.UUID != directory.UUID(someUUID) || e.Cookie != "c" {
			t.Errorf("%s = %+v, %v", name, m, err)
		}
	}
}

// FuzzSyncControls: whatever stands in a control or an intermediate response, it is a message that a session takes or
// refuses, and never a crash.
func FuzzSyncControls(f *testing.F) {
	for _, seed := range infos() {
		f.Add(seed.data)
	}
	f.Add(stateControl(1, someUUID))
	f.Add(stateControl(3, someUUID, octetString("cookie")))
	f.Add(stateControl(9, someUUID))
	f.Fuzz(func(t *testing.T, data []byte) {
		var messages []contentsync.Message
		if m, err := decode(data); err == nil && m != nil {
			messages = append(messages, m)
		}
		if states, err := syncStates(string(data)); err == nil {
			if m, err := syncEntry(directory.OpenLDAP(), machineEntry("a", someUUID.String()), states); err == nil {
				messages = append(messages, m)
			}
		}
		for _, m := range messages {
			if e, ok := m.(contentsync.EntryState); ok && e.UUID.IsZero() {
				t.Fatalf("%+v has no identity", m)
			}
			s := contentsync.Start(false)
			if err := s.Apply(m); err != nil && !errors.Is(err, contentsync.ErrAnew) {
				t.Fatalf("%+v: %v", m, err)
			}
		}
	})
}
