package ikesim

import (
	"net/netip"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// What FuzzEvents and FuzzEventsPostQuantum can let happen besides the exchanges: addresses, clocks, NATs, standings, datapaths that
// refuse, hints of strangers, other settings and the end.

// newerScripts begin with an association and then let each of the newer events happen once.
var newerScripts = [][]byte{
	{0, 1, 20, 0x80, 1, 1, 40, 0x80, 0, 13, 20},                     // another address and back
	{0, 1, 20, 0x81, 1, 1, 40, 0x81, 0, 0, 1, 40},                   // a peer is denied and allowed again
	{0, 1, 20, 0x82, 0, 0x92, 1, 13, 40},                            // ESP comes
	{0, 1, 20, 0x83, 0, 0x93, 1, 13, 5},                             // ESP for nobody
	{0, 1, 20, 0x84, 20, 5, 1, 40, 0x94, 200, 13, 9},                // clocks
	{0, 1, 20, 0x85, 1, 4, 1, 40, 0x85, 0, 13, 40},                  // the NAT forgets
	{0x86, 0, 0, 1, 20, 0x86, 1, 4, 1, 40},                          // installs fail
	{0, 1, 20, 0x87, 1, 1, 20, 0x87, 0, 13, 30},                     // the outbound half fails
	{0, 1, 20, 0x88, 0, 1, 40, 8, 0, 1, 40},                         // shutdown, then a new start
	{0, 1, 20, 0x89, 1, 13, 60, 0x89, 0, 13, 60},                    // a cut
	{0x8a, 255, 0x9a, 255, 0, 1, 20, 5, 1, 40, 0x98, 1, 40, 13, 60}, // all settings
	{0, 1, 20, 0x8b, 10, 1, 40, 13, 30},                             // the certificate of the peer ends
	{0, 1, 20, 0x8c, 1, 0x8d, 13, 40},                               // datagrams of a stranger, and again what comes
}

// fuzzWorld is a world of two nodes: the lowest bit of kind puts a NAT before the first, the next makes them gateways
// that follow changes of address, and the next lets them believe certificates.
func fuzzWorld(kind byte) (w *World, a, b *Node) {
	faults := Faults{Delay: 3 * time.Millisecond}
	if kind&2 != 0 {
		w, a, b, _, _ = gateways(7, faults)
	} else {
		w, a, b = pair(7, faults, pskAuth, nil)
	}
	w.flooded = true // strangers may come
	for _, n := range w.Nodes {
		if kind&2 != 0 {
			n.Config.Mobility = ike.MobilityOn
		}
		if kind&4 != 0 {
			n.Config.Rules[0].Auth = []spd.Auth{certAuth}
		}
		n.boot()
	}
	if kind&1 != 0 {
		a.Hide(public)
	}
	return w, a, b
}

// asks is the flow for which a node needs an association with another.
func (n *Node) asks(m *Node) ike.Flow {
	if len(n.Config.Rules) == 0 || n.Config.Rules[0].Mode != sa.Tunnel {
		return flow(n.Addr, m.Reach())
	}
	r := n.Config.Rules[0]
	local, remote := r.Pairs[0].Local, r.Pairs[0].Remote
	return ike.Flow{
		Rule: r.ID, Local: n.Addr, Remote: m.Reach(), LocalTS: local, RemoteTS: remote,
		Packet: spd.Packet{Source: local.From, Destination: remote.From, Protocol: 1, ICMPType: 8},
	}
}

// spi is one that the node has, the one that its peer has for it, one that nobody has, or 0.
func (n *Node) spi(choice byte) sa.SPI {
	i := n.SADB[n.child()]
	switch {
	case choice%4 == 0:
		return n.child()
	case choice%4 == 1 && i != nil:
		return i.Child.Out.SPI
	case choice%4 == 2:
		return 0x1234567
	}
	return 0
}

// newer lets one of the newer events happen to n, whose peer is m and whose configuration was c at the start.
func newer(w *World, n, m *Node, op byte, c ike.Config, next func() byte) {
	switch op {
	case 0:
		n.readdress(next())
	case 1: // what is known of the peer changes
		if n.Denied = nil; next()%2 == 1 {
			n.Denied = map[string]bool{m.Name: true}
		}
		n.Do(ike.Recheck{})
	case 2:
		n.Do(ike.Heard{SPI: n.spi(next())})
	case 3:
		arg := next()
		remote := m.Reach()
		if arg&4 != 0 {
			remote = addrC
		}
		port := uint16(0)
		if arg&8 != 0 {
			port = 4500
		}
		n.Do(ike.UnknownESP{
			SPI: n.spi(arg), Local: netip.AddrPortFrom(n.Addr, port), Remote: netip.AddrPortFrom(remote, port), Octets: int(arg),
		})
	case 4: // the clock is set: to what it was at first, or back or ahead by up to two minutes
		n.Skew = time.Duration(int8(next())) * time.Second
		w.disturbed, w.farJumped = true, true
	case 5:
		n.Rebind(next()%2 == 1)
	case 6:
		n.failing += 1 + int(next()%2)
	case 7:
		n.Do(ike.InstallFailed{SPI: n.spi(next()), Outbound: true, Detail: "no buffer space"})
	case 8:
		n.Do(ike.Shutdown{Reason: ike.ReasonShutdown})
	case 9:
		w.disturbed = true
		n.Cut = next()%2 == 1
	case 10:
		w.reconfigure(n, setting(c, next()))
	case 11: // until when the peer is believed
		n.Expiry = map[string]time.Time{m.Name: n.now().Add(time.Duration(next()) * time.Second)}
		n.Do(ike.Recheck{})
	case 12:
		w.flood(n, int(next()))
	case 13: // what is on its way comes twice; of many things some, or a script of a line would make millions
		for _, e := range append(events(nil), w.pending[:min(len(w.pending), 100)]...) {
			if isDatagram(e.ev) {
				again := *e
				w.schedule(time.Millisecond, &again)
			}
		}
	case 14: // a question and an order for what may not be there
		n.Do(ike.Rekey{IKE: n.ikeSPI(), Child: n.spi(next())})
	case 15:
		n.Do(ike.Close{IKE: n.ikeSPI(), Child: n.spi(next()), Reason: ike.ReasonDeleted})
	}
}

// readdress gives the node other addresses: the first bit of choice takes the one that it has at the start away, the
// second adds another, the third adds one of the other family, and the fourth tells the engine nothing of what it sends
// from.
func (n *Node) readdress(choice byte) {
	first, second := addrA, addrA2
	if n.Name == "b.example" {
		first, second = addrB, addrB2
	}
	var list []netip.Addr
	if choice&1 == 0 {
		list = append(list, first)
	}
	if choice&2 != 0 || len(list) == 0 && choice&4 == 0 {
		list = append(list, second)
	}
	if len(list) > 0 {
		n.Addr, n.Others = list[0], list[1:]
	}
	n.world.disturbed = true
	if choice&4 != 0 {
		list = append(list, netip.MustParseAddr("fd00::1"))
	}
	if choice&8 != 0 {
		n.Do(ike.AddressesChanged{Addresses: list})
		return
	}
	n.addresses(list...)
}

// setting is a configuration with the settings that the bits of choice name.
func setting(c ike.Config, choice byte) ike.Config {
	if choice&1 != 0 {
		c.Mobility = ike.MobilityOn
	}
	if choice&2 != 0 {
		c.Childless = spd.ChildlessPrefer
	}
	if choice&4 != 0 {
		c.CrashSecret = sa.NewSecret([]byte("a secret that outlives a restart"))
	}
	if choice&8 != 0 {
		c.Reauthentication = 30 * time.Second
	}
	if choice&16 != 0 {
		c.Transcript = spd.TranscriptRequire
	}
	if choice&32 != 0 {
		c.Liveness = 5 * time.Second
	}
	if choice&64 != 0 {
		c.ForceEncap = true
	}
	if choice&128 != 0 {
		c.IKELifetime = 40 * time.Second
	}
	return c
}
