package strongswan

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"github.com/bailiwick-net/bailiwick/e2e/interop/handmade"
	"github.com/bailiwick-net/bailiwick/e2e/interop/pair"
	"github.com/bailiwick-net/bailiwick/node/ike/sessiontest"
	"github.com/bailiwick-net/bailiwick/node/ike/wire"
	"github.com/bailiwick-net/bailiwick/node/vectortest"
)

// input is what a fuzz target has kept: its octets, and the number before them, if there is one.
type input struct {
	number byte
	octets []byte
}

// corpus reads what a fuzz target has kept: of each input the octets, and the number before them.
func corpus(t *testing.T, folder string) (inputs []input) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("..", "..", "..", filepath.FromSlash(folder), "*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no corpus in %s: %v", folder, err)
	}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var number byte
		for line := range strings.Lines(string(content)) {
			if quoted, ok := strings.CutPrefix(strings.TrimSpace(line), "byte('"); ok {
				value, _, _, err := strconv.UnquoteChar(quoted, '\'')
				if err != nil {
					t.Fatalf("%s: %v", file, err)
				}
				number = byte(value)
			}
			quoted, ok := strings.CutPrefix(strings.TrimSpace(line), "[]byte(")
			if !ok {
				continue
			}
			octets, err := strconv.Unquote(strings.TrimSuffix(quoted, ")"))
			if err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			inputs = append(inputs, input{number, []byte(octets)})
		}
	}
	return inputs
}

// recordings are the IKE messages of the shared test vectors: sessions of other implementations, and captures of what has
// broken some.
func recordings(t *testing.T) (messages [][]byte) {
	t.Helper()
	dir := vectortest.Dir(t)
	find := func(patterns ...string) (files []string) {
		for _, p := range patterns {
			found, err := filepath.Glob(filepath.Join(dir, p))
			if err != nil || len(found) == 0 {
				t.Fatalf("no %s in the shared test vectors: %v", p, err)
			}
			files = append(files, found...)
		}
		return files
	}
	for _, file := range find("recorded/*.json") {
		s, err := sessiontest.Load(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range s.Packets {
			messages = append(messages, p.Hex)
		}
	}
	for _, file := range find("libreswan/*.pcap", "wireshark/ike*.pcap*", "scapy/ikev2*.pcap*") {
		if strings.HasSuffix(file, ".gz") {
			continue
		}
		messages = append(messages, captured(t, file)...)
	}
	return messages
}

// captured are the payloads of UDP in a capture of either format, without the marker of port 4500.
func captured(t *testing.T, file string) (payloads [][]byte) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var source interface {
		gopacket.PacketDataSource
		LinkType() layers.LinkType
	}
	if source, err = pcapgo.NewReader(f); err != nil {
		if _, err = f.Seek(0, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		if source, err = pcapgo.NewNgReader(f, pcapgo.DefaultNgReaderOptions); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
	}
	for {
		data, _, err := source.ReadPacketData()
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return payloads
		}
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		if udp, ok := gopacket.NewPacket(data, source.LinkType(), gopacket.Default).Layer(layers.LayerTypeUDP).(*layers.UDP); ok {
			payloads = append(payloads, bytes.TrimPrefix(udp.Payload, make([]byte, 4)))
		}
	}
}

// process reads a figure of the node's daemon from the kernel.
func (p peers) process(figure string) int {
	p.T.Helper()
	pids := p.Process.Pids()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pids[len(pids)-1])) // its holder does nothing
	if err != nil {
		p.T.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, figure+":"); ok {
			n, err := strconv.Atoi(strings.Fields(rest)[0])
			if err != nil {
				p.T.Fatal(err)
			}
			return n
		}
	}
	p.T.Fatalf("the kernel does not tell %s", figure)
	return 0
}

// goroutines ends the node as a crash would, and counts the goroutines that it then tells of.
func (p peers) goroutines() int {
	p.T.Helper()
	log := filepath.Join(p.Dir, "node.log")
	before, err := os.Stat(log)
	if err != nil {
		p.T.Fatal(err)
	}
	if err := syscall.Kill(p.Process.Pid(), syscall.SIGQUIT); err != nil {
		p.T.Fatal(err)
	}
	<-p.Process.Done()
	after, err := os.ReadFile(log)
	if err != nil {
		p.T.Fatal(err)
	}
	n := len(regexp.MustCompile(`(?m)^goroutine \d+ `).FindAll(after[before.Size():], -1))
	if n == 0 {
		p.T.Fatal("the node ended without a word about its goroutines")
	}
	return n
}

// accounted are all messages that the node has counted: those that it dropped, for whatever reason, and first messages.
func (p peers) accounted() (n uint64) {
	p.T.Helper()
	s, err := p.Client.Status(p.Ctx)
	if err != nil {
		p.T.Fatal(err)
	}
	for name, count := range s.Counters {
		if strings.HasPrefix(name, "ike_dropped_") || name == "ike_init_received" {
			n += count
		}
	}
	return n
}

