package analyze

import (
	"net/netip"

	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// span is a range of one dimension as two numbers of 16 octets, both inclusive: addresses, protocols and ports alike.
type span struct{ from, to netip.Addr }

// The dimensions in which filters of rules tell packets apart.
const (
	dimSource = iota
	dimDestination
	dimProtocol
	dimSourcePort
	dimDestinationPort
	dimClass // of the interface: 0 LAN, 1 remote access
	dimensions
)

// box is a set of packets: a range in each of the dimensions.
type box [dimensions]span

// number is a small number as a point of a dimension.
func number(n int) netip.Addr {
	return netip.AddrFrom4([4]byte{0, 0, byte(n >> 8), byte(n)})
}

func numbers(from, to int) span { return span{number(from), number(to)} }

// boxOf is what a filter describes; see covering for what it leaves out.
func boxOf(f *spd.Specific) box {
	b := box{
		dimSource: {f.Source.From, f.Source.To}, dimDestination: {f.Destination.From, f.Destination.To},
		dimProtocol: numbers(0, 255), dimClass: numbers(0, 1),
	}
	if f.Protocol != 0 {
		b[dimProtocol] = numbers(int(f.Protocol), int(f.Protocol))
	}
	for d, r := range map[int]spd.PortRange{dimSourcePort: f.SourcePort, dimDestinationPort: f.DestinationPort} {
		from, to := r.Bounds()
		b[d] = numbers(int(from), int(to))
	}
	switch f.Interfaces {
	case spd.InterfacesLAN:
		b[dimClass] = numbers(0, 0)
	case spd.InterfacesRemoteAccess:
		b[dimClass] = numbers(1, 1)
	case spd.InterfacesAll:
	}
	return b
}

// meets reports whether two boxes have a packet in common.
func (b *box) meets(c *box) bool {
	for d := range b {
		if b[d].from.Is4() != c[d].from.Is4() || b[d].to.Less(c[d].from) || c[d].to.Less(b[d].from) {
			return false
		}
	}
	return true
}

// without appends the parts of a box that another one, which meets it, does not hold: one dimension after the other, what
// is outside in it is a piece, and the rest goes on.
func (b box) without(c *box, pieces []box) []box {
	for d := range b {
		if b[d].from.Less(c[d].from) {
			p := b
			p[d].to = c[d].from.Prev()
			pieces = append(pieces, p)
			b[d].from = c[d].from
		}
		if c[d].to.Less(b[d].to) {
			p := b
			p[d].from = c[d].to.Next()
			pieces = append(pieces, p)
			b[d].to = c[d].to
		}
	}
	return pieces
}

// boxLimit bounds the pieces that a filter is cut into. One that needs more is not called shadowed.
const boxLimit = 2048

// covering returns what the heavier filters leave of the i-th filter of a Set, and if that is nothing, those filters, the
// heaviest first.
//
// It is exact within the limit: a filter is cut into boxes, and what each heavier filter holds is taken away. Filters with
// conditions beyond those of a box (loopback, own sockets, answers, types of ICMP; only exemptions have them) take nothing
// away: of every box there is a packet from another machine that opens a connection, or is of a type that no exemption
// names, and they do not describe that one.
func covering(filters []spd.Specific, boxes []box, i int) (by []*spd.Specific, rest []box) {
	f := &filters[i]
	rest = []box{boxes[i]}
	for k := range filters[:i] {
		g := &filters[k]
		if g.Direction != f.Direction || g.Loopback || g.Own || g.Answers || g.ICMP.Scope != spd.ICMPEvery {
			continue
		}
		cut := &boxes[k]
		if !boxes[i].meets(cut) {
			continue
		}
		touched := false
		var next []box
		for _, b := range rest {
			if !b.meets(cut) {
				next = append(next, b)
				continue
			}
			touched = true
			next = b.without(cut, next)
		}
		if rest = next; touched {
			by = append(by, g)
		}
		if len(rest) == 0 {
			return by, nil
		}
		if len(rest) > boxLimit {
			break
		}
	}
	return nil, rest
}

// shadow is a filter of a policy that no packet reaches.
type shadow struct {
	rule, filter string
	by           []*spd.Specific
}

// shadows finds the filters of the rules of a Set that no packet reaches, whatever direction: of a filter that expands to
// several, all of them. A filter that expands to nothing here is not among them.
func shadows(set spd.Set) []shadow {
	type name struct{ rule, filter string }
	filters := set.Filters()
	boxes := make([]box, len(filters))
	for i := range filters {
		boxes[i] = boxOf(&filters[i])
	}
	var order []name
	found := map[name]*shadow{}
	alive := map[name]bool{}
	for i := range filters {
		f := &filters[i]
		if f.Exempt != "" {
			continue
		}
		n := name{f.RuleID, f.FilterID}
		if alive[n] {
			continue
		}
		by, rest := covering(filters, boxes, i)
		switch s, ok := found[n]; {
		case rest != nil:
			alive[n] = true
			delete(found, n)
		case !ok:
			found[n] = &shadow{f.RuleID, f.FilterID, by}
			order = append(order, n)
		default:
			s.by = append(s.by, by...)
		}
	}
	var out []shadow
	for _, n := range order {
		if s, ok := found[n]; ok {
			out = append(out, *s)
		}
	}
	return out
}
