package userspace_test

import (
	"cmp"
	"fmt"
	"os"
	"strconv"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/bailiwick-net/bailiwick/node/datapath/datapathtest"
	"github.com/bailiwick-net/bailiwick/node/datapath/userspace"
	"github.com/bailiwick-net/bailiwick/node/transport"
)

// queuesVariable tells how many packet threads the backends of this process, and of those that it starts, have.
const queuesVariable = "BAILIWICK_TEST_QUEUES"

func open() (datapathtest.Node, error) {
	queues, err := strconv.Atoi(cmp.Or(os.Getenv(queuesVariable), "1"))
	if err != nil {
		return datapathtest.Node{}, fmt.Errorf("read %s: %w", queuesVariable, err)
	}
	sockets, err := transport.Listen(transport.Config{Mark: userspace.MarkOwn, Queues: queues})
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

// The contract holds as well where several threads move the packets.
func TestContractOfSeveralQueues(t *testing.T) {
	t.Setenv(queuesVariable, "3")
	datapathtest.Run(t, "bwdp-", open)
	datapathtest.RunTUN(t, "bwdp-", open)
}

func TestBundlesSpread(t *testing.T) {
	t.Setenv(queuesVariable, "3")
	datapathtest.Bundle(t, "bwdpb-", open, 3)
}

func TestStormOverABundle(t *testing.T) {
	t.Setenv(queuesVariable, "4")
	datapathtest.Storm(t, "bwdps-", open, 4)
}

func TestTUNContract(t *testing.T) { datapathtest.RunTUN(t, "bwdp-", open) }

func TestPacketsAllocateNothing(t *testing.T) { datapathtest.Allocations(t, "bwdpa-", open) }

func BenchmarkThroughput(b *testing.B) { datapathtest.Throughput(b, "bwdpb-", open) }
