package analyze_test

import (
	"fmt"
	"net/netip"
	"testing"

	"pgregory.net/rapid"

	"github.com/bailiwick-net/bailiwick/policies"
	"github.com/bailiwick-net/bailiwick/policies/analyze"
	"github.com/bailiwick-net/bailiwick/policies/compile"
	"github.com/bailiwick-net/bailiwick/policies/spd"
	"github.com/bailiwick-net/bailiwick/policies/spd/spdtest"
)

// Whatever the policies and the packet: the answer has a reason, each match is that of Lookup, and a fate is one that the
// tables of packets allow.
func flowAgreesWithLookup(t *rapid.T) {
	var ends [2]analyze.End
	for i := range ends {
		set, err := spd.Expand(spdtest.Policy().Draw(t, "policy"), spdtest.Facts().Draw(t, "facts"))
		if err != nil {
			t.Fatal(err)
		}
		ends[i] = analyze.End{
			Name: fmt.Sprintf("m%d", i), Set: set, Node: rapid.Bool().Draw(t, "node"), NoCertificate: rapid.Bool().Draw(t, "no certificate"),
			Missing: rapid.SliceOfN(rapid.SampledFrom([]string{"one", "two", "key"}), 0, 2).Draw(t, "missing"),
		}
	}
	p := spdtest.Packet().Draw(t, "packet")
	o := analyze.Flow(ends[0], ends[1], p)
	worst := analyze.IPsec
	for i, s := range o.Steps() {
		from, to := ends[i%2].Set, ends[1-i%2].Set
		sender, receiver := from.LookupByAddress(spd.Out, s.Packet), to.LookupByAddress(spd.In, s.Packet)
		if s.Sender != sender || s.Receiver != receiver {
			t.Fatalf("packet %d: got %+v and %+v, Lookup says %+v and %+v", i, s.Sender, s.Receiver, sender, receiver)
		}
		if s.Code == "" || s.Sentence == "" || s.Result < analyze.Blocked || s.Result > analyze.IPsec {
			t.Fatalf("packet %d has no reason: %+v", i, s)
		}
		if i >= 2 && s.Code != analyze.CodeNoRequest {
			worst = min(worst, s.Result)
		}
		passes := s.Result != analyze.Blocked
		if passes && (sender.Action == spd.ActionBlock || receiver.Action == spd.ActionBlock) {
			t.Fatalf("packet %d passes a rule that blocks: %s", i, s.Sentence)
		}
		if s.Result == analyze.Clear && sender.Action != spd.ActionPermit {
			t.Fatalf("packet %d leaves in clear, and nothing permits it: %s", i, s.Sentence)
		}
		if s.Result == analyze.Fallback && (sender.Rule == nil || sender.Rule.Action.Fallback.Mode == spd.FallbackNone) {
			t.Fatalf("packet %d falls back to clear, and nothing grants that: %s", i, s.Sentence)
		}
		if passes && s.Result != analyze.IPsec && receiver.Action == spd.ActionNegotiate && receiver.Rule != nil &&
			!receiver.Rule.Action.Inpass && receiver.Rule.Action.Fallback.Mode == spd.FallbackNone {
			t.Fatalf("packet %d is accepted in clear, and nothing grants that: %s", i, s.Sentence)
		}
		if n := s.Negotiation; n != nil && n.Made() == (n.Mismatch != nil || n.Silent) {
			t.Fatalf("packet %d: a negotiation is made and is not: %+v", i, n)
		}
	}
	if o.Result != worst {
		t.Fatalf("the flow comes to %s, the worst of its packets to %s", o.Result, worst)
	}
}

func TestFlowAgreesWithLookup(t *testing.T) { rapid.Check(t, flowAgreesWithLookup) }

func FuzzFlow(f *testing.F) { f.Fuzz(rapid.MakeFuzz(flowAgreesWithLookup)) }

