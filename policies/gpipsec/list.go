package gpipsec

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"

	"github.com/bailiwick-net/bailiwick/policies"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// keepList adds the list to the documents unless it is there.
func (c *converter) keepList(l policies.FilterList) {
	if _, ok := c.result.Documents.FilterList(l.Name); !ok {
		c.result.Documents.FilterLists = append(c.result.Documents.FilterLists, l)
	}
}

// filterList converts the list once, however many rules use it. A list without a filter is in no document.
func (c *converter) filterList(o object) policies.FilterList {
	if l, ok := c.lists[o.dn.Key()]; ok {
		return l
	}
	l := policies.FilterList{Meta: policies.Meta{Name: c.title(policies.KindFilterList, o, "Windows filter list"), Description: o.description}}
	doc := named(policies.KindFilterList, l.Name)
	v, err := ParseFilter(o.data())
	if err != nil {
		// Half a list would protect half of what it should.
		c.note(doc, "cannot be read and is left out: %v", err)
		c.lists[o.dn.Key()], c.unreadable[o.dn.Key()] = l, true
		return l
	}
	c.noteUnknown(doc, "filters", v.Unknown)
	b := &listBuilder{converter: c, doc: doc, list: &l}
	for _, f := range v.Filters2 {
		b.filter2(f)
	}
	second := slices.Clone(l.Filters)
	for _, f := range v.Filters {
		b.filter1(f, second)
	}
	if len(l.Filters) == 0 {
		c.note(doc, "has no filter that can be said and is left out")
	} else {
		c.keepList(l)
	}
	c.lists[o.dn.Key()] = l
	return l
}

// listBuilder makes the filters of one list.
type listBuilder struct {
	*converter
	doc  string
	list *policies.FilterList
}

// add appends the filter if nothing speaks against it.
func (b *listBuilder) add(f policies.Filter, protocol uint32, sourceName, destinationName string) {
	text := filterText(f)
	switch s, d := family(f.Source), family(f.Destination); {
	case protocol > 255:
		b.note(b.doc, "filter %s is left out: %d is no protocol of IP", text, protocol)
		return
	case s != 0 && d != 0 && s != d:
		b.note(b.doc, "filter %s is left out: its ends are of different families", text)
		return
	}
	f.Protocol = uint8(protocol)
	if ports := !f.SourcePort.Any() || !f.DestinationPort.Any(); ports && !spd.HasPorts(f.Protocol) {
		b.note(b.doc, "filter %s names ports, which its protocol does not have: it is without them", filterText(f))
		f.SourcePort, f.DestinationPort = spd.PortRange{}, spd.PortRange{}
	}
	for _, name := range []string{sourceName, destinationName} {
		if name = cleanName(name); name != "" {
			b.note(b.doc, "filter %s was made of the DNS name %q, which stood for this address when the filter was made", filterText(f), name)
		}
	}
	b.append(f)
	if f.Protocol == spd.ProtocolICMP && family(f.Source) == 0 && family(f.Destination) == 0 {
		b.note(b.doc, "every filter of ICMP between me, any and the like has one of ICMPv6 beside it, because these mean IPv6 as well")
		f.Protocol = spd.ProtocolICMPv6
		if f.Description != "" {
			f.Description = shorten(f.Description+" (IPv6)", maxDescription)
		}
		b.append(f)
	}
}

// append leaves out what says the same as a filter that is there.
func (b *listBuilder) append(f policies.Filter) {
	if !slices.ContainsFunc(b.list.Filters, func(o policies.Filter) bool { return same(o, f) }) {
		b.list.Filters = append(b.list.Filters, f)
	}
}

func same(a, b policies.Filter) bool {
	a.Meta, b.Meta = policies.Meta{}, policies.Meta{}
	return a == b
}

func family(a spd.Address) int {
	if a.Kind == spd.AddressPrefix {
		return a.Prefix.Addr().BitLen()
	}
	return a.From.BitLen()
}

