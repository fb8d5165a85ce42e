package xfrm

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Of linux/netfilter/nfnetlink_queue.h.
const (
	queueSubsystem = 3
	queuePacket    = queueSubsystem << 8
	queueVerdict   = queueSubsystem<<8 | 1
	queueConfig    = queueSubsystem<<8 | 2

	cfgCommand   = 1
	cfgParams    = 2
	cfgMaxLength = 3

	queueHeader   = 1
	queueDecision = 2
	queueMark     = 3
	queuePayload  = 10

	commandBind   = 1
	verdictDrop   = 0
	verdictAccept = 1
	copyPacket    = 2
	generalHeader = 4 // struct nfgenmsg
)

// The hooks of netfilter where packets are held.
const (
	hookInput   = 1
	hookForward = 2
	hookOutput  = 3
)

// queueLength bounds what the kernel keeps for us beyond what flows may hold; what exceeds it is dropped there.
const queueLength = 16384

// queueBuffer is that of the socket through which the kernel shows what it holds.
const queueBuffer = 32 << 20

// heldPacket is a packet that the kernel keeps until it gets a verdict.
type heldPacket struct {
	queue  uint16
	id     uint32
	hook   uint8
	octets []byte
}

// packetQueue is a pair of queues of the kernel.
type packetQueue struct{ conn *netlink.Conn }

// openQueue binds the queues first and first+1 in the network namespace of the calling thread. From then on what the rules
// send there waits for verdicts; before, and after close, it is dropped.
func openQueue(first uint16) (*packetQueue, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, fmt.Errorf("open the netlink socket of packet queues: %w", err)
	}
	q := &packetQueue{conn: conn}
	// What waits comes as soon as its queue may copy, in between the answers to what is configured: that is the last step,
	// without an answer.
	err = errors.Join(q.configure(first, true), q.configure(first+1, true), conn.SetReadBuffer(queueBuffer))
	if err == nil {
		err = errors.Join(q.configure(first, false), q.configure(first+1, false))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("bind packet queues %d and %d: %w", first, first+1, err), conn.Close())
	}
	return q, nil
}

// configure binds a queue, or else starts it.
func (q *packetQueue) configure(number uint16, bind bool) error {
	steps := []netlink.Attribute{{Type: cfgParams, Data: append(binary.BigEndian.AppendUint32(nil, 0xffff), copyPacket)}}
	if bind {
		steps = []netlink.Attribute{
			{Type: cfgCommand, Data: []byte{commandBind, 0, 0, 0}},
			{Type: cfgMaxLength, Data: binary.BigEndian.AppendUint32(nil, queueLength)},
		}
	}
	for _, a := range steps {
		data, err := attributes{a}.encode(general(number))
		if err != nil {
			return err
		}
		m := netlink.Message{Header: netlink.Header{Type: queueConfig, Flags: netlink.Request}, Data: data}
		if !bind {
			_, err = q.conn.Send(m)
		} else {
			m.Header.Flags |= netlink.Acknowledge
			_, err = q.conn.Execute(m)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func general(number uint16) []byte {
	return binary.BigEndian.AppendUint16([]byte{unix.AF_UNSPEC, unix.NFNETLINK_V0}, number)
}

// receive waits for packets. ENOBUFS means that some did not fit and were dropped.
func (q *packetQueue) receive() ([]heldPacket, error) {
	messages, err := q.conn.Receive()
	if err != nil {
		return nil, err
	}
	var out []heldPacket
	for _, m := range messages {
		if m.Header.Type != queuePacket || len(m.Data) < generalHeader {
			continue
		}
		p := heldPacket{queue: binary.BigEndian.Uint16(m.Data[2:])}
		decoder, err := netlink.NewAttributeDecoder(m.Data[generalHeader:])
		if err != nil {
			continue
		}
		known := false
		for decoder.Next() {
			switch v := decoder.Bytes(); decoder.Type() {
			case queueHeader:
				if len(v) >= 7 {
					p.id, p.hook, known = binary.BigEndian.Uint32(v), v[6], true
				}
			case queuePayload:
				p.octets = v
			}
		}
		if known {
			out = append(out, p)
		}
	}
	return out, nil
}

// accept lets a packet go on with a mark.
func (q *packetQueue) accept(p heldPacket, m mark) error { return q.decide(p, verdictAccept, m) }

// drop drops a packet.
func (q *packetQueue) drop(p heldPacket) error { return q.decide(p, verdictDrop, mark{}) }

func (q *packetQueue) decide(p heldPacket, verdict uint32, m mark) error {
	attrs := attributes{{
		Type: queueDecision, Data: binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, verdict), p.id),
	}}
	if m != (mark{}) {
		attrs.add(queueMark, binary.BigEndian.AppendUint32(nil, m.value))
	}
	data, err := attrs.encode(general(p.queue))
	if err != nil {
		return err
	}
	_, err = q.conn.Send(netlink.Message{Header: netlink.Header{Type: queueVerdict, Flags: netlink.Request}, Data: data})
	return err
}

func (q *packetQueue) close() error { return q.conn.Close() }
