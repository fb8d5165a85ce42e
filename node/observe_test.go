package node

import (
	"net/netip"
	"reflect"
	"testing"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/ike/engine"
	"github.com/bailiwick-net/bailiwick/node/ike/trace"
	"github.com/bailiwick-net/bailiwick/node/localapi"
	"github.com/bailiwick-net/bailiwick/node/sa"
)

func TestTraceFilterKnowsWhatIsMeant(t *testing.T) {
	a := netip.MustParseAddr
	negotiated := engine.Snapshot{SAs: []engine.SA{
		{SPI: 0x1111111111111111, PeerSPI: 0x2222222222222222, Children: []sa.Child{{In: sa.Keys{SPI: 0x33333333}, Out: sa.Keys{SPI: 0x4444444f}}}},
		{SPI: 0x5555555555555555, PeerSPI: 0x6666666666666666},
	}}
	for _, c := range []struct {
		request localapi.TraceRequest
		want    trace.Filter
	}{
		{localapi.TraceRequest{}, trace.Filter{}},
		{localapi.TraceRequest{Peer: "::ffff:10.0.0.1"}, trace.Filter{Addresses: []netip.Addr{a("10.0.0.1")}}},
		{localapi.TraceRequest{Peer: "fe80::1%eth0"}, trace.Filter{Addresses: []netip.Addr{a("fe80::1")}}},
		{localapi.TraceRequest{Peer: "10.0.0.1:4500"}, trace.Filter{Addresses: []netip.Addr{a("10.0.0.1")}}},
		{
			localapi.TraceRequest{Peer: "files1", Addresses: []netip.Addr{a("10.0.0.9")}},
			trace.Filter{Names: []string{"files1"}, Addresses: []netip.Addr{a("10.0.0.9")}},
		},
		{localapi.TraceRequest{Peer: "33333333"}, trace.Filter{Mention: "33333333", IKE: []ike.IKESPI{0x1111111111111111}}},
		{localapi.TraceRequest{Peer: "4444444F"}, trace.Filter{Mention: "4444444f", IKE: []ike.IKESPI{0x1111111111111111}}},
		{
			localapi.TraceRequest{Peer: "6666666666666666"},
			trace.Filter{Mention: "6666666666666666", IKE: []ike.IKESPI{0x6666666666666666, 0x5555555555555555}},
		},
		{localapi.TraceRequest{Peer: "deadbeef"}, trace.Filter{Mention: "deadbeef"}}, // gone: what is remembered mentions it
		{localapi.TraceRequest{Peer: "abc"}, trace.Filter{Names: []string{"abc"}}},
	} {
		if have := traceFilter(c.request, negotiated); !reflect.DeepEqual(have, c.want) {
			t.Errorf("%+v means %+v, want %+v", c.request, have, c.want)
		}
	}
}
