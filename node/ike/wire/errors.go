package wire

import "fmt"

// Error is what is wrong with a message of the peer, and what the peer may be told about it. Every error of the Parse
// functions of this package is an *Error.
type Error struct {
	// Notify is the error to answer with where the exchange allows an answer; 0 means that the datagram is dropped in
	// silence.
	Notify NotifyType
	// Data is the notification data: the payload type octet for UNSUPPORTED_CRITICAL_PAYLOAD, else empty.
	Data []byte
	// Detail says what was wrong with which value.
	Detail string
	// Offset is the octet, counted from the start of the parsed bytes, at which the fault was seen.
	Offset int
}

// Error tells the detail and the place.
func (e *Error) Error() string {
	if e.Notify == 0 {
		return fmt.Sprintf("drop IKE message: %s at octet %d", e.Detail, e.Offset)
	}
	return fmt.Sprintf("refuse IKE message with %s: %s at octet %d", e.Notify, e.Detail, e.Offset)
}

func dropf(offset int, format string, args ...any) *Error {
	return &Error{Detail: fmt.Sprintf(format, args...), Offset: offset}
}

func syntaxf(offset int, format string, args ...any) *Error {
	return &Error{Notify: NotifyInvalidSyntax, Detail: fmt.Sprintf(format, args...), Offset: offset}
}

func refusef(format string, args ...any) *Error {
	return &Error{Notify: NotifyNoProposalChosen, Detail: fmt.Sprintf(format, args...)}
}
