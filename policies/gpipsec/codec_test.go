package gpipsec_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/policies/gpipsec"
)

// text draws what survives UTF-16 with a NUL behind it.
func text() *rapid.Generator[string] {
	return rapid.StringMatching(`[A-Za-z0-9äß€𝄞 .,=:-]{0,20}`)
}

func guid() *rapid.Generator[gpipsec.GUID] {
	return rapid.Custom(func(t *rapid.T) (g gpipsec.GUID) {
		copy(g[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "guid"))
		return g
	})
}

func four() *rapid.Generator[[4]byte] {
	return rapid.Custom(func(t *rapid.T) [4]byte {
		return rapid.SampledFrom([][4]byte{{}, {255, 255, 255, 255}, {255, 255, 255, 0}, {10, 1, 2, 3}, {192, 0, 2, 0}, {255, 0, 255, 0}, {239, 1, 1, 1}}).Draw(t, "four")
	})
}

func policyValue() *rapid.Generator[gpipsec.PolicyValue] {
	return rapid.Custom(func(t *rapid.T) gpipsec.PolicyValue {
		return gpipsec.PolicyValue{Polling: rapid.Uint32().Draw(t, "polling")}
	})
}

func mainMode() *rapid.Generator[gpipsec.MainMode] {
	method := rapid.Custom(func(t *rapid.T) gpipsec.Method {
		return gpipsec.Method{
			Encryption: rapid.Uint32Range(0, 4).Draw(t, "encryption"), Hash: rapid.Uint32Range(0, 3).Draw(t, "hash"),
			Override: rapid.Uint8Range(0, 5).Draw(t, "override"), Group: rapid.SampledFrom([]uint32{0, 1, 2, 0x10000001, 99}).Draw(t, "group"),
			Limit: rapid.Uint32().Draw(t, "limit"), Kilobytes: rapid.Uint32().Draw(t, "kilobytes"), Seconds: rapid.Uint32().Draw(t, "seconds"),
		}
	})
	return rapid.Custom(func(t *rapid.T) gpipsec.MainMode {
		v := gpipsec.MainMode{
			Instance: guid().Draw(t, "instance"), MasterPFS: rapid.Bool().Draw(t, "pfs"), Options: rapid.Uint32Range(0, 3).Draw(t, "options"),
			Limit: rapid.Uint32Range(0, 5).Draw(t, "limit"), Lifetime: rapid.Uint32().Draw(t, "lifetime"),
			Methods: rapid.SliceOfN(method, 0, 5).Draw(t, "methods"),
		}
		copy(v.NewDH[:], rapid.SliceOfN(rapid.Uint8Range(0, 5), 4, 4).Draw(t, "groups"))
		return v
	})
}

func ruleValue() *rapid.Generator[gpipsec.RuleValue] {
	method := rapid.Custom(func(t *rapid.T) gpipsec.AuthMethod {
		m := gpipsec.AuthMethod{Type: rapid.SampledFrom([]uint32{1, 3, 5, 7}).Draw(t, "type"), Flags: rapid.Uint32Range(0, 3).Draw(t, "flags")}
		switch m.Type {
		case 1:
			m.Key = gpipsec.NewKey("PSK" + text().Draw(t, "key"))
		case 3:
			m.CA = rapid.SampledFrom([]string{"C=US, O=Example, CN=Root", "CN=Root,O=Example,C=US", "not a name", "DC=example, DC=bank, CN=CA", ""}).Draw(t, "ca")
		}
		return m
	})
	return rapid.Custom(func(t *rapid.T) gpipsec.RuleValue {
		return gpipsec.RuleValue{
			Methods: rapid.SliceOfN(method, 0, 4).Draw(t, "methods"), InterfaceName: text().Draw(t, "interface name"),
			Interface: rapid.SampledFrom([]uint32{0xFFFFFFFD, 0xFFFFFFFE, 0xFFFFFFFF, 1}).Draw(t, "interface"),
			Tunnel: rapid.SampledFrom([]netip.Addr{
				{}, {}, netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("224.0.0.1"),
			}).Draw(t, "tunnel"),
			TunnelName: text().Draw(t, "tunnel name"), Active: rapid.Bool().Draw(t, "active"),
		}
	})
}

