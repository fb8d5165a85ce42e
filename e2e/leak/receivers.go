package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"

	"github.com/bailiwick-net/bailiwick/e2e/leak/proof"
)

// accepted counts what machines took from the wire that nobody with the right to send it has sent.
type accepted struct {
	mu struct {
		sync.Mutex
		packets, octets int
		examples        []string
		kinds           map[string]int
	}
}

const mostExamples = 20

func (a *accepted) add(kind, what string, payload []byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.mu.packets++
	a.mu.octets += len(payload)
	if a.mu.kinds == nil {
		a.mu.kinds = map[string]int{}
	}
	a.mu.kinds[kind]++
	if len(a.mu.examples) < mostExamples {
		a.mu.examples = append(a.mu.examples, fmt.Sprintf("%s: %s, %d octets: %s", kind, what, len(payload), hex.EncodeToString(payload[:min(48, len(payload))])))
	}
}

// take returns what was accepted, and begins anew.
func (a *accepted) take() (packets, octets int, kinds map[string]int, examples []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	packets, octets, kinds, examples = a.mu.packets, a.mu.octets, a.mu.kinds, a.mu.examples
	a.mu.packets, a.mu.octets, a.mu.kinds, a.mu.examples = 0, 0, nil, nil
	return packets, octets, kinds, examples
}

// seen is what was accepted up to now.
func (a *accepted) seen() (kinds map[string]int, octets int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return maps.Clone(a.mu.kinds), a.mu.octets
}

// serve starts the receivers of a machine.
func (w *world) serve(ctx context.Context, s *station) error {
	if err := w.serveUDP(ctx, s, udpPort, w.party); err != nil {
		return err
	}
	if err := w.serveTCP(ctx, s); err != nil {
		return err
	}
	for _, network := range []string{"ip4:icmp", "ip6:ipv6-icmp", "ip4:tcp", "ip6:tcp"} {
		if err := w.overhear(ctx, s, network); err != nil {
			return err
		}
	}
	return nil
}

// serveUntil runs f until the context ends, which closes c.
func (w *world) serveUntil(ctx context.Context, c io.Closer, f func()) {
	context.AfterFunc(ctx, func() { _ = c.Close() })
	w.running.Go(f)
}

// serveDatagrams gives f everything that comes to conn until the context ends.
func (w *world) serveDatagrams(ctx context.Context, conn net.PacketConn, f func(b []byte, from net.Addr)) {
	w.serveUntil(ctx, conn, func() {
		buffer := make([]byte, 64<<10)
		for {
			n, from, err := conn.ReadFrom(buffer)
			if ctx.Err() != nil {
				return
			}
			if err == nil { // else an ICMP error about an answer
				f(buffer[:n], from)
			}
		}
	})
}

// serveUDP answers every datagram of the party with itself.
func (w *world) serveUDP(ctx context.Context, s *station, port uint16, party *proof.Party) error {
	for family, network := range []string{"udp4", "udp6"} {
		var conn *net.UDPConn
		err := s.host.Do(func() (err error) {
			conn, err = net.ListenUDP(network, &net.UDPAddr{Port: int(port)})
			return err
		})
		if err != nil {
			return err
		}
		w.serveDatagrams(ctx, conn, func(b []byte, from net.Addr) {
			if _, ours := party.Number(b); !ours {
				w.accepted.add(fmt.Sprintf("UDP over IPv%d", 4+2*family), fmt.Sprintf("%s from %s", s.Name, from), b)
				return
			}
			_, _ = conn.WriteTo(b, from) // who asked sees that nothing comes back
		})
	}
	return nil
}

// serveTCP answers every record with itself, and takes nobody but the other machine.
func (w *world) serveTCP(ctx context.Context, s *station) error {
	var listener net.Listener
	err := s.host.Do(func() (err error) {
		listener, err = net.Listen("tcp", fmt.Sprintf(":%d", tcpPort))
		return err
	})
	if err != nil {
		return err
	}
	w.serveUntil(ctx, listener, func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			from := conn.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
			if slices.Contains(w.intruder.address[:], from) {
				w.accepted.add("TCP connection", fmt.Sprintf("%s from %s", s.Name, from), nil)
			}
			w.serveUntil(ctx, conn, func() {
				defer conn.Close()
				record := make([]byte, recordSize)
				for {
					n, err := io.ReadFull(conn, record)
					if _, ours := w.party.Number(record[:n]); n > 0 && !ours && err == nil {
						w.accepted.add("TCP record", fmt.Sprintf("%s from %s", s.Name, from), record[:n])
						return
					}
					if err != nil {
						return
					}
					if _, err := conn.Write(record); err != nil {
						return
					}
				}
			})
		}
	})
	return nil
}

// overhear looks at everything of a protocol that the machine's kernel has let in.
func (w *world) overhear(ctx context.Context, s *station, network string) error {
	var conn net.PacketConn
	err := s.host.Do(func() (err error) {
		conn, err = net.ListenPacket(network, "")
		return err
	})
	if err != nil {
		return err
	}
	w.serveDatagrams(ctx, conn, func(b []byte, from net.Addr) {
		if strings.HasSuffix(network, "tcp") {
			if forgedSegment(b) {
				w.accepted.add("TCP segment", fmt.Sprintf("%s from %s", s.Name, from), b)
			}
		} else if payload, echo := echoOf(b); echo {
			// The nodes probe the path by echo requests of their own, under protection.
			if bytes.Contains(payload, []byte(forged)) {
				w.accepted.add("ICMP echo", fmt.Sprintf("%s from %s", s.Name, from), b)
			}
		}
	})
	return nil
}

func forgedSegment(b []byte) bool {
	return len(b) >= 4 && (binary.BigEndian.Uint16(b) == forgedPort || binary.BigEndian.Uint16(b[2:]) == forgedPort)
}

// echoOf returns what an echo request or reply holds. Types of ICMP and ICMPv6 do not overlap here.
func echoOf(b []byte) (payload []byte, echo bool) {
	if len(b) < 8 {
		return nil, false
	}
	switch b[0] {
	case echoRequest4, echoReply4, echoRequest6, echoReply6:
		return b[8:], true
	}
	return nil, false
}
