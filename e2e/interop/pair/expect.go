package pair

import (
	"bytes"
	"context"
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/bailiwick-net/bailiwick/e2e/lab"
	"github.com/bailiwick-net/bailiwick/e2e/lab/charon"
	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/localapi"
)

// Capture records what passes the node's device.
func (p *Pair) Capture() *lab.Capture {
	p.T.Helper()
	c, err := p.Node.Capture(device)
	if err != nil {
		p.T.Fatal(err)
	}
	return c
}

// Wire counts what a capture holds.
type Wire struct {
	IKE     int
	ESP     int // as an IP protocol of its own
	Encap   int // ESP in UDP
	Markers int // packets with payload in clear
	// Clear counts packets that are neither IKE nor ESP nor what finds neighbours, ClearSent those of the node.
	Clear, ClearSent int
	// FragmentsSent and FragmentsReceived count IKE messages with an Encrypted Fragment payload (RFC 7383).
	FragmentsSent, FragmentsReceived int
}

// Look counts the frames.
func Look(frames []lab.Frame) Wire {
	var w Wire
	for _, f := range frames {
		if len(f.Data) < 14+40 {
			continue
		}
		if bytes.Contains(f.Data, Marker[:16]) {
			w.Markers++
		}
		packet := f.Data[14:]
		const fragmentHeader, offset4, offset6 = 44, 0x1fff, 0xfff8
		switch binary.BigEndian.Uint16(f.Data[12:]) {
		case 0x0800:
			if binary.BigEndian.Uint16(packet[6:])&offset4 == 0 { // what is behind a first fragment has no header of its own
				w.protocol(packet[9], packet[int(packet[0]&15)*4:], f.Outgoing)
			}
		case 0x86dd:
			if packet[6] != fragmentHeader {
				w.protocol(packet[6], packet[40:], f.Outgoing)
			} else if len(packet) >= 48 && binary.BigEndian.Uint16(packet[42:])&offset6 == 0 {
				w.protocol(packet[40], packet[48:], f.Outgoing)
			}
		}
	}
	return w
}

func (w *Wire) protocol(protocol byte, body []byte, sent bool) {
	const icmp, udp, esp, icmpv6 = 1, 17, 50, 58
	switch {
	case protocol == esp:
		w.ESP++
	case protocol == udp && len(body) > 8 && w.udp(body, sent):
	case protocol == icmpv6 && len(body) > 0 && body[0] >= 130 && body[0] <= 143: // neighbours, routers, groups
	case protocol == icmp && refusesProtected(body):
	case protocol == 0: // groups again, behind a hop-by-hop header
	default:
		w.Clear++
		if sent {
			w.ClearSent++
		}
	}
}

// refusesProtected reports whether an ICMP message says that IKE or ESP was not taken: a kernel whose daemon has ended
// says so, and quotes what came.
func refusesProtected(body []byte) bool {
	const unreachable, header = 3, 8
	if len(body) < header+20 || body[0] != unreachable {
		return false
	}
	packet := body[header:]
	length := int(packet[0]&15) * 4
	if len(packet) < length {
		return false
	}
	var quoted Wire
	quoted.protocol(packet[9], packet[length:], false)
	return quoted.IKE+quoted.ESP+quoted.Encap != 0
}

// udp tells IKE from ESP in UDP by the marker (RFC 3948 2.2).
func (w *Wire) udp(body []byte, sent bool) bool {
	source, destination := binary.BigEndian.Uint16(body), binary.BigEndian.Uint16(body[2:])
	message := body[8:]
	switch {
	case source == 4500 || destination == 4500:
		if len(message) < 4 || binary.BigEndian.Uint32(message) != 0 {
			w.Encap++
			return true
		}
		message = message[4:]
	case source != 500 && destination != 500:
		return false
	}
	w.IKE++
	const fragment = 53 // Encrypted and Authenticated Fragment
	if len(message) > 16 && message[16] == fragment {
		if sent {
			w.FragmentsSent++
		} else {
			w.FragmentsReceived++
		}
	}
	return true
}

// stopped ends a capture and counts what it holds.
func (p *Pair) stopped(capture *lab.Capture) Wire {
	p.T.Helper()
	frames, err := capture.Stop()
	if err != nil {
		p.T.Fatal(err)
	}
	return Look(frames)
}

// Protected requires that everything in the capture was IKE or ESP, and that there was both.
func (p *Pair) Protected(capture *lab.Capture) Wire {
	p.T.Helper()
	w := p.stopped(capture)
	if w.IKE == 0 || w.ESP+w.Encap == 0 || w.Clear != 0 || w.Markers != 0 {
		p.T.Errorf("on the wire: %+v, want IKE and ESP and nothing in clear", w)
	}
	return w
}

// SentNothingClear requires that the node sent nothing but IKE and ESP, whatever the peer did, and that there was ESP.
func (p *Pair) SentNothingClear(capture *lab.Capture) Wire {
	p.T.Helper()
	w := p.stopped(capture)
	if w.ESP+w.Encap == 0 || w.ClearSent != 0 {
		p.T.Errorf("on the wire: %+v, want ESP and nothing in clear from the node", w)
	}
	return w
}

// Quiet requires that the node sends nothing in clear until the test ends, whether there is ESP or not.
func (p *Pair) Quiet() {
	p.T.Helper()
	capture := p.Capture()
	p.T.Cleanup(func() {
		if w := p.stopped(capture); w.ClearSent != 0 {
			p.T.Errorf("on the wire: %+v, want nothing in clear from the node", w)
		}
	})
}

