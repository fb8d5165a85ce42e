package descriptor_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/bailiwick-net/bailiwick/directory/descriptor"
)

func octets(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// applyGroupPolicy is the extended right of MS-GPOL 2.2.
var applyGroupPolicy = descriptor.MustParseGUID("edacfd8f-ffb3-11d1-b41d-00a0c968f939")

func TestSID(t *testing.T) {
	for _, test := range []struct{ text, octets string }{
		{"S-1-1-0", "01 01 000000000001 00000000"},
		{"S-1-5-11", "01 01 000000000005 0b000000"},
		{"S-1-5-32-544", "01 02 000000000005 20000000 20020000"},
		{"S-1-5-21-2705832230-1382967696-2234700253-515", "01 05 000000000005 15000000 26b947a1 90696e52 ddd13285 03020000"},
		{"S-1-0x010000000000", "01 00 010000000000"},
	} {
		want := octets(t, test.octets)
		s, err := descriptor.ParseSID(want)
		if err != nil || s.String() != test.text {
			t.Errorf("%s: parsed as %s, %v; want %s", test.octets, s, err, test.text)
		}
		if got := s.Append(nil); !bytes.Equal(got, want) {
			t.Errorf("%s is written as %x", test.text, got)
		}
		for n := range want {
			if _, err := descriptor.ParseSID(want[:n]); !errors.Is(err, descriptor.ErrMalformed) {
				t.Errorf("the first %d octets of %s parse", n, test.text)
			}
		}
	}
	account := descriptor.NewSID(5, 21, 1, 2, 3, 515)
	if d, ok := account.Domain(); !ok || d != descriptor.NewSID(5, 21, 1, 2, 3) || account.RID() != descriptor.DomainComputers {
		t.Errorf("the domain of %s is %s (%t), its relative identifier %d", account, d, ok, account.RID())
	}
	if _, ok := descriptor.NewSID(5, 32, 544).Domain(); ok {
		t.Error("a built-in group is of a domain")
	}
}

func TestInvalidSIDs(t *testing.T) {
	for name, text := range map[string]string{
		"empty": "", "revision": "02 01 000000000005 0b000000", "too many": "01 10 000000000005" + strings.Repeat("00000000", 16),
		"octets behind": "01 01 000000000005 0b000000 00",
	} {
		if _, err := descriptor.ParseSID(octets(t, text)); !errors.Is(err, descriptor.ErrMalformed) {
			t.Errorf("%s: error %v, want ErrMalformed", name, err)
		}
	}
}

// sample has one entry of each kind: Authenticated Users may apply, S-1-5-21-1-2-3-1000 may not, an audit entry.
func sample() descriptor.Descriptor {
	return descriptor.Descriptor{
		Control: 0x8014, Owner: descriptor.NewSID(5, 32, 544), Group: descriptor.NewSID(5, 18),
		System: &descriptor.List{Revision: 2},
		Access: &descriptor.List{Revision: 4, Entries: []descriptor.Entry{
			{Type: descriptor.AccessDeniedObject, Mask: descriptor.ControlAccess, Object: applyGroupPolicy, Trustee: descriptor.NewSID(5, 21, 1, 2, 3, 1000)},
			{Type: descriptor.AccessAllowedObject, Mask: descriptor.ControlAccess, Object: applyGroupPolicy, Trustee: descriptor.AuthenticatedUsers},
			{Type: descriptor.AccessAllowed, Mask: descriptor.GenericRead, Trustee: descriptor.Everyone},
			{Type: descriptor.AccessAllowed, Flags: descriptor.InheritOnly, Mask: descriptor.GenericAll, Trustee: descriptor.NewSID(3, 0)},
			{Type: descriptor.AccessAllowedObject, Mask: descriptor.ControlAccess, Object: descriptor.MustParseGUID("1131f6aa-9c07-11d1-f79f-00c04fc2dcd2"), Trustee: descriptor.Everyone},
			{Type: descriptor.AccessAllowed, Mask: 0x000f01ff, Trustee: descriptor.NewSID(5, 21, 1, 2, 3, 512)},
		}},
	}
}

func TestExtendedRight(t *testing.T) {
	granted, denied, everybody := sample().Extended(applyGroupPolicy)
	if everybody || !reflect.DeepEqual(granted, []descriptor.SID{descriptor.AuthenticatedUsers, descriptor.NewSID(5, 21, 1, 2, 3, 512)}) ||
		!reflect.DeepEqual(denied, []descriptor.SID{descriptor.NewSID(5, 21, 1, 2, 3, 1000)}) {
		t.Errorf("granted to %v, denied to %v, everybody %t", granted, denied, everybody)
	}
	if _, _, everybody := (descriptor.Descriptor{}).Extended(applyGroupPolicy); !everybody {
		t.Error("without a list not everybody has the right")
	}
	if granted, _, everybody := (descriptor.Descriptor{Access: &descriptor.List{}}).Extended(applyGroupPolicy); everybody || len(granted) > 0 {
		t.Error("an empty list grants something")
	}
}

func TestDescriptorRoundTripAndPrefixes(t *testing.T) {
	want := sample()
	b := want.Append(nil)
	got, err := descriptor.Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	if again := got.Append(nil); !bytes.Equal(again, b) {
		t.Errorf("written again as\n%x, want\n%x", again, b)
	}
	for n := range b {
		if _, err := descriptor.Parse(b[:n]); !errors.Is(err, descriptor.ErrMalformed) {
			t.Errorf("the first %d of %d octets parse: %v", n, len(b), err)
		}
	}
}

func TestInvalidDescriptors(t *testing.T) {
	change := func(at int, value ...byte) []byte {
		b := sample().Append(nil)
		copy(b[at:], value)
		return b
	}
	for name, b := range map[string][]byte{
		"revision":                  change(0, 2),
		"not self-relative":         change(2, 0x14, 0x00),
		"owner outside":             change(4, 0xff, 0xff),
		"owner in the header":       change(4, 4, 0),
		"list that is not present":  change(2, 0x10, 0x80),
		"list outside":              change(16, 0xff, 0xff, 0xff, 0xff),
		"list of another revision":  change(28, 9),
		"list longer than it is":    change(30, 0xff, 0xff),
		"more entries than are":     change(32, 0xff),
		"entry of no length":        change(38, 0, 0),
		"entry longer than it is":   change(38, 0xff, 0xff),
		"trustee of other revision": change(28+8+4+8+16, 7),
	} {
		if _, err := descriptor.Parse(b); !errors.Is(err, descriptor.ErrMalformed) {
			t.Errorf("%s: error %v, want ErrMalformed", name, err)
		}
	}
}

func TestRandomDescriptors(t *testing.T) {
	sid := rapid.Custom(func(t *rapid.T) descriptor.SID {
		return descriptor.NewSID(rapid.Uint64Range(1, 1<<48-1).Draw(t, "authority"), rapid.SliceOfN(rapid.Uint32(), 0, 15).Draw(t, "sub")...)
	})
	guid := rapid.Custom(func(t *rapid.T) descriptor.GUID {
		return descriptor.GUID(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "guid"))
	})
	list := rapid.Custom(func(t *rapid.T) *descriptor.List {
		l := &descriptor.List{Revision: 4}
		for range rapid.IntRange(0, 5).Draw(t, "entries") {
			e := descriptor.Entry{
				Type:  rapid.SampledFrom([]descriptor.AceType{descriptor.AccessAllowed, descriptor.AccessDenied, descriptor.AccessAllowedObject, descriptor.AccessDeniedObject}).Draw(t, "type"),
				Flags: rapid.Byte().Draw(t, "flags"), Mask: rapid.Uint32().Draw(t, "mask"), Trustee: sid.Draw(t, "trustee"),
			}
			if e.Type == descriptor.AccessAllowedObject || e.Type == descriptor.AccessDeniedObject {
				e.Object, e.InheritedObject = guid.Draw(t, "object"), guid.Draw(t, "inherited")
			}
			l.Entries = append(l.Entries, e)
		}
		return l
	})
	rapid.Check(t, func(t *rapid.T) {
		d := descriptor.Descriptor{Owner: sid.Draw(t, "owner"), Group: sid.Draw(t, "group"), System: list.Draw(t, "system"), Access: list.Draw(t, "access")}
		b := d.Append(nil)
		got, err := descriptor.Parse(b)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.Append(nil), b) || got.Owner != d.Owner || got.Group != d.Group || len(got.Access.Entries) != len(d.Access.Entries) {
			t.Fatalf("%+v reads back as %+v", d, got)
		}
		for i, e := range d.Access.Entries {
			if g := got.Access.Entries[i]; g.Type != e.Type || g.Flags != e.Flags || g.Mask != e.Mask || g.Object != e.Object || g.InheritedObject != e.InheritedObject || g.Trustee != e.Trustee {
				t.Fatalf("entry %+v reads back as %+v", e, g)
			}
		}
	})
}

// FuzzParse reads any octets. What is read is written as octets that say the same.
func FuzzParse(f *testing.F) {
	f.Add(sample().Append(nil))
	f.Add(descriptor.Descriptor{Access: &descriptor.List{Revision: 2}}.Append(nil))
	f.Add(descriptor.NewSID(5, 21, 1, 2, 3, 515).Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := descriptor.ParseSID(b); err == nil && !bytes.Equal(s.Append(nil), b) {
			t.Errorf("the identifier %s of %x is written as %x", s, b, s.Append(nil))
		}
		d, err := descriptor.Parse(b)
		if err != nil {
			if !errors.Is(err, descriptor.ErrMalformed) {
				t.Errorf("error %v does not wrap ErrMalformed", err)
			}
			return
		}
		again, err := descriptor.Parse(d.Append(nil))
		if err != nil {
			t.Fatalf("what was read cannot be read again: %v", err)
		}
		if !bytes.Equal(again.Append(nil), d.Append(nil)) {
			t.Error("what was read is written otherwise the second time")
		}
		d.Extended(applyGroupPolicy)
	})
}
