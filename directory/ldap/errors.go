package ldap

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"

	goldap "github.com/go-ldap/ldap/v3"

	"github.com/bailiwick-net/bailiwick/directory"
)

// Sentinels; an Error unwraps to the one of its kind.
var (
	// ErrConfig says that a configuration is refused before anything is sent.
	ErrConfig = errors.New("invalid LDAP configuration")
	// ErrUnreachable says that the server cannot be reached or is not ready.
	ErrUnreachable = errors.New("directory server cannot be reached")
	// ErrUntrusted says that the server's certificate does not verify.
	ErrUntrusted = errors.New("directory server cannot be trusted")
	// ErrCredentials says that the server does not accept who we are.
	ErrCredentials = errors.New("directory server refuses the credentials")
	// ErrNoBase says that the base DN does not exist, or that we may not see it.
	ErrNoBase = errors.New("base DN does not exist")
	// ErrDenied says that we may not read what we have to.
	ErrDenied = errors.New("directory server denies the search")
	// ErrLimit says that the server stopped at a size, time or administrative limit.
	ErrLimit = errors.New("directory server stopped at a limit")
	// ErrReferral says that part of the tree is on another server.
	ErrReferral = errors.New("directory server refers elsewhere")
	// ErrInterrupted says that the connection ended in the middle of a read.
	ErrInterrupted = errors.New("connection lost while reading")
	// ErrTimeout says that the server did not answer in time.
	ErrTimeout = errors.New("directory server does not answer")
	// ErrUnstable says that the tree kept changing while it was read.
	ErrUnstable = errors.New("directory changes while it is read")
	// ErrContent says that what was read cannot be one tree.
	ErrContent = errors.New("directory content cannot be used")
	// ErrDoubtful says that what was read may be old or emptied: what was known before stays until the doubt is gone.
	ErrDoubtful = errors.New("directory content is in doubt")
	// ErrOther says that another directory answers than before.
	ErrOther = errors.New("another directory answers")
	// ErrProtocol says that the server answered with something else than LDAP allows.
	ErrProtocol = errors.New("directory server breaks the protocol")
	// ErrClosed is returned by Next after Close.
	ErrClosed = errors.New("LDAP source is closed")
)

// hints tell what to do about each kind.
var hints = map[error]string{
	ErrConfig:      "correct the configuration",
	ErrUnreachable: "check the URL, the network and that the server runs",
	ErrUntrusted:   "check the CA file and that the server name in the URL is in the server's certificate",
	ErrCredentials: "check the bind DN and the password file",
	ErrNoBase:      "check the base DN, and that the bind identity may see it",
	ErrDenied:      "grant the bind identity read access to the whole tree below the base DN",
	ErrLimit:       "raise the server's size and time limits for the bind identity",
	ErrReferral:    "use the server that holds the whole tree, or a base DN that is wholly on this one",
	ErrInterrupted: "the read is repeated by itself",
	ErrTimeout:     "check the server's load, or raise the timeout",
	ErrUnstable:    "the read is repeated by itself; if this stays, choose a base DN with less change",
	ErrContent:     "correct the entries named, the schema mapping or the bind identity's access",
	ErrDoubtful:    "see whether the server is a replica that lags, was restored from a backup, or hides something from the bind identity; when nothing changes, it is believed after a while",
	ErrOther:       "make the URL lead to the directory of before; if this one is to take its place, restart the controller, whose guard then shows what would change",
	ErrProtocol:    "check that the URL leads to an LDAP server",
}

// An Error says which read failed and why. It holds no secret.
type Error struct {
	Kind   error // one of the sentinels
	URL    string
	Bind   string // who we are to the server: a DN, "SASL EXTERNAL" or "anonymous"
	Base   string
	During string // what was attempted: "connect", "start TLS", "bind", "search"
	Err    error
}

func (e *Error) Error() string {
	return fmt.Sprintf("read directory %s below %q as %s: %v (%s): %v; %s", e.URL, e.Base, e.Bind, e.Kind, e.During, e.Err, hints[e.Kind])
}

// Unwrap returns the kind and the cause.
func (e *Error) Unwrap() []error { return []error{e.Kind, e.Err} }

// classify finds the kind of an error that a step ended with. Which step it was matters: a lost connection is
// unreachable while connecting and an interruption in the middle of a search.
func classify(during string, err error) error {
	var (
		unknown  x509.UnknownAuthorityError
		hostname x509.HostnameError
		invalid  x509.CertificateInvalidError
		verify   *tls.CertificateVerificationError
		timeout  net.Error
		code     *goldap.Error
		reading  = during == duringSearch || during == duringSync
		lost     = ErrUnreachable
		coded    = errors.As(err, &code)
	)
	if reading {
		lost = ErrInterrupted
	}
	switch {
	case errors.As(err, &unknown), errors.As(err, &hostname), errors.As(err, &invalid), errors.As(err, &verify):
		return ErrUntrusted
	case errors.Is(err, errDecode), coded && code.ResultCode > goldap.ErrorNetwork: // what the client makes of answers that it does not understand
		return ErrProtocol
	case coded && code.ResultCode < goldap.ErrorNetwork:
		return classifyResult(code.ResultCode, reading)
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout(), strings.Contains(err.Error(), "connection timed out"):
		return ErrTimeout
	case errors.Is(err, directory.ErrInconsistent), errors.Is(err, directory.ErrSyntax):
		return ErrContent
	}
	return lost
}

// classifyResult maps the result codes of RFC 4511 appendix A.
func classifyResult(code uint16, reading bool) error {
	switch code {
	case goldap.LDAPResultTimeLimitExceeded, goldap.LDAPResultSizeLimitExceeded, goldap.LDAPResultAdminLimitExceeded:
		return ErrLimit
	case goldap.LDAPResultNoSuchObject, goldap.LDAPResultInvalidDNSyntax:
		if reading {
			return ErrNoBase
		}
		return ErrCredentials
	case goldap.LDAPResultInsufficientAccessRights:
		if reading {
			return ErrDenied
		}
		return ErrCredentials
	case goldap.LDAPResultInvalidCredentials, goldap.LDAPResultInappropriateAuthentication, goldap.LDAPResultAuthMethodNotSupported,
		goldap.LDAPResultStrongAuthRequired, goldap.LDAPResultConfidentialityRequired:
		return ErrCredentials
	case goldap.LDAPResultUnwillingToPerform, goldap.LDAPResultOperationsError:
		// Active Directory answers operationsError to a search without bind.
		if reading {
			return ErrDenied
		}
		return ErrCredentials
	case goldap.LDAPResultReferral:
		return ErrReferral
	case goldap.LDAPResultBusy, goldap.LDAPResultUnavailable:
		return ErrUnreachable
	}
	return ErrProtocol
}
