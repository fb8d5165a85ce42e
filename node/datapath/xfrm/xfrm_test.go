package xfrm_test

import (
	"errors"
	"os"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/bailiwick-net/bailiwick/node/datapath/datapathtest"
	"github.com/bailiwick-net/bailiwick/node/datapath/userspace"
	"github.com/bailiwick-net/bailiwick/node/datapath/xfrm"
	"github.com/bailiwick-net/bailiwick/node/transport"
)

func open() (datapathtest.Node, error) {
	sockets, err := transport.Listen(transport.Config{Mark: userspace.MarkOwn, KernelESP: true})
	if err != nil {
		return datapathtest.Node{}, err
	}
	level := hclog.Warn
	if os.Getenv("BAILIWICK_TEST_LOG") != "" {
		level = hclog.Trace
	}
	b, err := xfrm.New(xfrm.Config{Logger: hclog.New(&hclog.LoggerOptions{Level: level})})
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
