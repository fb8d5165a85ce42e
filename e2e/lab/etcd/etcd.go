// Package etcd runs real etcd servers for tests, one member or a cluster of several on loopback, which take clients over TLS
// alone, and only with a client certificate of their own certificate authority.
//
// It owns the processes and a temporary directory; Close removes both. It needs Debian's etcd-server, and says so when it
// is missing. What is stored is not its business.
package etcd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/bailiwick-net/bailiwick/e2e/lab/daemon"
)

// ErrNotInstalled says that etcd is missing.
var ErrNotInstalled = errors.New("etcd is needed (apt-get install etcd-server)")

// A Server is a running etcd. Its methods are for one goroutine.
type Server struct {
	// Endpoint is the URL for clients.
	Endpoint string
	// CAFile verifies the server's certificate and those of its clients; ClientCert and ClientKey are one of them.
	CAFile, ClientCert, ClientKey string
	// TLS is the same for a client in this process.
	TLS *tls.Config

	dir  string
	name string
	peer string
	// cluster lists all members, "name=peer" separated by commas.
	cluster string
	daemon  *daemon.Daemon
}

// Start starts a server with empty state and waits until it answers.
func Start(ctx context.Context) (*Server, error) {
	if _, err := exec.LookPath("etcd"); err != nil {
		return nil, fmt.Errorf("start etcd: %w", ErrNotInstalled)
	}
	dir, err := os.MkdirTemp("", "bw-etcd-")
	if err != nil {
		return nil, fmt.Errorf("start etcd: %w", err)
	}
	s := &Server{dir: dir, name: "lab"}
	if err := s.start(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("start etcd: %w", err), s.Close())
	}
	return s, nil
}

func (s *Server) path(name string) string { return filepath.Join(s.dir, name) }

func (s *Server) start(ctx context.Context) error {
	if err := s.writeCertificates(); err != nil {
		return err
	}
	for attempt := 0; ; attempt++ {
		ports, err := freePorts(2)
		if err != nil {
			return err
		}
		s.place(ports)
		s.cluster = s.member()
		// Another process may have taken a port in the meantime.
		if err = s.Restart(ctx); err == nil || attempt == 2 {
			return err
		}
	}
}

// place gives the server its addresses: for clients and for peers.
func (s *Server) place(ports []int) {
	s.Endpoint = fmt.Sprintf("https://127.0.0.1:%d", ports[0])
	s.peer = fmt.Sprintf("http://127.0.0.1:%d", ports[1])
}

// member is the server as the list of the cluster has it.
func (s *Server) member() string { return s.name + "=" + s.peer }

// freePorts finds loopback ports that nobody uses now.
func freePorts(n int) ([]int, error) {
	var ports []int
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}

// Restart starts the server over the same state, at the same address, and waits until it answers. It ends the present
// one if there is one.
func (s *Server) Restart(ctx context.Context) error {
	if err := s.launch(); err != nil {
		return err
	}
	return s.await(ctx)
}

// launch starts the server as Restart does, and does not wait.
func (s *Server) launch() error {
	s.Kill()
	cmd := exec.Command("etcd", "--name", s.name, "--data-dir", s.path("data-"+s.name),
		"--listen-client-urls", s.Endpoint, "--advertise-client-urls", s.Endpoint,
		"--listen-peer-urls", s.peer, "--initial-advertise-peer-urls", s.peer, "--initial-cluster", s.cluster,
		"--cert-file", s.path("server.crt"), "--key-file", s.path("server.key"),
		"--client-cert-auth", "--trusted-ca-file", s.CAFile, "--logger", "zap", "--log-level", "warn")
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")} // no ETCD_ variable of whoever runs the test
	var err error
	s.daemon, err = daemon.Start(cmd)
	return err
}

// await waits until the server answers a read that a quorum agrees on.
func (s *Server) await(ctx context.Context) error {
	client, err := s.Client()
	if err != nil {
		return err
	}
	defer client.Close()
	return s.daemon.Await(ctx, 30*time.Second, func(ctx context.Context) error {
		try, stop := context.WithTimeout(ctx, time.Second)
		defer stop()
		_, err := client.Get(try, "/")
		return err
	})
}

// Client makes a client with the client certificate; the caller closes it.
func (s *Server) Client() (*clientv3.Client, error) {
	return clientv3.New(clientv3.Config{
		Endpoints: []string{s.Endpoint}, TLS: s.TLS, DialTimeout: 10 * time.Second, Logger: zap.NewNop(),
	})
}

// Pause stops the process where it is, so that it neither answers nor ends, until Resume.
func (s *Server) Pause() error { return s.daemon.Signal(unix.SIGSTOP) }

// Resume lets a paused process go on.
func (s *Server) Resume() error { return s.daemon.Signal(unix.SIGCONT) }

// Kill ends the server without warning, a paused one too, and waits for its end.
func (s *Server) Kill() {
	s.daemon.End(os.Kill)
	s.daemon = nil
}

// Close kills the server and removes everything that it made.
func (s *Server) Close() error {
	s.Kill()
	return os.RemoveAll(s.dir)
}
