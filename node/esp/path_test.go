package esp_test

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/bailiwick-net/bailiwick/node/esp"
	"github.com/bailiwick-net/bailiwick/node/packet"
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/node/tun"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
)

// A TCP super-packet is split and sealed segment by segment inside its read buffer, as the packet path does: the
// splitter writes headers over what was sealed, the sealer borrows octets that were not. Neither may harm the other.
func TestSuperPacketsAreSealedWhereTheyWereRead(t *testing.T) {
	const size, count = 1000, 40
	keys := sa.Keys{SPI: 0x1001, Encryption: sa.NewSecret(make([]byte, 20))}
	cbc := sa.Keys{SPI: 0x1001, Encryption: sa.NewSecret(make([]byte, 16)), Integrity: sa.NewSecret(make([]byte, 32))}
	for _, c := range []struct {
		name  string
		suite proposal.ESP
		keys  sa.Keys
	}{
		{"AES-GCM", proposal.ESP{Encryption: proposal.EncrAESGCM16, KeyBits: 128}, keys},
		{"AES-CBC", proposal.ESP{Encryption: proposal.EncrAESCBC, KeyBits: 128, Integrity: proposal.IntegHMACSHA256128}, cbc},
	} {
		for _, mode := range []sa.Mode{sa.Transport, sa.Tunnel} {
			t.Run(c.name+"/"+mode.String(), func(t *testing.T) {
				child := sa.Child{
					Mode: mode, Suite: c.suite, In: c.keys, Out: c.keys,
					Local: netip.MustParseAddrPort("192.0.2.2:4500"), Remote: netip.MustParseAddrPort("192.0.2.1:4500"),
				}
				out, err := esp.NewOutbound(child)
				if err != nil {
					t.Fatal(err)
				}
				in, err := esp.NewInbound(child)
				if err != nil {
					t.Fatal(err)
				}

				payload := make([]byte, size*count-7)
				for i := range payload {
					payload[i] = byte(i * 13 / 7)
				}
				tcp := make([]byte, 20)
				binary.BigEndian.PutUint32(tcp[4:], 1000)
				tcp[12], tcp[13] = 0x50, 0x18
				ip := packet.IP{
					Source: child.Remote.Addr(), Destination: child.Local.Addr(), Protocol: packet.ProtocolTCP, HopLimit: 64,
					DontFragment: true, PayloadLen: len(tcp) + len(payload),
				}
				buf := make([]byte, 0, tun.BufferSize)
				buf = append(append(ip.AppendHeader(buf), tcp...), payload...)
				header := tun.Header{
					Flags: tun.FlagNeedsChecksum, GSOType: tun.GSOTCPv4, GSOSize: size, CsumStart: 20, CsumOffset: 16,
				}

				var s tun.Splitter
				if err := s.Reset(header, buf); err != nil {
					t.Fatal(err)
				}
				send := make([]byte, esp.Headroom, 1<<16)
				bounds := []int{len(send)}
				for segment, ok := s.Next(); ok; segment, ok = s.Next() {
					if send, err = out.Seal(send, segment); err != nil {
						t.Fatal(err)
					}
					bounds = append(bounds, len(send))
				}
				if len(bounds) != count+1 {
					t.Fatalf("%d segments, want %d", len(bounds)-1, count)
				}

				// All are opened before any is looked at: what is opened must stay.
				var opened [][]byte
				for k := range count {
					o, err := in.Open(send, bounds[k], bounds[k+1])
					if err != nil {
						t.Fatalf("segment %d: %v", k, err)
					}
					opened = append(opened, o.Packet)
				}
				var got []byte
				for k, pkt := range opened {
					info, err := packet.Parse(pkt)
					if err != nil || !packet.VerifyChecksum(pkt, info) {
						t.Fatalf("segment %d: %+v, %v", k, info, err)
					}
					if seq := binary.BigEndian.Uint32(pkt[24:]); seq != 1000+uint32(k*size) {
						t.Errorf("segment %d: sequence number %d", k, seq)
					}
					got = append(got, pkt[40:]...)
				}
				if !bytes.Equal(got, payload) {
					t.Errorf("%d octets of payload came out of %d, or others", len(got), len(payload))
				}
			})
		}
	}
}