func negotiation() *rapid.Generator[gpipsec.Negotiation] {
	algorithm := rapid.Custom(func(t *rapid.T) gpipsec.Algorithm {
		return gpipsec.Algorithm{
			Algorithm: rapid.Uint32Range(0, 4).Draw(t, "algorithm"), Integrity: rapid.Uint32Range(0, 3).Draw(t, "integrity"), Kind: rapid.Uint32Range(0, 3).Draw(t, "kind"),
		}
	})
	offer := rapid.Custom(func(t *rapid.T) gpipsec.QuickOffer {
		return gpipsec.QuickOffer{
			Seconds: rapid.Uint32().Draw(t, "seconds"), Kilobytes: rapid.Uint32().Draw(t, "kilobytes"), PFS: rapid.Bool().Draw(t, "pfs"),
			Algorithms: rapid.SliceOfN(algorithm, 0, 3).Draw(t, "algorithms"),
		}
	})
	return rapid.Custom(func(t *rapid.T) gpipsec.Negotiation {
		return gpipsec.Negotiation{Offers: rapid.SliceOfN(offer, 0, 5).Draw(t, "offers")}
	})
}

func filterValue() *rapid.Generator[gpipsec.FilterValue] {
	port := rapid.SampledFrom([]uint16{0, 80, 443, 65535})
	protocol := rapid.SampledFrom([]uint32{0, 1, 6, 17, 50, 255, 300})
	first := rapid.Custom(func(t *rapid.T) gpipsec.Filter1 {
		return gpipsec.Filter1{
			SourceName: text().Draw(t, "source name"), DestinationName: text().Draw(t, "destination name"), Description: text().Draw(t, "description"),
			ID: guid().Draw(t, "id"), Mirrored: rapid.Bool().Draw(t, "mirrored"), Source: four().Draw(t, "source"), SourceMask: four().Draw(t, "source mask"),
			Destination: four().Draw(t, "destination"), DestinationMask: four().Draw(t, "destination mask"), Tunnel: four().Draw(t, "tunnel"),
			Protocol: protocol.Draw(t, "protocol"), SourcePort: port.Draw(t, "source port"), DestinationPort: port.Draw(t, "destination port"),
			IsTunnel: rapid.Bool().Draw(t, "is tunnel"), Special: rapid.SampledFrom([]uint8{0, 0, 0, 1, 2, 3, 4, 5, 0x81, 0x82, 0x84}).Draw(t, "special"),
		}
	})
	address := rapid.Custom(func(t *rapid.T) gpipsec.Address2 {
		return gpipsec.Address2{
			Type: rapid.SampledFrom([]uint32{0, 1, 2, 4, 8, 0x10, 0x20, 0x40, 0x80, 3}).Draw(t, "type"), Version: rapid.Uint32Range(0, 3).Draw(t, "version"),
			First: guid().Draw(t, "first"), Second: guid().Draw(t, "second"),
		}
	})
	port2 := rapid.Custom(func(t *rapid.T) gpipsec.Port2 {
		return gpipsec.Port2{Type: rapid.Uint32Range(0, 3).Draw(t, "type"), From: port.Draw(t, "from"), To: port.Draw(t, "to")}
	})
	second := rapid.Custom(func(t *rapid.T) gpipsec.Filter2 {
		return gpipsec.Filter2{
			SourceName: text().Draw(t, "source name"), DestinationName: text().Draw(t, "destination name"), Description: text().Draw(t, "description"),
			ID: guid().Draw(t, "id"), Mirrored: rapid.Bool().Draw(t, "mirrored"), Source: address.Draw(t, "source"), Destination: address.Draw(t, "destination"),
			SourcePort: port2.Draw(t, "source port"), DestinationPort: port2.Draw(t, "destination port"),
			Protocol: protocol.Draw(t, "protocol"), Flags: rapid.SampledFrom([]uint32{0, 8}).Draw(t, "flags"),
		}
	})
	return rapid.Custom(func(t *rapid.T) gpipsec.FilterValue {
		return gpipsec.FilterValue{Filters: rapid.SliceOfN(first, 0, 3).Draw(t, "filters"), Filters2: rapid.SliceOfN(second, 0, 3).Draw(t, "second filters")}
	})
}

// appender is what every value can do.
type appender interface{ Append([]byte) []byte }

