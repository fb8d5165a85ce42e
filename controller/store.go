package controller

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/bailiwick-net/bailiwick/controller/store"
	"github.com/bailiwick-net/bailiwick/controller/store/embedded"
)

// state is the open store and how to close it.
type state struct {
	store *store.Store
	// failed tells why an embedded etcd stopped by itself, or that another controller took over an external one. That an
	// external one does not answer is no failure: its client reconnects.
	failed <-chan error
	close  func() error
}

func (v validated) openStore(ctx context.Context) (state, error) {
	if len(v.Store.Endpoints) == 0 {
		e, err := embedded.Start(ctx, embedded.Config{Dir: v.storeDir(), Log: v.Log})
		if err != nil {
			return state{}, err
		}
		s := store.New(e.Client(), store.Options{Prefix: v.Store.Prefix, MaxOps: embedded.MaxTxnOps, Now: v.Now})
		return state{store: s, failed: e.Err(), close: e.Close}, nil
	}
	config, err := v.Store.tls()
	if err != nil {
		return state{}, err
	}
	client, err := store.Connect(v.Store.Endpoints, config, embedded.ZapLogger(v.Log))
	if err != nil {
		return state{}, err
	}
	s := store.New(client, store.Options{Prefix: v.Store.Prefix, MaxOps: v.Store.MaxTxnOps, Now: v.Now})
	ping, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	if err := s.Ping(ping); err != nil {
		return state{}, errors.Join(fmt.Errorf("connecting to etcd at %v: %w", v.Store.Endpoints, err), client.Close())
	}
	// The host is for people alone, so one without a name is no reason not to start.
	host, _ := os.Hostname()
	claim, err := s.Claim(ctx, store.Writer{Host: host, Process: os.Getpid(), Since: time.Now()}, v.Store.ClaimTTL)
	if err != nil {
		return state{}, errors.Join(fmt.Errorf("etcd at %v: %w", v.Store.Endpoints, err), client.Close())
	}
	return state{store: s, failed: claim.Lost(), close: func() error {
		claim.Release()
		return client.Close()
	}}, nil
}

func (s StoreConfig) tls() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if s.CAFile != "" {
		text, err := os.ReadFile(s.CAFile)
		if err != nil {
			return nil, fmt.Errorf("%w: store.caFile: %w", ErrConfig, err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("%w: store.caFile: %s holds no certificate in PEM", ErrConfig, s.CAFile)
		}
	}
	if s.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(s.CertFile, s.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("%w: store.certFile and store.keyFile: %w", ErrConfig, err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}
