package packet

import (
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

func BenchmarkSum(b *testing.B) {
	octets := make([]byte, 1400)
	b.SetBytes(int64(len(octets)))
	for b.Loop() {
		Sum(octets, 0)
	}
}

func BenchmarkParse(b *testing.B) {
	for name, pkt := range map[string][]byte{
		"IPv4": reference(b, ip4(layers.IPProtocolTCP), &layers.TCP{}, gopacket.Payload("x")),
		"IPv6": reference(b, ip6(layers.IPProtocolTCP), &layers.TCP{}, gopacket.Payload("x")),
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, err := Parse(pkt); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