// kinds are the parsers with the real values of a fresh domain and made ones.
var kinds = []struct {
	class string
	parse func([]byte) (any, error)
	draw  func(t *rapid.T) appender
}{
	{"ipsecPolicy", func(b []byte) (any, error) { return gpipsec.ParsePolicy(b) }, func(t *rapid.T) appender { return policyValue().Draw(t, "value") }},
	{"ipsecISAKMPPolicy", func(b []byte) (any, error) { return gpipsec.ParseMainMode(b) }, func(t *rapid.T) appender { return mainMode().Draw(t, "value") }},
	{"ipsecNFA", func(b []byte) (any, error) { return gpipsec.ParseRule(b) }, func(t *rapid.T) appender { return ruleValue().Draw(t, "value") }},
	{"ipsecNegotiationPolicy", func(b []byte) (any, error) { return gpipsec.ParseNegotiation(b) }, func(t *rapid.T) appender { return negotiation().Draw(t, "value") }},
	{"ipsecFilter", func(b []byte) (any, error) { return gpipsec.ParseFilter(b) }, func(t *rapid.T) appender { return filterValue().Draw(t, "value") }},
}

// sameValue compares parsed values; empty lists and none are the same.
func sameValue(a, b any) bool {
	return fmt.Sprintf("%#v", a) == fmt.Sprintf("%#v", b) || reflect.DeepEqual(a, b)
}

func TestRoundTrip(t *testing.T) {
	for _, k := range kinds {
		t.Run(k.class, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				v := k.draw(t)
				octets := v.Append(nil)
				got, err := k.parse(octets)
				if err != nil {
					t.Fatalf("%+v does not parse: %v", v, err)
				}
				again := got.(appender).Append(nil)
				if string(again) != string(octets) {
					t.Fatalf("%+v\ncame back as\n%+v", v, got)
				}
				// The length is not believed, and the last octet is not needed.
				binary.LittleEndian.PutUint32(octets[16:], rapid.Uint32().Draw(t, "length"))
				if other, err := k.parse(octets[:len(octets)-1]); err != nil || !sameValue(other, got) {
					t.Fatalf("with another length: got %+v, %v; want %+v", other, err, got)
				}
			})
		})
	}
}

// TestNoStrictPrefixParses cuts values short. Only the closing octet may be missing; a rule may end before the parts that
// newer versions have behind it.
func TestNoStrictPrefixParses(t *testing.T) {
	for class, values := range seeds(t) {
		k := kindOf(class)
		for _, value := range values {
			for n := range len(value) - 1 {
				if v, err := k.parse(value[:n]); !errors.Is(err, gpipsec.ErrBlob) {
					t.Fatalf("%s: %d of %d octets give %+v, %v", class, n, len(value), v, err)
				}
			}
		}
	}
}

func kindOf(class string) (k struct {
	class string
	parse func([]byte) (any, error)
	draw  func(t *rapid.T) appender
}) {
	for _, k := range kinds {
		if k.class == class {
			return k
		}
	}
	return k
}

// versionObject is an NFA of a fresh domain that is none: another layout, no owner, no references.
const versionObject = "{6A1F5C6F-72B7-11D2-ACF0-0060B0ECCA17}"

// seeds are the real values by class.
func seeds(t testing.TB) map[string][][]byte {
	out := map[string][][]byte{}
	for _, e := range load(t, "testdata/samba.ldif") {
		classes := e.Values("objectClass")
		if data := e.Values("ipsecData"); len(data) > 0 && !strings.Contains(e.DN, versionObject) {
			class := classes[len(classes)-1]
			out[class] = append(out[class], []byte(data[0]))
		}
	}
	if len(out) != len(kinds) {
		t.Fatalf("real values of %d classes, want %d", len(out), len(kinds))
	}
	return out
}

func TestRealValues(t *testing.T) {
	for class, values := range seeds(t) {
		for _, value := range values {
			v, err := kindOf(class).parse(value)
			if err != nil {
				t.Errorf("%s: %v", class, err)
				continue
			}
			// What is not initialised goes; the meaning stays.
			again, err := kindOf(class).parse(v.(appender).Append(nil))
			if err != nil || !sameValue(v, again) {
				t.Errorf("%s: %+v came back as %+v, %v", class, v, again, err)
			}
		}
	}
}

