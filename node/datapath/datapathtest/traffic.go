package datapathtest

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/bailiwick-net/bailiwick/e2e/lab"
)

// secret is in the payload of everything that must not be seen on the wire. The capture is searched for it.
const secret = "bailiwick: this must not be on the wire in clear"

// EchoTCP answers each connection with what it sends, on any address of the host.
func (p *Peer) EchoTCP(t testing.TB, port uint16) {
	t.Helper()
	var listener net.Listener
	err := p.Do(func() (err error) {
		listener, err = net.Listen("tcp", fmt.Sprintf(":%d", port))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c) // the client compares what comes back
			}()
		}
	}()
	t.Cleanup(func() {
		listener.Close()
		<-done
	})
}

// EchoUDP answers each datagram with itself.
func (p *Peer) EchoUDP(t testing.TB, local netip.AddrPort) {
	t.Helper()
	var conn *net.UDPConn
	err := p.Do(func() (err error) {
		conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(local))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 65536)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				_, _ = conn.WriteToUDPAddrPort(buf[:n], from) // a lost answer is seen by the client
			}
		}
	}()
	t.Cleanup(func() {
		conn.Close()
		<-done
	})
}

// TryTCP exchanges the secret over a new connection.
func (p *Peer) TryTCP(to netip.AddrPort, timeout time.Duration) error {
	return p.Do(func() error {
		c, err := net.DialTimeout("tcp", to.String(), timeout)
		if err != nil {
			return err
		}
		defer c.Close()
		return lab.RoundTrip(c, []byte(secret), time.Now().Add(timeout))
	})
}

// TryUDP exchanges one datagram of a length.
func (p *Peer) TryUDP(to netip.AddrPort, length int, timeout time.Duration) error {
	return p.Do(func() error {
		c, err := net.Dial("udp", to.String())
		if err != nil {
			return err
		}
		defer c.Close()
		payload := bytes.Repeat([]byte(secret), length/len(secret)+1)[:length]
		return lab.RoundTrip(c, payload, time.Now().Add(timeout))
	})
}

// TransferTCP sends octets to an echo server and compares what comes back; each half runs at its own speed.
func (p *Peer) TransferTCP(to netip.AddrPort, octets int64, timeout time.Duration) error {
	return p.Do(func() error {
		c, err := net.DialTimeout("tcp", to.String(), timeout)
		if err != nil {
			return err
		}
		defer c.Close()
		if err := c.SetDeadline(time.Now().Add(timeout)); err != nil {
			return err
		}
		sent := make(chan []byte, 1)
		failed := make(chan error, 1)
		go func() {
			sum := sha256.New()
			source := rand.NewChaCha8([32]byte{1})
			_, err := io.Copy(io.MultiWriter(sum, c), io.LimitReader(source, octets))
			failed <- errors.Join(err, c.(*net.TCPConn).CloseWrite())
			sent <- sum.Sum(nil)
		}()
		sum := sha256.New()
		n, err := io.Copy(sum, c)
		if err := errors.Join(err, <-failed); err != nil {
			return fmt.Errorf("transfer ended after %d of %d octets: %w", n, octets, err)
		}
		if got, want := sum.Sum(nil), <-sent; n != octets || !bytes.Equal(got, want) {
			return fmt.Errorf("%d of %d octets came back, or other ones: sha256 %x, want %x", n, octets, got, want)
		}
		return nil
	})
}

// Wire is what a capture between the hosts saw.
type Wire struct {
	Clear   []string // one line for each packet that was not protected
	ESP     int      // packets of protocol 50
	Encap   int      // ESP packets in UDP 4500
	Leaks   int      // frames with the secret in them
	MaxSize int      // longest IP packet
	Frames  []lab.Frame
}

// Watch captures the wire until the returned function is called: what each host sends, in the order of time, with Outgoing
// as a sees it. What a host receives is not looked at there: a kernel that opens tunnels shows it a second time, opened.
func (w *World) Watch(t testing.TB) func() Wire {
	t.Helper()
	var captures []*lab.Capture
	for _, p := range []*Peer{w.A, w.B} {
		capture, err := p.Capture("eth0")
		if err != nil {
			t.Fatal(err)
		}
		captures = append(captures, capture)
	}
	return func() Wire {
		t.Helper()
		var sent []lab.Frame
		for i, capture := range captures {
			frames, err := capture.Stop()
			if err != nil {
				t.Error(err)
			}
			for _, f := range frames {
				if f.Outgoing {
					f.Outgoing = i == 0
					sent = append(sent, f)
				}
			}
		}
		slices.SortStableFunc(sent, func(a, b lab.Frame) int { return a.Time.Compare(b.Time) })
		return Judge(sent)
	}
}

