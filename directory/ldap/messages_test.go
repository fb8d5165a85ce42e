package ldap

import (
	ber "github.com/go-asn1-ber/asn1-ber"
	goldap "github.com/go-ldap/ldap/v3"

	"github.com/bailiwick-net/bailiwick/directory"
)

// What follows makes the messages of a server (RFC 4511 4, RFC 4533 2), which go-ldap only reads.

func message(id int64, op *ber.Packet, controls ...*ber.Packet) []byte {
	p := ber.NewSequence("LDAPMessage")
	p.AppendChild(ber.NewInteger(ber.ClassUniversal, ber.TypePrimitive, ber.TagInteger, id, ""))
	p.AppendChild(op)
	if len(controls) > 0 {
		list := ber.Encode(ber.ClassContext, ber.TypeConstructed, 0, nil, "")
		for _, c := range controls {
			list.AppendChild(c)
		}
		p.AppendChild(list)
	}
	return p.Bytes()
}

func resultMessage(id int64, tag ber.Tag, code int64, controls ...goldap.Control) []byte {
	p := ber.Encode(ber.ClassApplication, ber.TypeConstructed, tag, nil, "")
	p.AppendChild(ber.NewInteger(ber.ClassUniversal, ber.TypePrimitive, ber.TagEnumerated, code, ""))
	p.AppendChild(octetString(""))
	p.AppendChild(octetString(""))
	var encoded []*ber.Packet
	for _, c := range controls {
		encoded = append(encoded, c.Encode())
	}
	return message(id, p, encoded...)
}

func entryPacket(e directory.Entry) *ber.Packet {
	p := ber.Encode(ber.ClassApplication, ber.TypeConstructed, goldap.ApplicationSearchResultEntry, nil, "")
	p.AppendChild(octetString(e.DN))
	list := ber.NewSequence("")
	for _, a := range e.Attributes {
		attribute := ber.NewSequence("")
		attribute.AppendChild(octetString(a.Name))
		set := ber.Encode(ber.ClassUniversal, ber.TypeConstructed, ber.TagSet, nil, "")
		for _, v := range a.Values {
			set.AppendChild(octetString(v))
		}
		attribute.AppendChild(set)
		list.AppendChild(attribute)
	}
	p.AppendChild(list)
	return p
}

func entryMessage(id int64, e directory.Entry) []byte { return message(id, entryPacket(e)) }

func controlPacket(oid string, value *ber.Packet) *ber.Packet {
	p := ber.NewSequence("")
	p.AppendChild(octetString(oid))
	p.AppendChild(octetString(string(value.Bytes())))
	return p
}

func syncEntryMessage(id int64, e actorEntry, state goldap.ControlSyncStateState, cookie string) []byte {
	if e.gone {
		state, e.Attributes = goldap.SyncStateDelete, nil
	}
	value := ber.NewSequence("")
	value.AppendChild(ber.NewInteger(ber.ClassUniversal, ber.TypePrimitive, ber.TagEnumerated, int64(state), ""))
	value.AppendChild(octetString(string(e.uuid[:])))
	if cookie != "" {
		value.AppendChild(octetString(cookie))
	}
	return message(id, entryPacket(e.Entry), controlPacket(goldap.ControlTypeSyncState, value))
}

func intermediateMessage(id int64, value *ber.Packet) []byte {
	p := ber.Encode(ber.ClassApplication, ber.TypeConstructed, goldap.ApplicationIntermediateResponse, nil, "")
	p.AppendChild(ber.NewString(ber.ClassContext, ber.TypePrimitive, 0, goldap.ControlTypeSyncInfo, ""))
	p.AppendChild(ber.NewString(ber.ClassContext, ber.TypePrimitive, 1, string(value.Bytes()), ""))
	return message(id, p)
}

// refreshDone ends the present phase, and with it the refresh.
func refreshDone(id int64, cookie string) []byte {
	value := ber.Encode(ber.ClassContext, ber.TypeConstructed, 2, nil, "")
	value.AppendChild(octetString(cookie))
	return intermediateMessage(id, value)
}

func presentMessage(id int64, present []directory.UUID) []byte {
	value := ber.Encode(ber.ClassContext, ber.TypeConstructed, 3, nil, "")
	set := ber.Encode(ber.ClassUniversal, ber.TypeConstructed, ber.TagSet, nil, "")
	for _, u := range present {
		set.AppendChild(octetString(string(u[:])))
	}
	value.AppendChild(set)
	return intermediateMessage(id, value)
}

// dirSyncDone ends an answer of DirSync (MS-ADTS 3.1.1.3.4.1.3).
func dirSyncDone(id, more int64, cookie string) []byte {
	value := ber.NewSequence("")
	value.AppendChild(ber.NewInteger(ber.ClassUniversal, ber.TypePrimitive, ber.TagInteger, more, ""))
	value.AppendChild(ber.NewInteger(ber.ClassUniversal, ber.TypePrimitive, ber.TagInteger, int64(0), ""))
	value.AppendChild(octetString(cookie))
	done := ber.Encode(ber.ClassApplication, ber.TypeConstructed, goldap.ApplicationSearchResultDone, nil, "")
	done.AppendChild(ber.NewInteger(ber.ClassUniversal, ber.TypePrimitive, ber.TagEnumerated, int64(0), ""))
	done.AppendChild(octetString(""))
	done.AppendChild(octetString(""))
	return message(id, done, controlPacket(goldap.ControlTypeDirSync, value))
}