// BringUp lets a side negotiate: ours by traffic, strongSwan by command.
func (p *Pair) BringUp(initiator Side) {
	p.T.Helper()
	if initiator == FromNode {
		p.Talk(FromNode)
		return
	}
	if err := p.Charon.Initiate(p.Ctx, NetName); err != nil {
		p.T.Fatal(err)
	}
}

// Ours are the node's associations.
func (p *Pair) Ours() localapi.Associations {
	p.T.Helper()
	ours, err := p.Client.Associations(p.Ctx)
	if err != nil {
		p.T.Fatal(err)
	}
	return ours
}

// Carries lets a side bring an IKE SA with a Child SA up and requires that it carries exchanges from both, that nothing
// goes in clear and that both ends have the same.
func (p *Pair) Carries(initiator Side) (charon.SA, localapi.Associations) {
	p.T.Helper()
	capture := p.Capture()
	p.BringUp(initiator)
	p.Talk(FromNode)
	p.Talk(FromPeer)
	p.Protected(capture)
	return p.Agree(initiator)
}

// Installed are the Child SAs of an IKE SA that are in use: strongSwan keeps what it has rekeyed for a few seconds, for late
// packets.
func Installed(s charon.SA) []charon.ChildSA {
	return slices.DeleteFunc(slices.Clone(s.Children), func(c charon.ChildSA) bool { return c.State != "INSTALLED" })
}

// Agree requires that both ends have exactly one IKE SA with one child, and that they are the same.
func (p *Pair) Agree(initiator Side) (charon.SA, localapi.Associations) {
	p.T.Helper()
	theirs, err := p.Charon.SAs(p.Ctx)
	if err != nil {
		p.T.Fatal(err)
	}
	ours := p.Ours()
	if len(theirs) != 1 || len(ours.IKE) != 1 || len(ours.Children) != 1 {
		p.T.Fatalf("strongSwan has %+v, the node has %+v; want one IKE SA with one child", theirs, ours)
	}
	their, our := theirs[0], ours.IKE[0]
	if their.Children = Installed(their); len(their.Children) != 1 {
		p.T.Fatalf("strongSwan has children %+v, want one", theirs[0].Children)
	}
	own, foreign := their.ResponderSPI, their.InitiatorSPI
	if initiator == FromNode {
		own, foreign = foreign, own
	}
	if our.Initiator != (initiator == FromNode) || their.Initiator == our.Initiator || our.SPI != own || our.PeerSPI != foreign {
		p.T.Errorf("the node has %+v, strongSwan has %+v", our, their)
	}
	if child := their.Children[0]; child.In != ours.Children[0].Out || child.Out != ours.Children[0].In {
		p.T.Errorf("the node has child %+v, strongSwan has %+v", ours.Children[0], child)
	}
	return their, ours
}

// rekey lets a side begin, ours by its local interface.
func (p *Pair) rekey(by Side, ours localapi.Rekey, theirs func(context.Context, string) error, name string) {
	p.T.Helper()
	var err error
	if by == FromNode {
		err = p.Client.Rekey(p.Ctx, ours)
	} else {
		err = theirs(p.Ctx, name)
	}
	if err != nil {
		p.T.Fatalf("rekey %s from the %s: %v", name, by, err)
	}
}

// RekeyChild lets a side rekey the Child SA, and waits until both ends have only the new one.
func (p *Pair) RekeyChild(by Side) {
	p.T.Helper()
	before := p.Ours().Children
	p.rekey(by, localapi.Rekey{Child: before[0].In}, p.Charon.RekeyChild, NetName)
	p.Until("both ends have the new Child SA only", func() (bool, error) {
		now := p.Ours().Children
		theirs, err := p.Charon.SAs(p.Ctx)
		if err != nil || len(theirs) != 1 || len(now) != 1 || now[0].In == before[0].In || !now[0].Current {
			return false, err
		}
		// strongSwan keeps what it has rekeyed for a few seconds, for late packets.
		children := Installed(theirs[0])
		return len(children) == 1 && children[0].Out == now[0].In, nil
	})
}

// RekeyIKE lets a side rekey the IKE SA, and waits until the node has the new one alone.
func (p *Pair) RekeyIKE(by Side) {
	p.T.Helper()
	before := p.Ours().IKE
	p.rekey(by, localapi.Rekey{IKE: before[0].SPI}, p.Charon.RekeyIKE, ConnName)
	p.Until("both ends have the new IKE SA only", func() (bool, error) {
		now := p.Ours()
		theirs, err := p.Charon.SAs(p.Ctx)
		return err == nil && len(theirs) == 1 && theirs[0].State == "ESTABLISHED" && len(Installed(theirs[0])) == 1 &&
			len(now.IKE) == 1 && len(now.Children) == 1 && now.IKE[0].SPI != before[0].SPI && now.IKE[0].Initiator == (by == FromNode), err
	})
}

// Fails requires that the node tells of failures, all of them for one of the reasons.
func (p *Pair) Fails(remote netip.Addr, want ...ike.Reason) {
	p.T.Helper()
	var failures []localapi.Failure
	p.Until("the node tells of the failure", func() (bool, error) {
		s, err := p.Client.Status(p.Ctx)
		failures = s.Failures
		return len(failures) > 0, err
	})
	for _, f := range failures {
		if !slices.Contains(want, ike.Reason(f.Reason)) || f.Detail == "" || f.Remote != remote.String() {
			p.T.Errorf("the node says %+v, want one of %v about %s with a detail", f, want, remote)
		}
	}
}
