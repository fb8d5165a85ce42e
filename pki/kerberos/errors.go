package kerberos

import "errors"

var (
	// ErrMalformed is wrapped when octets are no AP-REQ, or no keytab.
	ErrMalformed = errors.New("malformed Kerberos data")
	// ErrEncryption is wrapped when a ticket, an authenticator or a key is not of AES.
	ErrEncryption = errors.New("encryption type is not accepted")
	// ErrService is wrapped when a ticket is for another service.
	ErrService = errors.New("Kerberos ticket is for another service")
	// ErrKeyVersion is wrapped when the keytab of the service holds no key that opens a ticket.
	ErrKeyVersion = errors.New("the keytab of the service does not open the Kerberos ticket")
	// ErrTicketTime is wrapped when a ticket has ended or has not begun.
	ErrTicketTime = errors.New("Kerberos ticket is not valid now")
	// ErrClockSkew is wrapped when a proof was made too long ago, or in the future.
	ErrClockSkew = errors.New("the clocks of machine and controller differ too much")
	// ErrRealm is wrapped when the client is of a realm that is not accepted.
	ErrRealm = errors.New("Kerberos realm is not accepted")
	// ErrProof is wrapped when an authenticator is not of the holder of the ticket, or not for this request on this connection.
	ErrProof = errors.New("the Kerberos proof is not for this request on this connection")
	// ErrPrincipal is wrapped when a text, or what a message holds, is not the name of a principal.
	ErrPrincipal = errors.New("not the name of a Kerberos principal")
)
