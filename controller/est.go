package controller

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/bailiwick-net/bailiwick/controller/est"
	"github.com/bailiwick-net/bailiwick/controller/revocation"
	"github.com/bailiwick-net/bailiwick/pki/trust"
)

// ESTConfig says where machines without our daemon enrol (RFC 7030).
type ESTConfig struct {
	// Listen is host:port; empty means that there is no such listener.
	Listen string `yaml:"listen"`
}

// estListener is the HTTPS server for EST; the zero value is none.
type estListener struct {
	server   *http.Server
	listener net.Listener
}

func (c *Controller) serveEST(bundle func() trust.Bundle, verifier peerVerifier) {
	if c.config.EST.Listen == "" {
		return
	}
	log := c.log.Named("est")
	handler := est.New(est.Config{
		Desk: c.desk, Verify: func(ctx context.Context, chain []*x509.Certificate, late bool) (context.Context, error) {
			verdict, err := verifier.verify(chain, late)
			if err != nil {
				return nil, err
			}
			return revocation.WithCaller(ctx, verdict), nil
		}, Trust: bundle, Requests: c.config.rules.Accept, Log: log,
	})
	config := tlsConfig(c.server)
	// Clients that are not ours often end at TLS 1.2. What is left of it has forward secrecy and authenticated encryption.
	config.MinVersion = tls.VersionTLS12
	config.CipherSuites = []uint16{
		tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
		tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
		tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
		tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
	}
	// strongSwan reads an answer in two pieces at most, so it must not come in many small records.
	config.DynamicRecordSizingDisabled = true
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	c.est.server = &http.Server{
		Handler: recoverHTTP(log, handler), TLSConfig: config, Protocols: &protocols,
		ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 20 * time.Second, WriteTimeout: 45 * time.Second, IdleTimeout: time.Minute,
		MaxHeaderBytes: 16 << 10,
		ErrorLog:       log.StandardLogger(&hclog.StandardLoggerOptions{ForceLevel: hclog.Debug}),
	}
}

// recoverHTTP keeps one bad request from ending the controller.
func recoverHTTP(log hclog.Logger, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if p := recover(); p != nil {
				http.Error(w, panicked(log, r.URL.Path, p).Error(), http.StatusInternalServerError)
			}
		}()
		next.ServeHTTP(w, r)
	})
}

func (e *estListener) listen(ctx context.Context, address string, bound *callers) error {
	if e.server == nil {
		return nil
	}
	var open net.ListenConfig
	listener, err := open.Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("listening for EST: %w", err)
	}
	e.listener = bound.over(listener)
	return nil
}

func (e *estListener) serve() error {
	// The certificate is in the TLS configuration.
	if err := e.server.ServeTLS(e.listener, "", ""); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// stop ends the server: gracefully while there is time, then at once.
func (e *estListener) stop(grace time.Duration) {
	if e.server == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	if e.server.Shutdown(ctx) != nil {
		_ = e.server.Close()
	}
}

// ESTAddress is where EST clients connect; nil without such a listener.
func (c *Controller) ESTAddress() net.Addr {
	if c.est.listener == nil {
		return nil
	}
	return c.est.listener.Addr()
}
