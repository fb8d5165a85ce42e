package facts

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/bailiwick-net/bailiwick/e2e/lab/labtest"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

func addrs(texts ...string) []netip.Addr {
	var out []netip.Addr
	for _, t := range texts {
		out = append(out, netip.MustParseAddr(t))
	}
	return out
}

func TestParsers(t *testing.T) {
	tests := []struct {
		name    string
		parse   func([]byte) ([]netip.Addr, error)
		content string
		want    []netip.Addr
		err     string
	}{
		{"resolv.conf", parseResolvConf, "# c\nsearch bank.example\nnameserver 192.0.2.53\nnameserver fe80::1%eth0\nnameserver 127.0.0.53\nnameserver\nnameserver x\n", addrs("192.0.2.53", "fe80::1"), ""},
		{"networkd lease", parseLease, "# This is private data.\nADDRESS=192.0.2.7\nSERVER_ADDRESS=192.0.2.1\n", addrs("192.0.2.1"), ""},
		{"dhclient lease", parseLease, "lease {\n  interface \"eth0\";\n  option dhcp-server-identifier 192.0.2.2;\n}\n", addrs("192.0.2.2"), ""},
		{"broken lease", parseLease, "SERVER_ADDRESS=192.0.2\n", nil, "line 1: DHCP server"},
		{"routes", parseRoute4, "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n" +
			"eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n" +
			"eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n", addrs("192.0.2.1"), ""},
		{"half default", parseRoute4, "h\neth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000080\t0\t0\t0\n", nil, ""},
		{"cut routes", parseRoute4, "h\neth0\t00000000\n", nil, "line 2: 2 columns"},
		{"routes6", parseRoute6, "00000000000000000000000000000000 00 00000000000000000000000000000000 00 fe800000000000000000000000000001 00000400 00000001 00000000 00000003 eth0\n" +
			"00000000000000000000000000000000 00 00000000000000000000000000000000 00 00000000000000000000000000000000 ffffffff 00000001 00000000 00200200 lo\n", addrs("fe80::1"), ""},
		{"cut routes6", parseRoute6, "00000000000000000000000000000000 00\n", nil, "2 columns"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := tt.parse([]byte(tt.content))
			if tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
				t.Fatalf("error %v, want %q", err, tt.err)
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func TestGatherReadsThisMachine(t *testing.T) {
	dir := t.TempDir()
	conf := filepath.Join(dir, "resolv.conf")
	if err := os.WriteFile(conf, []byte("nameserver 192.0.2.53\nnameserver 192.0.2.53\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := Gather(Sources{ResolvConf: conf, Leases: []string{filepath.Join(dir, "*.lease")}})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got.DNSServers, addrs("192.0.2.53")) {
		t.Errorf("DNS servers %v, want one, once", got.DNSServers)
	}
	if slices.ContainsFunc(got.Addresses, netip.Addr.IsLoopback) {
		t.Errorf("addresses %v hold a loopback address", got.Addresses)
	}
}

func TestGatherTreatsUnreadableAsError(t *testing.T) {
	if _, err := Gather(Sources{ResolvConf: t.TempDir()}); err == nil {
		t.Error("a resolv.conf that cannot be read gave facts without DNS servers")
	}
}

func TestRemoteAccessIsKnownByNames(t *testing.T) {
	l := labtest.New(t, "bwfct-")
	h, err := l.Host("h")
	if err != nil {
		t.Fatal(err)
	}
	for device, addresses := range map[string][]string{"ppp0": {"192.0.2.1", "192.0.2.9"}, "lan0": {"192.0.2.2", "192.0.2.9"}, "tun7": {"192.0.2.3"}} {
		if _, err := h.Run("ip", "tuntap", "add", "dev", device, "mode", "tun"); err != nil {
			t.Fatal(err)
		}
		for _, a := range addresses {
			if _, err := h.Run("ip", "address", "add", a+"/32", "dev", device); err != nil {
				t.Fatal(err)
			}
		}
	}
	var got spd.Facts
	err = h.Do(func() error {
		got, err = Gather(Sources{RemoteAccess: []string{"ppp*", "tun*"}, Ignore: []string{"tun7"}})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	// What the LAN has as well counts as the LAN's.
	if want := addrs("192.0.2.1"); !slices.Equal(got.RemoteAddresses, want) {
		t.Errorf("remote access addresses %v, want %v", got.RemoteAddresses, want)
	}
	if want := addrs("192.0.2.1", "192.0.2.2", "192.0.2.9"); !slices.Equal(got.Addresses, want) {
		t.Errorf("addresses %v, want %v", got.Addresses, want)
	}
	other := got
	other.RemoteInterfaces = []string{"ppp*"}
	if Equal(got, other) {
		t.Error("facts with other remote access interfaces are equal")
	}
}

func FuzzParsers(f *testing.F) {
	f.Add([]byte("nameserver 192.0.2.1\nSERVER_ADDRESS=192.0.2.1\n"))
	f.Add([]byte("h\neth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, parse := range []func([]byte) ([]netip.Addr, error){parseResolvConf, parseLease, parseRoute4, parseRoute6} {
			if got, err := parse(b); err == nil && slices.ContainsFunc(got, func(a netip.Addr) bool { return !a.IsValid() }) {
				t.Errorf("%q gave an invalid address", b)
			}
		}
	})
}