// Judge sorts frames. Neighbour discovery, ARP and IKE are not counted.
func Judge(frames []lab.Frame) Wire {
	w := Wire{Frames: frames}
	for _, f := range frames {
		if bytes.Contains(f.Data, []byte(secret)[:24]) {
			w.Leaks++
		}
		w.judge(gopacket.NewPacket(f.Data, layers.LayerTypeEthernet, gopacket.NoCopy))
	}
	return w
}

func (w *Wire) judge(p gopacket.Packet) {
	network := p.NetworkLayer()
	if network == nil {
		return
	}
	w.MaxSize = max(w.MaxSize, len(network.LayerContents())+len(network.LayerPayload()))
	protocol := layers.IPProtocol(0)
	fragment := false
	switch ip := network.(type) {
	case *layers.IPv4:
		protocol = ip.Protocol
		fragment = ip.FragOffset > 0
	case *layers.IPv6:
		protocol = ip.NextHeader
		if f, ok := p.Layer(layers.LayerTypeIPv6Fragment).(*layers.IPv6Fragment); ok {
			protocol, fragment = f.NextHeader, f.FragmentOffset > 0
		}
	}
	if protocol == layers.IPProtocolESP {
		w.ESP++
		return
	}
	if icmp, ok := p.Layer(layers.LayerTypeICMPv6).(*layers.ICMPv6); ok && icmp.TypeCode.Type() >= 130 && icmp.TypeCode.Type() <= 143 {
		return
	}
	if udp, ok := p.Layer(layers.LayerTypeUDP).(*layers.UDP); ok && udp.SrcPort == 4500 && udp.DstPort == 4500 {
		w.Encap++
		return
	}
	if fragment && protocol == layers.IPProtocolUDP && w.Encap > 0 {
		return // later fragment of an ESP packet; the secret would show in it
	}
	w.Clear = append(w.Clear, fmt.Sprintf("%v %v", network.NetworkFlow(), p.Layers()))
}

// wantProtected fails the test unless everything on the wire is protected, and something was.
func (w Wire) wantProtected(t testing.TB) {
	t.Helper()
	if w.Leaks > 0 || len(w.Clear) > 0 {
		first := "none"
		if len(w.Clear) > 0 {
			first = w.Clear[0]
		}
		t.Errorf("wire shows %d packets in clear and the secret in %d frames, want none; first packet: %s", len(w.Clear), w.Leaks, first)
	}
	if w.ESP+w.Encap == 0 {
		t.Error("wire shows no ESP packet at all")
	}
}

// wantNoClear fails the test if anything but ESP and neighbour discovery is on the wire.
func (w Wire) wantNoClear(t testing.TB) {
	t.Helper()
	if len(w.Clear) > 0 || w.Leaks > 0 {
		t.Errorf("wire shows %d packets in clear and the secret in %d frames, want none: %v", len(w.Clear), w.Leaks, w.Clear)
	}
}

// wantNothing fails the test if anything but neighbour discovery is on the wire.
func (w Wire) wantNothing(t testing.TB) {
	t.Helper()
	if len(w.Clear) > 0 || w.ESP+w.Encap > 0 {
		t.Errorf("wire shows %d packets in clear and %d of ESP, want none: %v", len(w.Clear), w.ESP+w.Encap, w.Clear)
	}
}

// converse sends octets over one connection to an echo server, calls halfway, and sends as many again.
func (p *Peer) converse(to netip.AddrPort, octets int, halfway func() error) error {
	return p.Do(func() error {
		c, err := net.DialTimeout("tcp", to.String(), long)
		if err != nil {
			return err
		}
		defer c.Close()
		payload := bytes.Repeat([]byte(secret), 64<<10/len(secret))
		send := func() error {
			for n := 0; n < octets; n += len(payload) {
				if err := lab.RoundTrip(c, payload, time.Now().Add(20*time.Second)); err != nil {
					return fmt.Errorf("after %d octets: %w", n, err)
				}
			}
			return nil
		}
		if err := send(); err != nil {
			return fmt.Errorf("first half: %w", err)
		}
		if err := halfway(); err != nil {
			return err
		}
		if err := send(); err != nil {
			return fmt.Errorf("second half: %w", err)
		}
		return nil
	})
}
