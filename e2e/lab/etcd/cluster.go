package etcd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// A Cluster is several members that hold one state. Its methods are for one goroutine.
type Cluster struct {
	// Members are all of them, in a fixed order; what their clients need is the same.
	Members []*Server

	dir string
}

// StartCluster starts so many members with empty state and waits until each answers.
func StartCluster(ctx context.Context, members int) (*Cluster, error) {
	if _, err := exec.LookPath("etcd"); err != nil {
		return nil, fmt.Errorf("start a cluster of etcd: %w", ErrNotInstalled)
	}
	dir, err := os.MkdirTemp("", "bw-etcd-")
	if err != nil {
		return nil, fmt.Errorf("start a cluster of etcd: %w", err)
	}
	c := &Cluster{dir: dir}
	if err := c.start(ctx, members); err != nil {
		return nil, errors.Join(fmt.Errorf("start a cluster of etcd: %w", err), c.Close())
	}
	return c, nil
}

func (c *Cluster) start(ctx context.Context, members int) error {
	first := Server{dir: c.dir}
	if err := first.writeCertificates(); err != nil {
		return err
	}
	for i := range members {
		c.Members = append(c.Members, &Server{
			CAFile: first.CAFile, ClientCert: first.ClientCert, ClientKey: first.ClientKey, TLS: first.TLS, dir: c.dir, name: fmt.Sprint("lab", i),
		})
	}
	for attempt := 0; ; attempt++ {
		ports, err := freePorts(2 * members)
		if err != nil {
			return err
		}
		var list []string
		for i, m := range c.Members {
			m.place(ports[2*i:])
			list = append(list, m.member())
		}
		for _, m := range c.Members {
			m.cluster = strings.Join(list, ",")
		}
		// Another process may have taken a port in the meantime. Members that were started with it know a wrong cluster.
		if err = c.Restart(ctx, c.Members...); err == nil || attempt == 2 {
			return err
		}
		for _, m := range c.Members {
			m.Kill()
			if err := os.RemoveAll(m.path("data-" + m.name)); err != nil {
				return err
			}
		}
	}
}

// Restart starts members over the state that they had, ends them before where they run, and waits until each answers. They are
// started together: without most of its members a cluster does not answer.
func (c *Cluster) Restart(ctx context.Context, members ...*Server) error {
	for _, m := range members {
		if err := m.launch(); err != nil {
			return err
		}
	}
	for _, m := range members {
		if err := m.await(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Endpoints are the URLs of all members for clients.
func (c *Cluster) Endpoints() []string {
	var all []string
	for _, m := range c.Members {
		all = append(all, m.Endpoint)
	}
	return all
}

// Leader asks the running members which of them leads, until they have elected one.
func (c *Cluster) Leader(ctx context.Context) (*Server, error) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for ; ; <-tick.C {
		for _, m := range c.Members {
			if m.daemon == nil {
				continue
			}
			leads, err := m.leads(ctx)
			if err != nil && ctx.Err() != nil {
				return nil, fmt.Errorf("no member of the etcd cluster leads: %w", err)
			}
			if err == nil && leads {
				return m, nil
			}
		}
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("no member of the etcd cluster leads: %w", err)
		}
	}
}

// leads asks the server who it is and who leads.
func (s *Server) leads(ctx context.Context) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	client, err := s.Client()
	if err != nil {
		return false, err
	}
	defer client.Close()
	status, err := client.Status(ctx, s.Endpoint)
	if err != nil {
		return false, err
	}
	return status.Leader == status.Header.MemberId, nil
}

// Others are all members but these.
func (c *Cluster) Others(but ...*Server) []*Server {
	return slices.DeleteFunc(slices.Clone(c.Members), func(m *Server) bool { return slices.Contains(but, m) })
}

// Close kills all members and removes everything that they made.
func (c *Cluster) Close() error {
	for _, m := range c.Members {
		m.Kill()
	}
	return os.RemoveAll(c.dir)
}
