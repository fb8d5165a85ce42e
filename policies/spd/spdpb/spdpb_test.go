package spdpb

import (
	"bytes"
	"errors"
	"net/netip"
	"reflect"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/bailiwick-net/bailiwick/policies/proposal"
	"github.com/bailiwick-net/bailiwick/policies/spd"
	"github.com/bailiwick-net/bailiwick/policies/spd/spdtest"
	policyv1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/policy/v1"
)

var equateAddresses = cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})

func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := spdtest.Policy().Draw(t, "policy")
		b, err := Marshal(want)
		if err != nil {
			t.Fatalf("marshal: %v", err)
		}
		got, err := Unmarshal(b)
		if err != nil {
			t.Fatalf("unmarshal: %v", err)
		}
		if d := gocmp.Diff(want, got, equateAddresses); d != "" {
			t.Fatalf("the policy changed on its way:\n%s", d)
		}
		again, err := Marshal(got)
		if err != nil || !bytes.Equal(b, again) {
			t.Fatalf("the bytes changed on their way: %v", err)
		}
	})
}

// A field that is added to a value and forgotten in the message would be lost in silence: this test gives every field
// of every value something else than zero.
func TestNoFieldIsForgotten(t *testing.T) {
	counts := map[reflect.Type]int{
		reflect.TypeFor[spd.Policy]():          5,
		reflect.TypeFor[spd.Rule]():            9,
		reflect.TypeFor[spd.Filter]():          8,
		reflect.TypeFor[spd.Address]():         5,
		reflect.TypeFor[spd.FilterAction]():    8,
		reflect.TypeFor[spd.Fallback]():        3,
		reflect.TypeFor[spd.Lifetime]():        2,
		reflect.TypeFor[spd.Auth]():            9,
		reflect.TypeFor[spd.DefaultResponse](): 6,
		reflect.TypeFor[spd.KeyExchange]():     9,
		reflect.TypeFor[spd.Exemptions]():      6,
		reflect.TypeFor[proposal.ESP]():        6,
		reflect.TypeFor[proposal.IKE]():        6,
	}
	for typ, want := range counts {
		if got := typ.NumField(); got != want {
			t.Errorf("%s has %d fields, the message was written for %d: extend the message, both conversions and spdtest", typ, got, want)
		}
	}
}

func valid() *policyv1.Policy {
	return ToProto(spd.Policy{
		Name: "p",
		Rules: []spd.Rule{{
			ID:     "r",
			Action: spd.FilterAction{Action: spd.ActionPermit},
			Filters: []spd.Filter{{ID: "f", Source: spd.Address{Kind: spd.AddressMe}, Destination: spd.Address{
				Kind: spd.AddressPrefix, Prefix: netip.MustParsePrefix("10.0.0.0/8"),
			}, Protocol: spd.ProtocolTCP, DestinationPort: spd.PortRange{From: 1, To: 2}}},
		}},
		KeyExchange: spd.KeyExchange{Offers: []proposal.IKE{{
			Encryption: proposal.EncrAESGCM16, KeyBits: 256, PRF: proposal.PRFHMACSHA256, Group: proposal.GroupX25519,
		}}},
	})
}