// pour sends datagrams of a stranger, a few at a time so that none is lost on the way to the engine, and requires that each
// of them is accounted for. It returns how many there were.
func (p peers) pour(what string, datagrams [][]byte, stranger *handmade.Peer) int {
	p.T.Helper()
	// The transport keeps what is empty and keepalives to itself.
	datagrams = slices.DeleteFunc(slices.Clone(datagrams), func(d []byte) bool { return len(d) < 2 || len(d) > 60000 })
	for some := range slices.Chunk(datagrams, 64) {
		before := p.accounted()
		for _, d := range some {
			stranger.Send(d)
		}
		p.Until(fmt.Sprintf("%d messages of %s are accounted for", len(some), what), func() (bool, error) {
			return p.accounted() >= before+uint64(len(some)), nil
		})
	}
	return len(datagrams)
}

// TestCorpora sends a running node what fuzzers have kept and what others have recorded, in clear and under keys that it
// shares with somebody who has not proved who he is. The node stays up, with the memory and the goroutines that it has
// without all that; the SA that it had carries on, and a TCP connection through it; and every datagram is accounted for.
func TestCorpora(t *testing.T) {
	shows(t, 61)
	p, _ := established(t, pair.FromPeer, pair.Policy{})
	stop := p.Stream(pair.FromPeer)
	before := p.Ours()
	// From the address of the peer, which the node has a rule for, but not from its port.
	stranger := handmade.New(t, handmade.Config{
		Host: p.Peer, Local: netip.AddrPortFrom(pair.PeerOuter, 5500), Remote: netip.AddrPortFrom(pair.NodeOuter, 500),
		Offer: gcm256, PSK: pair.PSK, ID: pair.PeerName, PeerID: pair.NodeName,
	})
	sealed := slices.Concat(corpus(t, "node/ike/wire/testdata/fuzz/FuzzParsePayloads"), corpus(t, "node/ike/ikesim/testdata/fuzz/FuzzSealed"))
	for _, in := range sealed {
		p.sealedByStranger(stranger, wire.PayloadType(in.number), in.octets[:min(len(in.octets), 8000)])
	}
	memory := p.process("VmRSS")
	var fuzzed [][]byte
	for _, target := range []string{"ike/ikesim/testdata/fuzz/FuzzDatagram", "ike/wire/testdata/fuzz/FuzzParseMessage", "ike/suite/testdata/fuzz/FuzzOpenSK", "esp/testdata/fuzz/FuzzOpenESP"} {
		for _, in := range corpus(t, "node/"+target) {
			fuzzed = append(fuzzed, in.octets)
		}
	}
	sent := 0
	for range 10 {
		sent += p.pour("fuzzers", fuzzed, stranger)
	}
	t.Run("recorded", func(t *testing.T) { sent += p.pour("recordings", recordings(t), stranger) })
	if messages := stop(); messages == 0 {
		t.Error("nothing went through the SA meanwhile")
	}
	if now := p.Ours(); len(now.Children) != 1 || now.Children[0].In != before.Children[0].In || now.IKE[0].SPI != before.IKE[0].SPI {
		t.Errorf("the node has %+v, want %+v", now, before)
	}
	// The collector may leave as much again, and what is half open stays for a while.
	after := p.process("VmRSS")
	if after > 2*memory+32<<10 {
		t.Errorf("the node uses %d KiB, and used %d before", after, memory)
	}
	busy := p.goroutines()
	p.RestartNode()
	p.BringUp(pair.FromNode)
	idle := p.goroutines()
	if busy > idle+4 {
		t.Errorf("the node has %d goroutines after all that, %d without", busy, idle)
	}
	t.Logf("%d datagrams, and %d messages under keys; %d KiB before, %d after; %d goroutines, %d in a new node",
		sent, len(sealed), memory, after, busy, idle)
}

// sealedByStranger makes an IKE SA and sends one IKE_AUTH request in it, of any content. The stranger learns nothing but
// that he is refused.
func (p peers) sealedByStranger(stranger *handmade.Peer, first wire.PayloadType, inner []byte) {
	p.T.Helper()
	stranger.Reset()
	stranger.Init()
	h := wire.Header{SPIi: stranger.SPIi, SPIr: stranger.SPIr, Exchange: wire.IKEAuth, MessageID: 1, Flags: wire.FlagInitiator}
	stranger.Send(stranger.SealRaw(h, first, inner))
	m, datagram, ok := stranger.Read(5 * time.Second)
	if !ok {
		p.T.Fatalf("IKE_AUTH of %s %x is not answered", first, inner)
	}
	for _, answer := range stranger.Open(m, datagram) {
		if n, ok := answer.(wire.Notify); !ok || !n.Type.IsError() {
			p.T.Fatalf("a stranger is answered with %s", m)
		}
	}
}
