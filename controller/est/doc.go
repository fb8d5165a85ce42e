// Package est answers Enrollment over Secure Transport (RFC 7030, clarified by RFC 8951): certificates for machines and
// gateways that do not run our daemon.
//
// Invariant: it decides nothing about certificates. Whoever asks shows a join token as HTTP password, a machine certificate
// in the TLS handshake, or nothing; each goes to the one authoriser of controller/enrollment, whose refusals become HTTP
// statuses here. A request that carries a channel binding is refused unless it is that of the connection it came over.
//
// It leaves to others: TLS with its certificate (controller), whether a client certificate is believed (pki/trust), and
// CMC, server-side key generation and labels of several CAs, which are not offered.
package est