func TestParseRefuses(t *testing.T) {
	good := gpipsec.Negotiation{Offers: []gpipsec.QuickOffer{{Algorithms: []gpipsec.Algorithm{{Algorithm: 3, Integrity: 2, Kind: 2}}}}}.Append(nil)
	for name, test := range map[string]struct {
		data []byte
		want string
	}{
		"nothing":             {nil, "not a value of MS-GPIPSEC: an identifier wants 16 octets, 0 are left"},
		"another kind":        {gpipsec.PolicyValue{}.Append(nil), "not a value of MS-GPIPSEC: an ipsecNegotiationPolicy begins with {22202163-4F4C-11D1-863B-00A0248D3021}, not with {80DC20B9-2EC8-11D1-A89E-00A0248D3021}"},
		"more offers than is": {patch(good, 20, 2), "not a value of MS-GPIPSEC: 2 quick mode offers, but only 81 octets are left"},
		"a number of 2^32-1":  {patch(good, 20, 1<<32-1), "not a value of MS-GPIPSEC: 4294967295 quick mode offers, but only 81 octets are left"},
		"four algorithms":     {patch(good, 40, 4), "not a value of MS-GPIPSEC: an offer of 4 algorithms, at most 3 fit"},
		"huge":                {make([]byte, gpipsec.MaxBlob+1), "not a value of MS-GPIPSEC: an ipsecNegotiationPolicy of 4194305 octets, at most 4194304 are read"},
	} {
		if _, err := gpipsec.ParseNegotiation(test.data); !errors.Is(err, gpipsec.ErrBlob) || err.Error() != test.want {
			t.Errorf("%s: got %v\nwant %s", name, err, test.want)
		}
	}
	filters := gpipsec.FilterValue{Filters: make([]gpipsec.Filter1, 1)}.Append(nil)
	if _, err := gpipsec.ParseFilter(patch(filters, 20, 1<<31)); !errors.Is(err, gpipsec.ErrBlob) {
		t.Errorf("2^31 filters: %v", err)
	}
}

func patch(data []byte, at int, v uint32) []byte {
	out := append([]byte(nil), data...)
	binary.LittleEndian.PutUint32(out[at:], v)
	return out
}

// TestCountsThatDisagree reads a list whose second part overrides the number of filters before it.
func TestCountsThatDisagree(t *testing.T) {
	v := gpipsec.FilterValue{Filters: make([]gpipsec.Filter1, 2), Filters2: make([]gpipsec.Filter2, 1)}
	got, err := gpipsec.ParseFilter(patch(v.Append(nil), 20, 0))
	if err != nil || !cmp.Equal(got, v) {
		t.Errorf("got %+v, %v; want %+v", got, err, v)
	}
}

func fuzzKind(f *testing.F, class string) {
	for _, s := range seeds(f)[class] {
		f.Add(s)
	}
	for i := range 5 {
		f.Add(rapid.Custom(func(t *rapid.T) []byte { return kindOf(class).draw(t).Append(nil) }).Example(i))
	}
	k := kindOf(class)
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := k.parse(data)
		if err != nil {
			if !errors.Is(err, gpipsec.ErrBlob) {
				t.Fatalf("an error of no kind: %v", err)
			}
			return
		}
		again, err := k.parse(v.(appender).Append(nil))
		if err != nil {
			t.Fatalf("%+v does not read back: %v", v, err)
		}
		if a, b := v.(appender).Append(nil), again.(appender).Append(nil); string(a) != string(b) {
			t.Fatalf("%+v reads back as %+v", v, again)
		}
	})
}

func FuzzParsePolicy(f *testing.F)      { fuzzKind(f, "ipsecPolicy") }
func FuzzParseMainMode(f *testing.F)    { fuzzKind(f, "ipsecISAKMPPolicy") }
func FuzzParseRule(f *testing.F)        { fuzzKind(f, "ipsecNFA") }
func FuzzParseNegotiation(f *testing.F) { fuzzKind(f, "ipsecNegotiationPolicy") }
func FuzzParseFilter(f *testing.F)      { fuzzKind(f, "ipsecFilter") }

// FuzzConvert puts any octets and texts into the place of those of a real domain: the documents are valid whatever comes.
func FuzzConvert(f *testing.F) {
	for _, values := range seeds(f) {
		f.Add(values[0], "Name", "Description")
	}
	f.Add([]byte{}, "none", "\x00\xff\n# not a comment\nkind: Policy")
	f.Fuzz(func(t *testing.T, data []byte, name, description string) {
		entries := load(t, "testdata/samba.ldif")
		for i := range entries {
			for j, a := range entries[i].Attributes {
				switch {
				case a.Name == "ipsecData" && len(data) >= 16 && strings.HasPrefix(a.Values[0], string(data[:16])):
					entries[i].Attributes[j].Values = []string{string(data)}
				case a.Name == "ipsecName":
					entries[i].Attributes[j].Values = []string{name}
				case a.Name == "description":
					entries[i].Attributes[j].Values = []string{description}
				}
			}
		}
		convertAnything(t, entries)
	})
}

func convertAnything(t fataler, entries []directory.Entry) gpipsec.Result {
	r, err := gpipsec.Convert(entries, gpipsec.Options{})
	if err != nil {
		t.Fatalf("%v", err)
	}
	check(t, r)
	return r
}