func TestFromProtoRefuses(t *testing.T) {
	if _, err := FromProto(valid()); err != nil {
		t.Fatalf("the valid message: %v", err)
	}
	newer := protowire.AppendTag(nil, 1000, protowire.VarintType)
	newer = protowire.AppendVarint(newer, 1)
	for name, test := range map[string]struct {
		change func(m *policyv1.Policy)
		want   error
	}{
		"a newer action":             {func(m *policyv1.Policy) { m.Rules[0].Action.Action = 9 }, ErrUnknown},
		"no action":                  {func(m *policyv1.Policy) { m.Rules[0].Action = nil }, ErrUnknown},
		"a newer address kind":       {func(m *policyv1.Policy) { m.Rules[0].Filters[0].Source.Kind = 99 }, ErrUnknown},
		"no address":                 {func(m *policyv1.Policy) { m.Rules[0].Filters[0].Source = nil }, ErrUnknown},
		"a newer interface class":    {func(m *policyv1.Policy) { m.Rules[0].Interfaces = 7 }, ErrUnknown},
		"no interface class":         {func(m *policyv1.Policy) { m.Rules[0].Interfaces = 0 }, ErrUnknown},
		"a name of another kind":     {func(m *policyv1.Policy) { m.Rules[0].Filters[0].Source.Name = "a.example" }, ErrMalformed},
		"a DNS name without one":     {func(m *policyv1.Policy) { m.Rules[0].Filters[0].Source = &policyv1.Address{Kind: 8} }, ErrMalformed},
		"a newer auth method":        {func(m *policyv1.Policy) { m.Rules[0].Auth = []*policyv1.Auth{{Method: 5}} }, ErrUnknown},
		"a newer fallback":           {func(m *policyv1.Policy) { m.Rules[0].Action.Fallback = &policyv1.Fallback{Mode: 5} }, ErrUnknown},
		"an empty fallback":          {func(m *policyv1.Policy) { m.Rules[0].Action.Fallback = &policyv1.Fallback{} }, ErrUnknown},
		"a newer field at the top":   {func(m *policyv1.Policy) { m.ProtoReflect().SetUnknown(newer) }, ErrUnknown},
		"a newer field deep inside":  {func(m *policyv1.Policy) { m.Rules[0].Filters[0].Source.ProtoReflect().SetUnknown(newer) }, ErrUnknown},
		"a newer field in a single":  {func(m *policyv1.Policy) { m.Exemptions.ProtoReflect().SetUnknown(newer) }, ErrUnknown},
		"a newer algorithm":          {func(m *policyv1.Policy) { m.KeyExchange.Offers[0].Encryption = 4711 }, proposal.ErrOffer},
		"a newer revocation level":   {func(m *policyv1.Policy) { m.KeyExchange.Revocation = 9 }, ErrUnknown},
		"a newer transcript setting": {func(m *policyv1.Policy) { m.KeyExchange.Transcript = 9 }, ErrUnknown},
		"a newer mobility setting":   {func(m *policyv1.Policy) { m.KeyExchange.Mobility = 9 }, ErrUnknown},
		"a newer childless setting":  {func(m *policyv1.Policy) { m.KeyExchange.Childless = 9 }, ErrUnknown},
		"a wide algorithm":           {func(m *policyv1.Policy) { m.KeyExchange.Offers[0].Encryption = 1<<16 + 20 }, ErrMalformed},
		"a wide protocol":            {func(m *policyv1.Policy) { m.Rules[0].Filters[0].Protocol = 256 + 6 }, ErrMalformed},
		"a wide port":                {func(m *policyv1.Policy) { m.Rules[0].Filters[0].DestinationPort.To = 1 << 16 }, ErrMalformed},
		"a port of zero":             {func(m *policyv1.Policy) { m.Rules[0].Filters[0].DestinationPort = &policyv1.PortRange{} }, ErrMalformed},
		"a wide break-glass port":    {func(m *policyv1.Policy) { m.Exemptions.BreakGlassTcp = []uint32{1<<16 + 22} }, ErrMalformed},
		"an address of 3 octets":     {func(m *policyv1.Policy) { m.Rules[0].Filters[0].Destination.From = []byte{1, 2, 3} }, ErrMalformed},
		"a prefix of 33 bits":        {func(m *policyv1.Policy) { m.Rules[0].Filters[0].Destination.Bits = 33 }, ErrMalformed},
		"host bits":                  {func(m *policyv1.Policy) { m.Rules[0].Filters[0].Destination.From = []byte{10, 0, 0, 1} }, spd.ErrPolicy},
		"Me with an address":         {func(m *policyv1.Policy) { m.Rules[0].Filters[0].Source.From = []byte{10, 0, 0, 1} }, ErrMalformed},
		"a prefix with an end":       {func(m *policyv1.Policy) { m.Rules[0].Filters[0].Destination.To = []byte{10, 0, 0, 1} }, ErrMalformed},
		"a tunnel of 5 octets":       {func(m *policyv1.Policy) { m.Rules[0].Tunnel = []byte{1, 2, 3, 4, 5} }, ErrMalformed},
		"a rule without filters":     {func(m *policyv1.Policy) { m.Rules[0].Filters = nil }, spd.ErrPolicy},
		"a filter without an ID":     {func(m *policyv1.Policy) { m.Rules[0].Filters[0].Id = "" }, spd.ErrPolicy},
	} {
		t.Run(name, func(t *testing.T) {
			m := valid()
			test.change(m)
			b, err := proto.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := Unmarshal(b); !errors.Is(err, test.want) {
				t.Errorf("got %v, want %v", err, test.want)
			}
		})
	}
}

func TestUnmarshalRefusesBytes(t *testing.T) {
	for name, b := range map[string][]byte{
		"truncated":  {0x0a, 5, 'a'},
		"no UTF-8":   {0x0a, 1, 0xff},
		"group":      {0x0b},
		"over limit": make([]byte, MaxSize+1),
	} {
		if _, err := Unmarshal(b); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: got %v, want %v", name, err, ErrMalformed)
		}
	}
}

func FuzzUnmarshal(f *testing.F) {
	b, err := proto.Marshal(valid())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := Unmarshal(b)
		if err != nil {
			return
		}
		b, err = Marshal(p)
		if err != nil {
			t.Fatalf("a decoded policy does not encode: %v", err)
		}
		again, err := Unmarshal(b)
		if err != nil {
			t.Fatalf("an encoded policy does not decode: %v", err)
		}
		if d := gocmp.Diff(p, again, equateAddresses); d != "" {
			t.Fatalf("not stable:\n%s", d)
		}
	})
}