// Documents of any text that decodes and validates give ends that can be explained.
func FuzzDocuments(f *testing.F) {
	f.Add([]byte(suspicious))
	f.Fuzz(func(t *testing.T, text []byte) {
		docs, err := policies.Decode("fuzz", text)
		if err != nil {
			return
		}
		analyze.Verify(analyze.Situation{Documents: docs})
		for _, p := range docs.Policies {
			effective, err := docs.Effective(p.Name)
			if err != nil {
				continue
			}
			set, err := spd.Expand(effective, spd.Facts{Addresses: addresses[:1]})
			if err != nil {
				continue
			}
			peer := analyze.End{Name: "b", Node: true}
			if peer.Set, err = spd.Expand(effective, spd.Facts{Addresses: addresses[1:]}); err == nil {
				analyze.Flow(analyze.End{Name: "a", Set: set, Node: true}, peer, tcp(443))
			}
		}
	})
}

// manyFilters are documents with one policy of so many filters, mixed as those of the steering measurements are.
func manyFilters(n int) policies.Documents {
	var d policies.Documents
	actions := []policies.FilterAction{
		{Meta: policies.Meta{Name: "Permit"}, Action: spd.ActionPermit}, {Meta: policies.Meta{Name: "Block"}, Action: spd.ActionBlock},
		{Meta: policies.Meta{Name: "Protect"}, Action: spd.ActionNegotiate},
	}
	p := policies.Policy{Meta: policies.Meta{Name: "Many"}}
	for i, a := range actions {
		d.FilterActions = append(d.FilterActions, a)
		l := policies.FilterList{Meta: policies.Meta{Name: a.Name}}
		for k := i; k < n; k += len(actions) {
			f := policies.Filter{
				Source: spd.Address{Kind: spd.AddressMe}, Mirrored: true,
				Destination: spd.Address{Kind: spd.AddressPrefix, Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(k >> 8), byte(k), 0}), 24)},
			}
			if k%2 == 0 {
				f.Protocol, f.DestinationPort = spd.ProtocolTCP, spd.PortRange{From: uint16(1 + k), To: uint16(1 + k)}
			}
			l.Filters = append(l.Filters, f)
		}
		d.FilterLists = append(d.FilterLists, l)
		p.Rules = append(p.Rules, policies.Rule{Meta: policies.Meta{Name: a.Name}, FilterList: a.Name, FilterAction: a.Name})
	}
	d.Policies = append(d.Policies, p)
	return d
}

// BenchmarkManyFilters is what a policy of 5,000 filters costs from the documents to an explained flow between two machines
// that have it, and to be verified.
func BenchmarkManyFilters(b *testing.B) {
	docs := manyFilters(5000)
	facts := func(i int) spd.Facts { return spd.Facts{Addresses: addresses[i : i+1]} }
	b.Run("compile", func(b *testing.B) {
		for b.Loop() {
			if _, err := compile.Compile(docs, "Many"); err != nil {
				b.Fatal(err)
			}
		}
	})
	effective, err := docs.Effective("Many")
	if err != nil {
		b.Fatal(err)
	}
	b.Run("expand", func(b *testing.B) {
		for b.Loop() {
			if _, err := spd.Expand(effective, facts(0)); err != nil {
				b.Fatal(err)
			}
		}
	})
	var ends [2]analyze.End
	for i := range ends {
		set, err := spd.Expand(effective, facts(i))
		if err != nil {
			b.Fatal(err)
		}
		ends[i] = analyze.End{Name: "m", Set: set, Node: true}
	}
	b.Run("explain", func(b *testing.B) {
		for b.Loop() {
			analyze.Flow(ends[0], ends[1], tcp(443))
		}
	})
	b.Run("lookup", func(b *testing.B) {
		p := tcp(443) // that no filter describes
		for b.Loop() {
			ends[0].Set.LookupByAddress(spd.Out, p)
		}
	})
	b.Run("verify", func(b *testing.B) {
		for b.Loop() {
			analyze.Verify(analyze.Situation{Documents: docs})
		}
	})
}
