package ikev2

import (
	"encoding/binary"
	"slices"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/ike/wire"
	"github.com/bailiwick-net/bailiwick/node/sa"
)

// Several Child SAs with the same selectors (RFC 9611), so that as many processors can seal and open without sharing
// sequence numbers. The first one is like any other, and says that more are wanted; when the answer says so as well, the
// initiator makes the rest, each with the number of its resource.

// resourceInfo is the payload that goes with a Child SA of a rule that wants several (RFC 9611 5.1).
func resourceInfo(r *ike.Rule, resource uint32) []wire.Payload {
	if r.Associations < 2 {
		return nil
	}
	return []wire.Payload{wire.Notify{Type: wire.NotifySAResourceInfo, Data: binary.BigEndian.AppendUint32(nil, resource)}}
}

// readResource takes what the peer says about the resource of a Child SA: any but zero asks for one more of the same.
func readResource(payloads []wire.Payload) (resource uint32, told bool) {
	n, told := wire.FindNotify(payloads, wire.NotifySAResourceInfo)
	if len(n.Data) == 4 {
		resource = binary.BigEndian.Uint32(n.Data)
	}
	return resource, told
}

// moreResources queues the further Child SAs of a flow.
func (s *SA) moreResources(flow ike.Flow, rule *ike.Rule) {
	for i := 1; i < int(rule.Associations); i++ {
		s.enqueue(&newChild{flow: flow, rule: *rule, resource: uint32(i)}, timeZero)
	}
}

// adoptResource installs a further Child SA. Where the peer wants no more, what is there has to do (RFC 9611 5.2), and
// what is queued for the same flow is not asked for.
func (s *SA) adoptResource(w *childRequest, c *child, f *childFailure, flow ike.Flow) {
	if f != nil || s.forgotten(c.Out.SPI) {
		if f != nil && f.made {
			s.deleteUnwanted(w.spi)
		}
		s.trace("no Child SA for resource %d of rule %q", w.resource, flow.Rule)
		s.queue = slices.DeleteFunc(s.queue, func(q queued) bool {
			t, ok := q.task.(*newChild)
			return ok && t.resource > 0 && t.flow == flow
		})
		return
	}
	s.install(c)
	s.switchOut(c)
}

// tooManyResources reports whether a rule has as many Child SAs with these selectors as it wants.
func (s *SA) tooManyResources(sel selection) bool {
	n := 0
	for _, c := range s.children {
		if s.lasting(c) && c.peerRekey == nil && c.Rule == sel.rule.ID && slices.Equal(c.LocalTS, sel.local) && slices.Equal(c.RemoteTS, sel.remote) {
			n++
		}
	}
	return n >= max(1, int(sel.rule.Associations))
}

// laneOf is the lane of a new Child SA's inbound SPI. Those of one bundle have lanes that follow each other, so that their
// packets arrive at as many threads as there are; what rekeys one of them stays in its lane, and flows stay with their
// thread.
func (s *SA) laneOf(w *childRequest, rule *ike.Rule) sa.Lane {
	switch {
	case w.rekeys != nil && w.rekeys.Bundle != 0:
		return w.rekeys.In.SPI.Lane()
	case w.rekeys != nil || rule.Associations < 2:
		return sa.AnyLane
	}
	return sa.Lane((uint64(s.SPI()) + uint64(w.resource)) % uint64(sa.Lanes))
}

// bundleOf names the bundle that a new Child SA belongs to: that of those with the same selectors, also where both ends asked
// for a first one at once.
func (s *SA) bundleOf(w *childRequest, c *child) sa.SPI {
	switch {
	case w.rekeys != nil:
		return w.rekeys.Bundle
	case c.rule.Associations < 2:
		return 0
	}
	for _, o := range slices.Backward(s.children) {
		if o.Bundle != 0 && s.lasting(o) && o.Rule == c.Rule && slices.Equal(o.LocalTS, c.LocalTS) && slices.Equal(o.RemoteTS, c.RemoteTS) {
			return o.Bundle
		}
	}
	return c.In.SPI
}