// filter1 adds a filter of the first part unless the second part says it better.
func (b *listBuilder) filter1(f Filter1, second []policies.Filter) {
	out := policies.Filter{
		Meta: policies.Meta{Description: cleanDescription(f.Description)}, Mirrored: f.Mirrored,
		SourcePort: onePort(f.SourcePort), DestinationPort: onePort(f.DestinationPort),
	}
	var ok bool
	if out.Source, ok = b.address1(f.Source, f.SourceMask); !ok {
		return
	}
	if out.Destination, ok = b.address1(f.Destination, f.DestinationMask); !ok {
		return
	}
	if f.Special != 0 {
		side := &out.Source
		if f.Special&0x80 != 0 {
			side = &out.Destination
		}
		if *side, ok = b.server(uint32(f.Special & 0x7f)); !ok {
			return
		}
	}
	if f.IsTunnel {
		b.note(b.doc, "filter %s named a tunnel to %s of its own; the tunnel of a rule counts", filterText(out), netip.AddrFrom4(f.Tunnel))
	}
	probe := out
	probe.Protocol = uint8(f.Protocol)
	if f.Protocol <= 255 && slices.ContainsFunc(second, func(o policies.Filter) bool { return covers(o, probe) }) {
		return
	}
	b.add(out, f.Protocol, f.SourceName, f.DestinationName)
}

// covers reports whether every packet of f is one of wide.
func covers(wide, f policies.Filter) bool {
	return wide.Protocol == f.Protocol && wide.SourcePort == f.SourcePort && wide.DestinationPort == f.DestinationPort &&
		wide.Mirrored == f.Mirrored && addressCovers(wide.Source, f.Source) && addressCovers(wide.Destination, f.Destination)
}

func addressCovers(wide, a spd.Address) bool {
	if wide == a {
		return true
	}
	if a.Kind != spd.AddressPrefix {
		return false
	}
	switch wide.Kind {
	case spd.AddressPrefix:
		return wide.Prefix.Bits() <= a.Prefix.Bits() && wide.Prefix.Contains(a.Prefix.Addr())
	case spd.AddressRange:
		last := spd.RangeOf(a.Prefix).To
		return wide.From.BitLen() == last.BitLen() && wide.From.Compare(a.Prefix.Addr()) <= 0 && last.Compare(wide.To) <= 0
	default:
	}
	return false
}

func onePort(p uint16) spd.PortRange { return spd.PortRange{From: p, To: p} }

// address1 reads an address with its mask. The machine itself is the address 0 with all bits of the mask.
func (b *listBuilder) address1(a, mask [4]byte) (spd.Address, bool) {
	none := [4]byte{}
	switch {
	case a == none && bytes.Equal(mask[:], []byte{255, 255, 255, 255}):
		return spd.Address{Kind: spd.AddressMe}, true
	case mask == none:
		return spd.Address{}, true
	}
	p, contiguous := address4(a, mask)
	if !contiguous {
		b.note(b.doc, "a filter with %s is left out: its mask %s is not that of a prefix", netip.AddrFrom4(a), netip.AddrFrom4(mask))
		return spd.Address{}, false
	}
	return spd.Address{Kind: spd.AddressPrefix, Prefix: p}, true
}

// server returns the servers that the machine knows by themselves: 1 DNS, 2 WINS, 3 DHCP, 4 gateway.
func (b *listBuilder) server(which uint32) (spd.Address, bool) {
	switch which {
	case 1:
		return spd.Address{Kind: spd.AddressDNSServers}, true
	case 2:
		b.note(b.doc, "a filter for the WINS servers is left out: there are none")
	case 3:
		return spd.Address{Kind: spd.AddressDHCPServer}, true
	case 4:
		return spd.Address{Kind: spd.AddressDefaultGateway}, true
	default:
		b.note(b.doc, "a filter for servers of the unknown kind %d is left out", which)
	}
	return spd.Address{}, false
}

