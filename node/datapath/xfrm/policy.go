package xfrm

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// The priorities of our policies, the smaller the sooner. They are how our own policies are told from those of others.
const (
	firstPriority = 1024
	lastPriority  = 1<<20 - 1
)

// policyKey is what the kernel tells policies apart by.
type policyKey struct {
	direction uint8
	selector  selector
	mark      mark
}

// template names the SA that a packet goes through, or has come through.
type template struct {
	spi            sa.SPI // 0 for any
	source, target netip.Addr
	reqid          uint32
	mode           sa.Mode
	family         uint16
}

// policy is one policy of the kernel.
type policy struct {
	policyKey
	priority uint32
	block    bool
	through  template // zero for none
}

func (k *kernel) setPolicy(p policy) error {
	b := p.selector.append(make([]byte, 0, policyLen+128))
	b = appendLimits(b, sa.Limits{}, sa.Limits{})
	b = append(b, make([]byte, 32)...)
	b = native.AppendUint32(b, p.priority)
	b = native.AppendUint32(b, 0)
	action := byte(actionAllow)
	if p.block {
		action = actionBlock
	}
	b = append(b, p.direction, action, 0, 0)
	b = append(b, make([]byte, policyLen-len(b))...)
	var attrs attributes
	attrs.addMark(p.mark)
	if p.through.reqid != 0 {
		attrs.add(attrTmpl, p.through.encode())
	}
	data, err := attrs.encode(b)
	if err == nil {
		_, err = k.execute(msgUpdPolicy, netlink.Acknowledge, data)
	}
	if err != nil {
		return fmt.Errorf("put the policy for %v into the kernel: %w", p.selector, explain(err))
	}
	return nil
}

func (a *attributes) addMark(m mark) {
	if m != (mark{}) {
		a.add(attrMark, native.AppendUint32(native.AppendUint32(nil, m.value), m.mask))
	}
}

func (t template) encode() []byte {
	const anyAlgorithm = ^uint32(0)
	b := appendAddress(make([]byte, 0, tmplLen), t.target)
	b = append(b, byte(t.spi>>24), byte(t.spi>>16), byte(t.spi>>8), byte(t.spi), unix.IPPROTO_ESP, 0, 0, 0)
	b = native.AppendUint16(b, t.family)
	b = append(b, 0, 0)
	b = appendAddress(b, t.source)
	b = native.AppendUint32(b, t.reqid)
	b = append(b, kernelMode(t.mode), 0, 0, 0)
	for range 3 {
		b = native.AppendUint32(b, anyAlgorithm)
	}
	return b
}

// deletePolicy deletes a policy; one that is not there is no error.
func (k *kernel) deletePolicy(p policyKey) error {
	b := p.selector.append(make([]byte, 0, policyIDLen+16))
	b = native.AppendUint32(b, 0)
	b = append(b, p.direction, 0, 0, 0)
	var attrs attributes
	attrs.addMark(p.mark)
	data, err := attrs.encode(b)
	if err == nil {
		_, err = k.execute(msgDelPolicy, netlink.Acknowledge, data)
	}
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("delete the policy for %v: %w", p.selector, err)
	}
	return nil
}

// ownPolicies are the policies with our priorities.
func (k *kernel) ownPolicies() ([]policyKey, error) {
	replies, err := k.execute(msgGetPolicy, netlink.Dump, make([]byte, policyIDLen))
	if err != nil {
		return nil, fmt.Errorf("list the policies of the kernel: %w", err)
	}
	var out []policyKey
	for _, m := range replies {
		if len(m.Data) < policyLen {
			continue
		}
		if priority := native.Uint32(m.Data[152:]); priority < firstPriority || priority > lastPriority {
			continue
		}
		key := policyKey{selector: parseSelector(m.Data), direction: m.Data[160]}
		decoder, err := netlink.NewAttributeDecoder(m.Data[policyLen:])
		if err != nil {
			return nil, err
		}
		for decoder.Next() {
			if v := decoder.Bytes(); decoder.Type() == attrMark && len(v) >= 8 {
				key.mark = mark{native.Uint32(v), native.Uint32(v[4:])}
			}
		}
		if key.direction <= dirForward { // those of sockets are not ours
			out = append(out, key)
		}
	}
	return out, nil
}

// proposed is a policy that somebody wants.
type proposed struct {
	policy
	owner sa.SPI // of the SA that it is about, 0 for the policy in force
	age   uint64 // the greater the younger
}

// policies are those of the kernel. Two of them with the same key exclude each other, so everyone that is wanted is
// remembered, and the best of each key is in the kernel: that of the heaviest filter, and of the youngest SA.
type policies struct {
	kernel    *kernel
	wanted    map[policyKey][]proposed
	installed map[policyKey]policy
	owned     map[sa.SPI][]policyKey
	clock     uint64
}

func newPolicies(k *kernel) *policies {
	return &policies{kernel: k, wanted: map[policyKey][]proposed{}, installed: map[policyKey]policy{}, owned: map[sa.SPI][]policyKey{}}
}

// propose replaces what an owner wants, and brings the kernel to it: first what is put in, then what goes.
func (p *policies) propose(owner sa.SPI, list []policy) error {
	p.clock++
	touched := map[policyKey]bool{}
	for _, key := range p.owned[owner] {
		touched[key] = true
		left := p.wanted[key][:0]
		for _, w := range p.wanted[key] {
			if w.owner != owner {
				left = append(left, w)
			}
		}
		if p.wanted[key] = left; len(left) == 0 {
			delete(p.wanted, key)
		}
	}
	delete(p.owned, owner)
	for _, next := range list {
		touched[next.policyKey] = true
		p.wanted[next.policyKey] = append(p.wanted[next.policyKey], proposed{next, owner, p.clock})
		p.owned[owner] = append(p.owned[owner], next.policyKey)
	}
	return p.settle(touched)
}

