package lab_test

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"github.com/bailiwick-net/bailiwick/e2e/lab"
	"github.com/bailiwick-net/bailiwick/e2e/lab/labtest"
)

// pair builds two hosts on a switch: a 10.9.0.1, b 10.9.0.2.
func pair(t *testing.T, prefix string) (a, b *lab.Host) {
	t.Helper()
	l := labtest.New(t, prefix)
	bridge, err := l.Bridge("switch")
	if err != nil {
		t.Fatal(err)
	}
	hosts := map[string]*lab.Host{}
	for name, address := range map[string]string{"a": "10.9.0.1/24", "b": "10.9.0.2/24"} {
		h, err := l.Host(name)
		if err != nil {
			t.Fatal(err)
		}
		err = bridge.Attach(lab.End{Host: h, Device: "eth0", Addresses: []netip.Prefix{netip.MustParsePrefix(address)}})
		if err != nil {
			t.Fatal(err)
		}
		hosts[name] = h
	}
	return hosts["a"], hosts["b"]
}

func TestHostsReachEachOther(t *testing.T) {
	a, b := pair(t, "bwlab1-")
	capture, err := b.Capture("eth0")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Run("ping", "-c", "2", "-i", "0.01", "-W", "2", "10.9.0.2"); err != nil {
		t.Fatal(err)
	}
	frames, err := capture.Stop()
	if err != nil {
		t.Fatal(err)
	}
	var file bytes.Buffer
	if err := lab.WritePcap(&file, frames); err != nil {
		t.Fatal(err)
	}
	r, err := pcapgo.NewReader(&file)
	if err != nil {
		t.Fatal(err)
	}
	requests, replies := 0, 0
	for i := range frames {
		data, _, err := r.ReadPacketData()
		if err != nil {
			t.Fatalf("frame %d of %d in the pcap file: %v", i, len(frames), err)
		}
		icmp, ok := gopacket.NewPacket(data, layers.LayerTypeEthernet, gopacket.Default).Layer(layers.LayerTypeICMPv4).(*layers.ICMPv4)
		switch {
		case !ok:
		case icmp.TypeCode.Type() == layers.ICMPv4TypeEchoRequest && !frames[i].Outgoing:
			requests++
		case icmp.TypeCode.Type() == layers.ICMPv4TypeEchoReply && frames[i].Outgoing:
			replies++
		}
	}
	if requests != 2 || replies != 2 {
		t.Errorf("capture holds %d requests in and %d replies out, want 2 of each", requests, replies)
	}
}

func TestDoKeepsToTheHost(t *testing.T) {
	a, b := pair(t, "bwlab2-")
	var listener net.Listener
	err := a.Do(func() (err error) {
		listener, err = net.Listen("tcp", "10.9.0.1:7")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	accepted := make(chan error, 1)
	go func() {
		c, err := listener.Accept()
		if err == nil {
			err = c.Close()
		}
		accepted <- err
	}()
	err = b.Do(func() error {
		c, err := net.Dial("tcp", "10.9.0.1:7")
		if err != nil {
			return err
		}
		return c.Close()
	})
	if err := errors.Join(err, <-accepted); err != nil {
		t.Error(err)
	}
	if _, err := net.InterfaceByName("eth0"); err == nil {
		if addrs, err := net.InterfaceAddrs(); err == nil {
			for _, a := range addrs {
				if strings.HasPrefix(a.String(), "10.9.0.") {
					t.Errorf("address %v of the lab is visible outside of it", a)
				}
			}
		}
	}
}

// A socket keeps a namespace alive when its name is gone, as a closed TCP connection does whose last segment nobody
// acknowledges. The host must not go on answering on a switch that outlives it.
func TestClosedLabLeavesTheSwitch(t *testing.T) {
	a, _ := pair(t, "bwlab4-")
	l, err := lab.New("bwlab5-")
	if err != nil {
		t.Fatal(err)
	}
	old, err := l.Host("old")
	if err != nil {
		t.Fatal(err)
	}
	end := func(h *lab.Host, device, address string) lab.End {
		return lab.End{Host: h, Device: device, Addresses: []netip.Prefix{netip.MustParsePrefix(address)}}
	}
	if err := l.Link(end(a, "eth1", "10.8.0.1/24"), end(old, "eth0", "10.8.0.2/24")); err != nil {
		t.Fatal(err)
	}
	// Both ends of a link may be on one host.
	if err := l.Link(lab.End{Host: old, Device: "left"}, lab.End{Host: old, Device: "right"}); err != nil {
		t.Fatal(err)
	}
	if err := old.ServeEcho(t.Context(), 7); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if out, err := a.Run("ip", "-brief", "link", "show", "type", "veth"); err != nil || strings.Contains(out, "eth1") || !strings.Contains(out, "eth0") {
		t.Errorf("after the other lab was closed the host has the links %q (%v), want eth0 alone", out, err)
	}
}

func TestNewRemovesWhatACrashLeft(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	crashed, err := lab.New("bwlab3-")
	if err != nil {
		t.Fatal(err)
	}
	h, err := crashed.Host("old")
	if err != nil {
		t.Fatal(err)
	}
	p, err := h.Start(h.Command("sleep", "600"))
	if err != nil {
		t.Fatal(err)
	}
	next, err := lab.New("bwlab3-")
	if err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	if err := p.Wait(); !errors.As(err, &exit) {
		t.Errorf("process of the crashed lab ended with %v, want it killed", err)
	}
	if _, err := os.Stat("/run/netns/bwlab3-old"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("namespace of the crashed lab is still there: %v", err)
	}
	if err := next.Close(); err != nil {
		t.Error(err)
	}
}

func TestNewRefusesAPrefixThatMatchesTooMuch(t *testing.T) {
	for _, prefix := range []string{"", "a", "a*-", "x/y-"} {
		if l, err := lab.New(prefix); err == nil {
			t.Errorf("New(%q) gave %v, want an error", prefix, l)
		}
	}
}
