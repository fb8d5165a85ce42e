package transport

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// withSPI returns an ESP packet.
func withSPI(spi uint32, size int) []byte {
	return append(binary.BigEndian.AppendUint32(nil, spi), make([]byte, size-4)...)
}

// spisOf waits for n ESP packets and returns their SPIs in ascending order.
func (q *Queue) spisOf(t *testing.T, n int) (spis []uint32) {
	t.Helper()
	got, _ := q.wait(t, n)
	for _, p := range got {
		spis = append(spis, binary.BigEndian.Uint32([]byte(p.octets)))
	}
	slices.Sort(spis)
	return spis
}

// Whatever way ESP takes, it arrives at the queue that QueueOf names, and only there.
func TestPacketsArriveAtTheQueueOfTheirSPI(t *testing.T) {
	a, b := link(t)
	from := a.listen(t, Config{})
	for _, queues := range []int{2, 3, 7} {
		to := b.listen(t, Config{Queues: queues})
		for _, c := range []struct {
			name, local, remote string
			size                int
			prepare             func(*socket) error
		}{
			{name: "UDP over IPv4", local: "10.77.8.1:4500", remote: "10.77.8.2:4500", size: 100},
			{name: "UDP over IPv6", local: "[fd77:8::1]:4500", remote: "[fd77:8::2]:4500", size: 100},
			{name: "UDP over IPv4 in pieces", local: "10.77.8.1:4500", remote: "10.77.8.2:4500", size: 4000},
			{name: "UDP over IPv6 in pieces", local: "[fd77:8::1]:4500", remote: "[fd77:8::2]:4500", size: 4000},
			{name: "raw over IPv4", local: "10.77.8.1:0", remote: "10.77.8.2:0", size: 100},
			{name: "raw over IPv6", local: "[fd77:8::1]:0", remote: "[fd77:8::2]:0", size: 100},
			{name: "raw over IPv4 in pieces", local: "10.77.8.1:0", remote: "10.77.8.2:0", size: 4000},
			{name: "raw over IPv6 in pieces", local: "[fd77:8::1]:0", remote: "[fd77:8::2]:0", size: 4000},
			{name: "raw over IPv4 with options", local: "10.77.8.1:0", remote: "10.77.8.2:0", size: 100, prepare: func(sock *socket) error {
				return unix.SetsockoptString(sock.fd, unix.SOL_IP, unix.IP_OPTIONS, "\x01\x01\x01\x01\x01\x01\x01\x00")
			}},
			{name: "raw over IPv6 with an extension header", local: "[fd77:8::1]:0", remote: "[fd77:8::2]:0", size: 100, prepare: func(sock *socket) error {
				return unix.SetsockoptString(sock.fd, unix.SOL_IPV6, unix.IPV6_DSTOPTS, "\x00\x00\x01\x04\x00\x00\x00\x00")
			}},
		} {
			t.Run(fmt.Sprintf("%d queues/%s", queues, c.name), func(t *testing.T) {
				m := &Message{Local: addr(c.local), Remote: addr(c.remote), Encap: addr(c.local).Port() != 0, MayFragment: true}
				q := from.Queue(0)
				if c.prepare != nil {
					if err := c.prepare(q.find(m)); err != nil {
						t.Fatal(err)
					}
				}
				want := make([][]uint32, queues)
				for spi := uint32(1 << 20); spi < 1<<20+2*MaxQueues; spi++ {
					m.Payload = withSPI(spi, c.size)
					if err := q.SendESP(m); err != nil {
						t.Fatal(err)
					}
					at := QueueOf(spi, queues)
					want[at] = append(want[at], spi)
				}
				for i := range queues {
					if got := to.Queue(i).spisOf(t, len(want[i])); !slices.Equal(got, want[i]) {
						t.Errorf("queue %d got SPIs %x, want %x", i, got, want[i])
					}
				}
				for i := range queues {
					if err := to.Queue(i).ReceiveESP(NewBatch(1)); !errors.Is(err, ErrWouldBlock) {
						t.Errorf("queue %d has more: %v", i, err)
					}
				}
			})
		}
		if err := to.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// What the kernel joins goes to the queue of its first packet, whole; IKE goes to the first queue.
func TestJoinedPacketsStayTogether(t *testing.T) {
	a, b := link(t)
	from, to := a.listen(t, Config{}), b.listen(t, Config{Queues: 4})
	m := &Message{Local: addr("10.77.8.1:4500"), Remote: addr("10.77.8.2:4500"), Encap: true, SegmentLen: 500}
	var sent []uint32
	for spi := uint32(4098); spi < 4114; spi++ {
		m.Payload = append(m.Payload, withSPI(spi, 500)...)
		sent = append(sent, spi)
	}
	if err := from.Queue(0).SendESP(m); err != nil {
		t.Fatal(err)
	}
	if got := to.Queue(QueueOf(sent[0], 4)).spisOf(t, len(sent)); !slices.Equal(got, sent) {
		t.Errorf("got SPIs %x, want %x", got, sent)
	}
	if err := from.WriteIKE(m.Local, m.Remote, []byte("a message of IKE")); err != nil {
		t.Fatal(err)
	}
	if err := from.Queue(0).SendESP(&Message{Local: m.Local, Remote: m.Remote, Encap: true, Payload: withSPI(4096, 100)}); err != nil {
		t.Fatal(err)
	}
	if got := to.Queue(0).spisOf(t, 1); got[0] != 4096 {
		t.Errorf("got SPI %x, want 1000", got[0])
	}
	if octets, _, _, ok := to.NextIKE(); !ok || string(octets) != "a message of IKE" {
		t.Errorf("read %q, %v from the queue of IKE", octets, ok)
	}
}
