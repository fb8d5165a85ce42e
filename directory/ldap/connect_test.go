package ldap

import (
	"net"
	"testing"
)

// TestStartTLSAnswerWithoutEnd: who answers in clear, and may be anybody, does not fill the memory.
func TestStartTLSAnswerWithoutEnd(t *testing.T) {
	ours, theirs := net.Pipe()
	took := make(chan int)
	go func() {
		request := make([]byte, 1024)
		if _, err := theirs.Read(request); err != nil {
			t.Error(err)
		}
		// LDAPMessage { messageID 1, OCTET STRING of a gigabyte
		sent, part := 0, append([]byte{0x30, 0x84, 0x40, 0, 0, 9, 2, 1, 1, 0x04, 0x84, 0x40, 0, 0, 0}, make([]byte, 16<<10)...)
		for sent < 4<<20 {
			n, err := theirs.Write(part)
			if sent += n; err != nil {
				break
			}
		}
		theirs.Close()
		took <- sent
	}()
	if err := requestStartTLS(t.Context(), ours); err == nil {
		t.Error("an answer without end is one")
	}
	ours.Close()
	if n := <-took; n > 2*maxStartTLSAnswer {
		t.Errorf("%d octets were taken", n)
	}
}
