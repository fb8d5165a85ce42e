package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/bailiwick-net/bailiwick/node/identity"
	"github.com/bailiwick-net/bailiwick/pki/enroll"
	"github.com/bailiwick-net/bailiwick/pki/trust"
	nodev1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/node/v1"
)

// roleArgument makes the command be the machines, as told on its standard input.
const roleArgument = "machines"

// workers is how many machines ask at the same time, where their number is what is measured.
const workers = 64

// attemptTime bounds what one machine does.
const attemptTime = 30 * time.Second

// An order is what the machines are to do: to join with tokens, all at once or to renew over a connection each; or to come back
// after an outage. They make ready, answer, and wait for the empty order before they begin.
type order struct {
	Address string
	// Tokens are those to join with.
	Tokens []string `json:",omitempty"`
	// Renew says that the machines that joined shall renew their certificates.
	Renew bool `json:",omitempty"`
	// Return says that they shall come back within this time.
	Return time.Duration `json:",omitempty"`
}

// An answer is what came of it.
type answer struct {
	Failed string        `json:",omitempty"`
	Took   time.Duration `json:",omitempty"`
	Back   []comeback    `json:",omitempty"`
}

// A crowd is all machines, in the process that is not measured.
type crowd struct {
	machines []*machine
}

// obey carries orders out until there are no more.
func obey(in io.Reader, out io.Writer) error {
	orders, answers := json.NewDecoder(in), json.NewEncoder(out)
	var c crowd
	for {
		var o order
		if err := orders.Decode(&o); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		do, err := c.prepare(o)
		if err := answers.Encode(reply(err)); err != nil {
			return err
		}
		if err != nil {
			continue
		}
		if err := orders.Decode(new(order)); err != nil {
			return err
		}
		start := time.Now()
		back, err := do()
		a := reply(err)
		a.Took, a.Back = time.Since(start), back
		if err := answers.Encode(a); err != nil {
			return err
		}
	}
}

func reply(err error) answer {
	if err != nil {
		return answer{Failed: err.Error()}
	}
	return answer{}
}

func (c *crowd) prepare(o order) (func() ([]comeback, error), error) {
	switch {
	case len(o.Tokens) > 0:
		c.machines = nil
		for _, text := range o.Tokens {
			m, err := newMachine(o.Address, text)
			if err != nil {
				return nil, err
			}
			c.machines = append(c.machines, m)
		}
		return func() ([]comeback, error) { return nil, c.each((*machine).join) }, nil
	case o.Renew:
		return func() ([]comeback, error) { return nil, c.each((*machine).renew) }, nil
	case o.Return > 0:
		return func() ([]comeback, error) { return c.comeBack(o.Return, os.Stderr) }, nil
	}
	return nil, fmt.Errorf("order without anything to do")
}

// each lets every machine do something, several at once.
func (c *crowd) each(do func(*machine, context.Context) error) error {
	group, ctx := errgroup.WithContext(context.Background())
	group.SetLimit(workers)
	for i, m := range c.machines {
		group.Go(func() error {
			ctx, cancel := context.WithTimeout(ctx, attemptTime)
			defer cancel()
			if err := do(m, ctx); err != nil {
				return fmt.Errorf("machine %d: %w", i, err)
			}
			return nil
		})
	}
	return group.Wait()
}

// A machine joins, renews its certificate, and holds a session, as the node's daemon does but for its state on the disk.
type machine struct {
	address string
	token   enroll.Token
	present atomic.Pointer[identity.Credentials]
}

func newMachine(address, text string) (*machine, error) {
	token, err := enroll.ParseToken(text)
	if err != nil {
		return nil, err
	}
	key, err := identity.NewKey()
	if err != nil {
		return nil, err
	}
	m := &machine{address: address, token: token}
	m.present.Store(&identity.Credentials{Key: key, Controllers: []string{address}})
	return m, nil
}

// dial opens a connection that costs the controller what one of the daemon's costs it.
func (m *machine) dial(config *tls.Config) (*grpc.ClientConn, error) {
	config.MinVersion, config.InsecureSkipVerify = tls.VersionTLS13, true
	return grpc.NewClient("passthrough:///"+m.address, grpc.WithTransportCredentials(credentials.NewTLS(config)), grpc.WithDisableServiceConfig())
}

// controllerUsage is what a machine asks of the certificate of its controller.
func controllerUsage() trust.Options {
	return trust.Options{Usages: []trust.Usage{trust.ServerAuth}, HostName: "127.0.0.1"}
}

// join makes both calls of a join over one connection.
func (m *machine) join(ctx context.Context) error {
	conn, err := m.dial(&tls.Config{VerifyConnection: trust.TLSVerifyPinned(m.token.Pin, time.Now, controllerUsage())})
	if err != nil {
		return err
	}
	defer conn.Close()
	client := nodev1.NewEnrollmentServiceClient(conn)
	names, err := client.Identify(ctx, &nodev1.IdentifyRequest{Token: m.token.Text()})
	if err != nil {
		return err
	}
	key := m.present.Load().Key
	request, err := enroll.NewJoinRequest(key, names.GetDnsName())
	if err != nil {
		return err
	}
	got, err := client.Enroll(ctx, &nodev1.EnrollRequest{Token: m.token.Text(), Csr: request})
	if err != nil {
		return err
	}
	bundle, err := trust.ParseBundle(got.GetTrustBundle())
	if err != nil {
		return err
	}
	return m.accept(identity.Credentials{Key: key}, identity.Issued{Chain: got.GetChain(), Trust: bundle})
}

// renew opens a connection of mutual TLS for one renewal.
func (m *machine) renew(ctx context.Context) error {
	present := m.present.Load()
	certificate := present.TLS()
	conn, err := m.dial(&tls.Config{
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &certificate, nil },
		VerifyConnection: trust.TLSVerifyConnection(func() (trust.Bundle, trust.Options, error) {
			return present.Trust, controllerUsage(), nil
		}, time.Now),
	})
	if err != nil {
		return err
	}
	defer conn.Close()
	return m.renewBy(func(csr []byte) (identity.Issued, error) {
		got, err := nodev1.NewEnrollmentServiceClient(conn).Renew(ctx, &nodev1.RenewRequest{Csr: csr})
		if err != nil {
			return identity.Issued{}, err
		}
		bundle, err := trust.ParseBundle(got.GetTrustBundle())
		return identity.Issued{Chain: got.GetChain(), Trust: bundle}, err
	})
}

// renewBy asks for a certificate for a fresh key, or for the same one where the certificate has ended.
func (m *machine) renewBy(ask func(csr []byte) (identity.Issued, error)) error {
	present := m.present.Load()
	key := present.Key
	if time.Now().Before(present.Leaf().NotAfter) {
		fresh, err := identity.NewKey()
		if err != nil {
			return err
		}
		key = fresh
	}
	request, err := enroll.NewRequest(key, present.Identity)
	if err != nil {
		return err
	}
	issued, err := ask(request)
	if err != nil {
		return err
	}
	return m.accept(identity.Credentials{Key: key}, issued)
}

// accept checks what was issued as the daemon does.
func (m *machine) accept(c identity.Credentials, issued identity.Issued) error {
	fresh, err := identity.NewCredentials(time.Now(), c.Key, issued.Chain, issued.Trust, []string{m.address})
	if err != nil {
		return err
	}
	m.present.Store(&fresh)
	return nil
}
