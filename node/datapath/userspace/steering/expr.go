package steering

import (
	"bytes"
	"encoding/binary"
	"strings"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// The registers: 1 is of 16 octets, and a key that is longer goes on in the 4-octet registers from 32-bit register 8.
const (
	register   = unix.NFT_REG_1
	register32 = unix.NFT_REG32_00
)

// Expressions returns the rule in the form that the kernel takes.
func (r Rule) Expressions() []expr.Any {
	var out []expr.Any
	for _, m := range r.Matches {
		out = append(out, expressions(m)...)
	}
	if r.Comment != "" {
		out = append(out, &expr.Counter{})
	}
	if r.Mark != 0 {
		out = append(out,
			&expr.Meta{Key: expr.MetaKeyMARK, Register: register},
			&expr.Bitwise{SourceRegister: register, DestRegister: register, Len: 4, Mask: native(^r.Mask), Xor: native(r.Mark)},
			&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: register},
		)
	}
	if r.Map != nil {
		out = append(out, r.Map.Key.load(), &expr.Lookup{SourceRegister: register, SetName: r.Map.Name, IsDestRegSet: true})
	}
	switch r.Verdict {
	case 0:
	case Queue:
		out = append(out, &expr.Queue{Num: r.Number})
	default:
		out = append(out, r.Verdict.Expression(r.Target))
	}
	return out
}

// Expression returns the verdict in the form that the kernel takes.
func (v Verdict) Expression(target string) *expr.Verdict {
	switch v {
	case Accept:
		return &expr.Verdict{Kind: expr.VerdictAccept}
	case Drop:
		return &expr.Verdict{Kind: expr.VerdictDrop}
	case Return:
		return &expr.Verdict{Kind: expr.VerdictReturn}
	case Jump:
		return &expr.Verdict{Kind: expr.VerdictJump, Chain: target}
	case Goto:
		return &expr.Verdict{Kind: expr.VerdictGoto, Chain: target}
	case Queue: // is an expression of its own
	}
	panic("steering: verdict without an expression") // the set of verdicts is closed
}

// load brings a key into the register.
func (k Key) load() expr.Any {
	if k.Quoted {
		offset, from, _ := k.match(span{}).(Quoted).field()
		return &expr.Payload{DestRegister: register, Base: expr.PayloadBaseTransportHeader, Offset: offset, Len: uint32(len(from))}
	}
	switch k.Of {
	case L4Protocol:
		return &expr.Meta{Key: expr.MetaKeyL4PROTO, Register: register}
	case SourcePort, DestinationPort:
		return loadPort(k.Of == DestinationPort, register)
	case ICMPType:
		return &expr.Payload{DestRegister: register, Base: expr.PayloadBaseTransportHeader, Len: 1}
	default:
		return loadAddress(k.IPv6, k.Of == Destination, register)
	}
}

