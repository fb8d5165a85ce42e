// Package embedded runs etcd in this process, for a controller that is its own only replica.
//
// Invariant: nothing listens. The client calls the server's functions directly, so there is no port, no socket and no
// credential by which anybody else could reach the state; the data directory is private to the user. Every write is
// on disk when it is acknowledged.
//
// It leaves the keys to store, and clusters of several members to an external etcd.
package embedded

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/go-hclog"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"golang.org/x/sys/unix"
)

// MaxTxnOps is the number of operations that the embedded etcd allows in one transaction.
const MaxTxnOps = 8192

// Quota is how large the database may become, in octets: the largest that etcd is made for. Past it no write is taken.
const Quota = 8 << 30

// ErrInUse is wrapped when another process uses the data directory.
var ErrInUse = errors.New("data directory is in use")

// Config says where the data is.
type Config struct {
	// Dir is the data directory; it is made when it does not exist, readable by the user alone.
	Dir string
	// Log takes etcd's messages.
	Log hclog.Logger
	// StartTimeout bounds how long etcd may take to be ready; 0 means 60 s.
	StartTimeout time.Duration
	// NoSync leaves writes to the operating system: only for tests, a crash loses data.
	NoSync bool
}

// An Etcd is a running server and its client.
type Etcd struct {
	server *embed.Etcd
	client *clientv3.Client
	lock   *os.File
}

// Start starts etcd and waits until it answers.
func Start(ctx context.Context, c Config) (*Etcd, error) {
	lock, err := lockDir(c.Dir)
	if err != nil {
		return nil, err
	}
	e := &Etcd{lock: lock}
	if e.server, err = embed.StartEtcd(config(c)); err != nil {
		lock.Close()
		return nil, fmt.Errorf("starting the embedded etcd in %s: %w", c.Dir, err)
	}
	timeout := c.StartTimeout
	if timeout == 0 {
		timeout = time.Minute
	}
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("not ready after %v", timeout))
	defer cancel()
	select {
	case <-e.server.Server.ReadyNotify():
	case err := <-e.server.Err():
		e.Close()
		return nil, fmt.Errorf("starting the embedded etcd in %s: %w", c.Dir, err)
	case <-ctx.Done():
		e.Close()
		return nil, fmt.Errorf("starting the embedded etcd in %s: %w", c.Dir, context.Cause(ctx))
	}
	e.client = v3client.New(e.server.Server)
	return e, nil
}

// Client is the client of the server; it ends with Close.
func (e *Etcd) Client() *clientv3.Client { return e.client }

// Err tells why the server stopped by itself.
func (e *Etcd) Err() <-chan error { return e.server.Err() }

// Close stops the server. What was acknowledged is on disk.
func (e *Etcd) Close() error {
	var err error
	if e.client != nil {
		if err = e.client.Close(); errors.Is(err, context.Canceled) {
			err = nil
		}
	}
	e.server.Close()
	return errors.Join(err, e.lock.Close())
}

// lockDir makes the directory and refuses to share it: etcd itself would wait for its database forever.
func lockDir(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the data directory: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("locking the data directory: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("%s: %w: is another controller running", dir, ErrInUse)
		}
		return nil, fmt.Errorf("locking the data directory %s: %w", dir, err)
	}
	return f, nil
}

func config(c Config) *embed.Config {
	cfg := embed.NewConfig()
	cfg.Name = "bailiwick"
	cfg.Dir = filepath.Join(c.Dir, "member")
	// A member needs a peer URL as a name, even one that never listens and never has a peer.
	peer := url.URL{Scheme: "http", Host: "127.0.0.1:2380"}
	cfg.AdvertisePeerUrls = []url.URL{peer}
	cfg.AdvertiseClientUrls = []url.URL{{Scheme: "http", Host: "127.0.0.1:2379"}}
	cfg.ListenPeerUrls, cfg.ListenClientUrls = nil, nil
	cfg.InitialCluster = cfg.Name + "=" + peer.String()
	cfg.EnableGRPCGateway = false
	cfg.MaxTxnOps = MaxTxnOps
	// A single member has nobody to hear from: its election need not take a second.
	cfg.TickMs, cfg.ElectionMs = 10, 50
	// History older than five minutes is of no use: watches begin at the present.
	cfg.AutoCompactionMode, cfg.AutoCompactionRetention = embed.CompactorModePeriodic, "5m"
	cfg.SnapshotCount = 10_000
	cfg.QuotaBackendBytes = Quota
	cfg.UnsafeNoFsync = c.NoSync
	log := c.Log
	if log == nil {
		log = hclog.NewNullLogger()
	}
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(ZapLogger(log))
	return cfg
}
