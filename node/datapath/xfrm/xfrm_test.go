package xfrm_test

import (
	"errors"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/bailiwick-net/bailiwick/node/datapath/datapathtest"
	"github.com/bailiwick-net/bailiwick/node/datapath/userspace"
	"github.com/bailiwick-net/bailiwick/node/datapath/xfrm"
	"github.com/bailiwick-net/bailiwick/node/transport"
)

func open() (datapathtest.Node, error) { return openWith(xfrm.Config{}) }

func openWith(config xfrm.Config) (datapathtest.Node, error) {
	sockets, err := transport.Listen(transport.Config{Mark: userspace.MarkOwn, KernelESP: true})
	if err != nil {
		return datapathtest.Node{}, err
	}
	level := hclog.Warn
	if os.Getenv("BAILIWICK_TEST_LOG") != "" {
		level = hclog.Trace
	}
	config.Logger = hclog.New(&hclog.LoggerOptions{Level: level})
	b, err := xfrm.New(config)
	if err != nil {
		return datapathtest.Node{}, errors.Join(err, sockets.Close())
	}
	return datapathtest.Node{Backend: b, Release: sockets.Close}, nil
}

func TestMain(m *testing.M) {
	datapathtest.Child(open)
	os.Exit(m.Run())
}

// TestContract needs a kernel with ESP: e2e/kernelesp runs it in a guest.
func TestContract(t *testing.T) {
	if err := xfrm.Probe(); err != nil {
		t.Skipf("this machine's kernel cannot run the backend, a guest's does: %v", err)
	}
	datapathtest.Run(t, "bwxf-", open)
}

// TestOffloadIsNeverSilent asks for hardware where there is none, which the kernel does not refuse: the SA works, and the
// status says what became of the wish.
func TestOffloadIsNeverSilent(t *testing.T) {
	if err := xfrm.Probe(); err != nil {
		t.Skipf("this machine's kernel cannot run the backend, a guest's does: %v", err)
	}
	w := datapathtest.NewWorld(t, "bwxo-", func() (datapathtest.Node, error) { return openWith(xfrm.Config{Offload: true}) })
	w.Connect(t, datapathtest.Options{})
	w.B.EchoTCP(t, 7)
	if err := w.A.TryTCP(netip.AddrPortFrom(w.B.V4, 7), 5*time.Second); err != nil {
		t.Errorf("TCP through the SA: %v", err)
	}
	notes := strings.Join(w.A.Node.Status().Notes, "\n")
	for _, want := range []string{"Hardware offload is asked for: 0 inbound and outbound halves of SAs are in hardware now.", "Hardware offload was not to be had 2 times: "} {
		if !strings.Contains(notes, want) {
			t.Errorf("the status says %q, want %q in it", notes, want)
		}
	}
}
