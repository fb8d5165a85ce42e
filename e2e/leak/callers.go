package main

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"time"
)

// udpCaller sends datagrams from one socket, or each from a new one.
type udpCaller struct {
	port   uint16
	octets int
	once   bool
	conn   net.Conn
	answer [64 << 10]byte
}

func (u *udpCaller) size() int { return u.octets }

func (u *udpCaller) close() {
	if u.conn != nil {
		_ = u.conn.Close()
		u.conn = nil
	}
}

func (u *udpCaller) ask(c caller, request []byte) (answer []byte, err error) {
	if u.once {
		u.close()
	}
	if u.conn == nil {
		if u.conn, err = c.dial("udp", u.port); err != nil {
			u.conn = nil
			return nil, err
		}
	}
	// The answer to an earlier request may come late.
	deadline := time.Now().Add(answerTime)
	if err := u.conn.SetDeadline(deadline); err != nil {
		return nil, err
	}
	_, err = u.conn.Write(request)
	for err == nil {
		var n int
		if n, err = u.conn.Read(u.answer[:]); err == nil && sameNumber(c, u.answer[:n], request) {
			return u.answer[:n], nil
		}
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		u.close()
	}
	return nil, err
}

func sameNumber(c caller, a, b []byte) bool {
	n, ours := c.party.Number(a)
	m, _ := c.party.Number(b)
	return ours && n == m
}

// tcpCaller sends records over one connection, or each over a new one.
type tcpCaller struct {
	once   bool
	conn   net.Conn
	answer [recordSize]byte
}

func (t *tcpCaller) size() int { return recordSize }

func (t *tcpCaller) close() {
	if t.conn != nil {
		_ = t.conn.Close()
		t.conn = nil
	}
}

func (t *tcpCaller) ask(c caller, request []byte) (answer []byte, err error) {
	if t.once {
		t.close()
	}
	if t.conn == nil {
		if t.conn, err = c.dial("tcp", tcpPort); err != nil {
			t.conn = nil
			return nil, err
		}
	}
	if err := t.conn.SetDeadline(time.Now().Add(2 * answerTime)); err != nil {
		return nil, err
	}
	if _, err = t.conn.Write(request); err == nil {
		_, err = io.ReadFull(t.conn, t.answer[:])
	}
	if err != nil {
		t.close()
	}
	return t.answer[:], err
}

// echoCaller sends ICMP echo requests.
type echoCaller struct {
	conn     net.PacketConn
	sequence uint16
	answer   [64 << 10]byte
}

func (e *echoCaller) size() int { return smallSize }

func (e *echoCaller) close() {
	if e.conn != nil {
		_ = e.conn.Close()
		e.conn = nil
	}
}

// Types of ICMP messages (RFC 792, RFC 4443).
const (
	echoReply4, echoRequest4 = 0, 8
	echoRequest6, echoReply6 = 128, 129
)

func (e *echoCaller) ask(c caller, request []byte) (answer []byte, err error) {
	network, kind := "ip4:icmp", byte(echoRequest4)
	if c.from.Is6() {
		network, kind = "ip6:ipv6-icmp", echoRequest6
	}
	if e.conn == nil {
		err := c.host.Do(func() (err error) {
			e.conn, err = net.ListenPacket(network, c.from.String())
			return err
		})
		if err != nil {
			e.conn = nil
			return nil, err
		}
	}
	e.sequence++
	message := append([]byte{kind, 0, 0, 0, 0x1e, 0xa4}, binary.BigEndian.AppendUint16(nil, e.sequence)...)
	message = append(message, request...)
	if !c.from.Is6() { // the kernel fills the checksum of ICMPv6 in (RFC 3542 3.1)
		binary.BigEndian.PutUint16(message[2:], checksum(message))
	}
	if err := e.conn.SetDeadline(time.Now().Add(answerTime)); err != nil {
		return nil, err
	}
	_, err = e.conn.WriteTo(message, &net.IPAddr{IP: c.to.AsSlice()})
	for err == nil {
		var n int
		if n, _, err = e.conn.ReadFrom(e.answer[:]); err == nil && n > 8 && (e.answer[0] == echoReply4 || e.answer[0] == echoReply6) && sameNumber(c, e.answer[8:n], request) {
			return e.answer[8:n], nil
		}
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		e.close()
	}
	return nil, err
}

// checksum is that of RFC 1071.
func checksum(b []byte) uint16 {
	var sum uint32
	for ; len(b) > 1; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// knock sends datagrams to a port on which nobody listens: the errors that come back quote them.
func (c caller) knock() {
	each(c.ctx, 500*time.Millisecond, func() {
		conn, err := c.dial("udp", closedPort)
		if err != nil {
			return
		}
		_, _ = conn.Write(c.party.Append(nil, smallSize, c.n.Add(1))) // nobody answers
		_ = conn.Close()
	})
}

// each calls f at an interval until the context ends.
func each(ctx context.Context, interval time.Duration, f func()) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			f()
		}
	}
}