func (p *policies) settle(touched map[policyKey]bool) error {
	var errs []error
	var gone []policyKey
	for key := range touched {
		best, ok := p.best(key)
		if !ok {
			gone = append(gone, key)
			continue
		}
		if installed, ok := p.installed[key]; ok && installed == best {
			continue
		}
		if err := p.kernel.setPolicy(best); err != nil {
			errs = append(errs, err)
			continue
		}
		p.installed[key] = best
	}
	for _, key := range gone {
		if _, ok := p.installed[key]; !ok {
			continue
		}
		if err := p.kernel.deletePolicy(key); err != nil {
			errs = append(errs, err)
			continue
		}
		delete(p.installed, key)
	}
	return errors.Join(errs...)
}

func (p *policies) best(key policyKey) (policy, bool) {
	list := p.wanted[key]
	if len(list) == 0 {
		return policy{}, false
	}
	best := list[0]
	for _, w := range list[1:] {
		if w.priority < best.priority || w.priority == best.priority && w.age > best.age {
			best = w
		}
	}
	return best.policy, true
}

// restore puts everything into the kernel again.
func (p *policies) restore() error {
	touched := map[policyKey]bool{}
	for key := range p.wanted {
		touched[key] = true
	}
	clear(p.installed)
	return p.settle(touched)
}

// release deletes everything.
func (p *policies) release() error {
	clear(p.wanted)
	clear(p.owned)
	touched := map[policyKey]bool{}
	for key := range p.installed {
		touched[key] = true
	}
	return p.settle(touched)
}

// The order of the priorities: what our own sockets send, then two for each filter, the first of them for its SAs, and
// last what no filter names.
func slot(i int) uint32 { return firstPriority + 1 + 2*uint32(i) }

const lastSlot = lastPriority - 2

// compile turns the filters into policies that say for each packet which SAs it may use, in the order of the weights.
// Outbound, a filter that negotiates has a policy of its own that asks for no SA, behind those of its SAs: a packet for
// which there is none leaves XFRM as it is, and is held by the nftables table, which is also who blocks. Inbound they say
// what may come out of which SA; clear packets do not carry the mark.
func compile(set spd.Set, reqid func(rule string) uint32) ([]policy, error) {
	var out []policy
	filters := set.ByAddress()
	if slot(len(filters)) >= lastSlot {
		return nil, fmt.Errorf("policy %q has %d filters, the kernel backend can order %d", set.Name(), len(filters), (lastSlot-firstPriority)/2-1)
	}
	for _, p := range everything {
		own := policyKey{direction: dirOut, selector: selector{source: p, destination: p}, mark: ownMark}
		out = append(out, policy{policyKey: own, priority: firstPriority})
	}
	for i := range filters {
		f := &filters[i]
		if unseen(f) {
			continue
		}
		source, destination := sidesOf(f)
		for _, s := range selectors(source, destination) {
			p := policy{policyKey: policyKey{selector: s}, priority: slot(i) + 1}
			if f.Direction == spd.Out {
				p.direction = dirOut
				out = append(out, p)
				continue
			}
			p.mark = openedMark
			switch f.Action {
			case spd.ActionPermit:
			case spd.ActionNegotiate:
				p.through = template{reqid: reqid(f.RuleID), mode: sa.Transport, family: familyOf(s.source.Addr())}
				if rule, ok := set.Rule(f.RuleID); ok && rule.Tunnel.IsValid() {
					p.through.mode, p.through.family = sa.Tunnel, familyOf(rule.Tunnel)
				}
			default:
				p.block = true
			}
			for _, d := range []uint8{dirIn, dirForward} {
				p.direction = d
				out = append(out, p)
			}
		}
	}
	return out, nil
}

// unseen reports whether XFRM never looks at what a filter is about.
func unseen(f *spd.Specific) bool { return f.Loopback || f.Own }

var everything = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}

// outbound are the policies that send packets through the outbound half of an SA: those that a filter of its rule is the
// first to describe.
func outbound(set spd.Set, child sa.Child, reqid uint32) []policy {
	through := template{
		spi: child.Out.SPI, source: child.Local.Addr(), target: child.Remote.Addr(), reqid: reqid, mode: child.Mode,
		family: familyOf(child.Remote.Addr()),
	}
	var out []policy
	add := func(source, destination side, priority uint32) {
		for _, s := range selectors(source, destination) {
			out = append(out, policy{policyKey: policyKey{direction: dirOut, selector: s}, priority: priority, through: through})
		}
	}
	filters := set.ByAddress()
	for _, local := range child.LocalTS {
		for _, remote := range child.RemoteTS {
			if child.Rule == "" {
				add(sideOf(local), sideOf(remote), lastSlot)
				continue
			}
			for i := range filters {
				f := &filters[i]
				if f.Direction != spd.Out || f.RuleID != child.Rule || f.Action != spd.ActionNegotiate || unseen(f) {
					continue
				}
				source, destination := sidesOf(f)
				s, ok := source.meet(sideOf(local))
				d, fits := destination.meet(sideOf(remote))
				if ok && fits {
					add(s, d, slot(i))
				}
			}
		}
	}
	return out
}
