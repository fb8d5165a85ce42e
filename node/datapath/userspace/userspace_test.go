package userspace_test

import (
	"os"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/bailiwick-net/bailiwick/node/datapath/datapathtest"
	"github.com/bailiwick-net/bailiwick/node/datapath/userspace"
	"github.com/bailiwick-net/bailiwick/node/transport"
)

func open() (datapathtest.Node, error) {
	sockets, err := transport.Listen(transport.Config{Mark: userspace.MarkOwn})
	if err != nil {
		return datapathtest.Node{}, err
	}
	level := hclog.Warn
	if os.Getenv("BAILIWICK_TEST_LOG") != "" {
		level = hclog.Trace
	}
	b, err := userspace.New(userspace.Config{Sockets: sockets, Logger: hclog.New(&hclog.LoggerOptions{Level: level})})
	if err != nil {
		sockets.Close()
		return datapathtest.Node{}, err
	}
	return datapathtest.Node{Backend: b, Release: sockets.Close}, nil
}

func TestMain(m *testing.M) {
	datapathtest.Child(open)
	os.Exit(m.Run())
}

func TestContract(t *testing.T) { datapathtest.Run(t, "bwdp-", open) }

func TestTUNContract(t *testing.T) { datapathtest.RunTUN(t, "bwdp-", open) }

func TestPacketsAllocateNothing(t *testing.T) { datapathtest.Allocations(t, "bwdpa-", open) }

func BenchmarkThroughput(b *testing.B) { datapathtest.Throughput(b, "bwdpb-", open) }
