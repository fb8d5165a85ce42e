package ca

import (
	"errors"
	"fmt"
	"time"
)

var (
	// ErrUnlock is wrapped when a key cannot be decrypted: a wrong passphrase or key file, or a changed file.
	ErrUnlock = errors.New("wrong passphrase or key file, or the encrypted key was altered")
	// ErrKeyFile is wrapped when a key on disk is not in the form, or not kept in the way, that this package demands.
	ErrKeyFile = errors.New("private key file not accepted")
	// ErrExists is wrapped when a CA would be made where something is already.
	ErrExists = errors.New("there is something already; a CA is never overwritten")
	// ErrAuthority is wrapped when certificates and keys do not make up a CA.
	ErrAuthority = errors.New("not a usable CA")
	// ErrProfile is wrapped when a profile's configuration is out of range, or a profile is used for another role.
	ErrProfile = errors.New("invalid certificate profile")
	// ErrRedeemed is wrapped when a prepared certificate is issued a second time.
	ErrRedeemed = errors.New("prepared certificate was redeemed before")
	// ErrDiffers is wrapped when the CA's key signed other octets than the intention states.
	ErrDiffers = errors.New("signed certificate differs from the recorded intention")
	// ErrJournal is wrapped by every error of a journal of this package, and when Issue could not record.
	ErrJournal = errors.New("issuing journal failed")
	// ErrSerialRecorded is wrapped by Journal.Record when there is an intention with the serial number.
	ErrSerialRecorded = errors.New("serial number is recorded already")
	// ErrIssuerValidity is wrapped by *IssuerValidityError.
	ErrIssuerValidity = errors.New("the issuing CA does not live long enough")
)

// IssuerValidityError refuses to issue because of the issuing CA's own validity.
type IssuerValidityError struct {
	// Now is the clock that was asked; NotBefore and NotAfter are the issuing CA's validity.
	Now, NotBefore, NotAfter time.Time
	// Needed is the shortest life of a certificate of the profile.
	Needed time.Duration
}

// Error names both clocks and says what to do.
func (e *IssuerValidityError) Error() string {
	at := func(t time.Time) string { return t.UTC().Format(time.RFC3339) }
	switch {
	case e.Now.Before(e.NotBefore):
		return fmt.Sprintf("%v: it is valid from %s, this clock says %s; set the clock", ErrIssuerValidity, at(e.NotBefore), at(e.Now))
	case !e.Now.Before(e.NotAfter):
		return fmt.Sprintf("%v: it expired at %s, this clock says %s; renew the issuing CA, or set the clock", ErrIssuerValidity, at(e.NotAfter), at(e.Now))
	}
	return fmt.Sprintf("%v: it expires at %s, in %v, and a certificate of this profile lives at least %v; renew the issuing CA",
		ErrIssuerValidity, at(e.NotAfter), e.NotAfter.Sub(e.Now).Round(time.Second), e.Needed)
}

// Unwrap returns ErrIssuerValidity.
func (e *IssuerValidityError) Unwrap() error { return ErrIssuerValidity }