// filter2 adds a filter of the second part.
func (b *listBuilder) filter2(f Filter2) {
	out := policies.Filter{Meta: policies.Meta{Description: cleanDescription(f.Description)}, Mirrored: f.Mirrored}
	var err error
	for _, side := range []struct {
		from Address2
		to   *spd.Address
	}{{f.Source, &out.Source}, {f.Destination, &out.Destination}} {
		which := map[uint32]uint32{0x10: 1, 0x20: 2, 0x40: 3, 0x80: 4}[side.from.Type]
		if which != 0 {
			var ok bool
			if *side.to, ok = b.server(which); !ok {
				return
			}
			continue
		}
		if *side.to, err = side.from.address(); err != nil {
			b.note(b.doc, "a filter is left out: %v", err)
			return
		}
	}
	for _, side := range []struct {
		from Port2
		to   *spd.PortRange
	}{{f.SourcePort, &out.SourcePort}, {f.DestinationPort, &out.DestinationPort}} {
		if *side.to, err = side.from.ports(); err != nil {
			b.note(b.doc, "filter %s is left out: %v", filterText(out), err)
			return
		}
	}
	b.add(out, f.Protocol, f.SourceName, f.DestinationName)
}

// address reads what is no server.
func (a Address2) address() (spd.Address, error) {
	var first, second netip.Addr
	switch a.Version {
	case 1:
		first, second = netip.AddrFrom4([4]byte(a.First[:4])), netip.AddrFrom4([4]byte(a.Second[:4]))
	case 2:
		first, second = netip.AddrFrom16(a.First), netip.AddrFrom16(a.Second)
	}
	switch a.Type {
	case 0:
		return spd.Address{}, nil
	case 8:
		return spd.Address{Kind: spd.AddressMe}, nil
	case 1, 2, 4:
	default:
		return spd.Address{}, fmt.Errorf("its address is of the unknown type %d", a.Type)
	}
	if !first.IsValid() || first.Is4In6() || second.Is4In6() {
		return spd.Address{}, fmt.Errorf("its address of type %d is of no one version of IP", a.Type)
	}
	switch a.Type {
	case 1:
		return spd.Address{Kind: spd.AddressPrefix, Prefix: netip.PrefixFrom(first, first.BitLen())}, nil
	case 2:
		if second.Less(first) {
			return spd.Address{}, fmt.Errorf("its range %s-%s runs backwards", first, second)
		}
		return spd.Address{Kind: spd.AddressRange, From: first, To: second}, nil
	}
	if a.Version == 2 {
		bits := int(a.Second[0])
		if bits > 128 {
			return spd.Address{}, fmt.Errorf("its prefix %s has %d bits", first, bits)
		}
		return prefix(netip.PrefixFrom(first, bits)), nil
	}
	p, contiguous := address4([4]byte(a.First[:4]), [4]byte(a.Second[:4]))
	if !contiguous {
		return spd.Address{}, fmt.Errorf("the mask %s of %s is not that of a prefix", second, first)
	}
	return prefix(p), nil
}

func prefix(p netip.Prefix) spd.Address {
	return spd.Address{Kind: spd.AddressPrefix, Prefix: p.Masked()}
}

func (p Port2) ports() (spd.PortRange, error) {
	switch {
	case p.Type == 0 || p.Type == 1 && p.From == 0:
		return spd.PortRange{}, nil
	case p.Type == 1:
		return onePort(p.From), nil
	case p.Type == 2 && p.From > 0 && p.From <= p.To:
		return spd.PortRange{From: p.From, To: p.To}, nil
	case p.Type == 2:
		return spd.PortRange{}, fmt.Errorf("its ports %d-%d are no range", p.From, p.To)
	}
	return spd.PortRange{}, fmt.Errorf("its port is of the unknown type %d", p.Type)
}