func expressions(m Match) []expr.Any {
	switch m := m.(type) {
	case Interface:
		var load expr.Any = &expr.Meta{Key: expr.MetaKeyIIFNAME, Register: register}
		switch {
		case m.Route:
			load = &expr.Fib{Register: register, FlagDADDR: true, ResultOIFNAME: true}
		case m.Out:
			load = &expr.Meta{Key: expr.MetaKeyOIFNAME, Register: register}
		}
		compare := equal(make([]byte, unix.IFNAMSIZ))
		copy(compare.Data, m.Name)
		if rest, ok := strings.CutSuffix(m.Name, "*"); ok {
			compare.Data = []byte(rest)
		}
		if m.Not {
			compare.Op = expr.CmpOpNeq
		}
		if len(compare.Data) == 0 { // "*" alone is every name
			return []expr.Any{load}
		}
		return []expr.Any{load, compare}
	case MarkIs:
		return []expr.Any{
			&expr.Meta{Key: expr.MetaKeyMARK, Register: register},
			&expr.Bitwise{SourceRegister: register, DestRegister: register, Len: 4, Mask: native(m.Mask), Xor: native(0)},
			equal(native(m.Value)),
		}
	case Family:
		family := byte(unix.NFPROTO_IPV4)
		if m.IPv6 {
			family = unix.NFPROTO_IPV6
		}
		return []expr.Any{&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: register}, equal([]byte{family})}
	case Address:
		load := loadAddress(!m.Range.Is4(), m.Destination, register)
		if m.Range.Single() {
			return []expr.Any{load, equal(m.Range.From.AsSlice())}
		}
		return []expr.Any{load, within(m.Range.From.AsSlice(), m.Range.To.AsSlice())}
	case Proto:
		return []expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: register}, equal([]byte{byte(m)})}
	case Ports:
		load := loadPort(m.Destination, register)
		from, to := binary.BigEndian.AppendUint16(nil, m.From), binary.BigEndian.AppendUint16(nil, m.To)
		if m.From == m.To {
			return []expr.Any{load, equal(from)}
		}
		return []expr.Any{load, within(from, to)}
	case ICMPCode:
		return []expr.Any{
			&expr.Payload{DestRegister: register, Base: expr.PayloadBaseTransportHeader, Offset: 1, Len: 1}, equal([]byte{m.Code}),
		}
	case InSet:
		return lookup(m)
	case ICMPTypes:
		load := &expr.Payload{DestRegister: register, Base: expr.PayloadBaseTransportHeader, Len: 1}
		if m.From == m.To {
			return []expr.Any{load, equal([]byte{m.From})}
		}
		return []expr.Any{load, within([]byte{m.From}, []byte{m.To})}
	case Opening:
		const flags, syn, ack = 13, 0x02, 0x10
		return []expr.Any{
			&expr.Payload{DestRegister: register, Base: expr.PayloadBaseTransportHeader, Offset: flags, Len: 1},
			&expr.Bitwise{SourceRegister: register, DestRegister: register, Len: 1, Mask: []byte{syn | ack}, Xor: []byte{0}},
			&expr.Cmp{Op: op(m.Not), Register: register, Data: []byte{syn}},
		}
	case LocalAddress:
		fib := &expr.Fib{Register: register, FlagSADDR: !m.Destination, FlagDADDR: m.Destination, FlagOIF: m.Device, ResultADDRTYPE: true}
		return []expr.Any{fib, equal(native(unix.RTN_LOCAL))}
	case NoOptions:
		return []expr.Any{
			&expr.Payload{DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Len: 1},
			&expr.Bitwise{SourceRegister: register, DestRegister: register, Len: 1, Mask: []byte{0x0f}, Xor: []byte{0}},
			&expr.Cmp{Op: op(m.Not), Register: register, Data: []byte{5}},
		}
	case Quoted:
		offset, from, to := m.field()
		load := &expr.Payload{DestRegister: register, Base: expr.PayloadBaseTransportHeader, Offset: offset, Len: uint32(len(from))}
		switch {
		case m.not():
			return []expr.Any{load, &expr.Cmp{Op: expr.CmpOpNeq, Register: register, Data: from}}
		case bytes.Equal(from, to):
			return []expr.Any{load, equal(from)}
		}
		return []expr.Any{load, within(from, to)}
	case LocalDestination:
		kind := uint32(unix.RTN_LOCAL)
		if m.Not {
			kind = unix.RTN_UNICAST
		}
		return []expr.Any{&expr.Fib{Register: register, FlagDADDR: true, ResultADDRTYPE: true}, equal(native(kind))}
	case Reassembly:
		if m.Conntrack {
			return []expr.Any{&expr.Ct{Key: expr.CtKeySTATE, Register: register}}
		}
		return []expr.Any{
			&expr.Immediate{Register: register, Data: []byte{0, 1}},
			&expr.TProxy{Family: unix.NFPROTO_UNSPEC, TableFamily: unix.NFPROTO_INET, RegPort: register},
		}
	case Secured:
		return m.expressions()
	case Opened:
		return m.expressions()
	case Unread:
		if m.IPv6 {
			const present = 1 // NFT_EXTHDR_F_PRESENT
			return []expr.Any{
				&expr.Exthdr{DestRegister: register, Type: unix.IPPROTO_FRAGMENT, Len: 1, Op: expr.ExthdrOpIpv6, Flags: present},
				equal([]byte{1}),
			}
		}
		return []expr.Any{
			&expr.Payload{DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Offset: 6, Len: 2},
			&expr.Bitwise{SourceRegister: register, DestRegister: register, Len: 2, Mask: []byte{0x1f, 0xff}, Xor: []byte{0, 0}},
			&expr.Cmp{Op: expr.CmpOpNeq, Register: register, Data: []byte{0, 0}},
		}
	}
	panic("steering: match without expressions") // the set of matches is closed, a test compiles all of them
}

// lookup loads the key of a set into consecutive 32-bit registers and looks it up.
func lookup(m InSet) []expr.Any {
	var out []expr.Any
	at := uint32(register32)
	for _, f := range m.Set.Key {
		switch f {
		case Local, Remote:
			out = append(out, loadAddress(m.Set.IPv6, (f == Remote) != m.Inbound, at))
			at++
			if m.Set.IPv6 {
				at += 3
			}
		case Protocol:
			out = append(out, &expr.Meta{Key: expr.MetaKeyL4PROTO, Register: at})
			at++
		case LocalPort, RemotePort:
			out = append(out, loadPort((f == RemotePort) != m.Inbound, at))
			at++
		}
	}
	return append(out, &expr.Lookup{SourceRegister: register32, SetName: m.Set.Name})
}

func loadAddress(v6, destination bool, to uint32) *expr.Payload {
	p := &expr.Payload{DestRegister: to, Base: expr.PayloadBaseNetworkHeader, Offset: 12, Len: 4}
	if v6 {
		p.Offset, p.Len = 8, 16
	}
	if destination {
		p.Offset += p.Len
	}
	return p
}

func loadPort(destination bool, to uint32) *expr.Payload {
	p := &expr.Payload{DestRegister: to, Base: expr.PayloadBaseTransportHeader, Len: 2}
	if destination {
		p.Offset = 2
	}
	return p
}

func equal(data []byte) *expr.Cmp { return &expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: data} }

func within(from, to []byte) *expr.Range {
	return &expr.Range{Op: expr.CmpOpEq, Register: register, FromData: from, ToData: to}
}

func op(not bool) expr.CmpOp {
	if not {
		return expr.CmpOpNeq
	}
	return expr.CmpOpEq
}

func native(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }
