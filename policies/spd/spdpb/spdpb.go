// Package spdpb converts a spd.Policy to its protobuf form and back, without loss in either direction.
//
// Its invariant: what Unmarshal returns passed spd.Policy.Validate and says everything that the bytes say. A field or a
// value that this version does not know is an error, never ignored: a node that cannot honour a policy must not enforce
// half of it. It leaves digests to policies/compile and the stream to proto/bailiwick/node.
package spdpb

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/bailiwick-net/bailiwick/policies/spd"
	policyv1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/policy/v1"
)

// ErrUnknown is wrapped by errors about fields and values that this version does not know: the sender is newer.
var ErrUnknown = errors.New("not known to this version")

// ErrMalformed is wrapped by errors about bytes and values that no version writes.
var ErrMalformed = errors.New("malformed policy")

// MaxSize is the largest encoded policy in octets that is read or written. A gRPC message is at most 4 MiB by default.
const MaxSize = 3 << 20

// Marshal encodes a policy in the deterministic form that digests are taken over. It refuses a policy that does not pass
// spd.Policy.Validate.
func Marshal(p spd.Policy) ([]byte, error) {
	if err := p.Validate(); err != nil {
		return nil, fmt.Errorf("encode policy: %w", err)
	}
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(ToProto(p))
	if err != nil {
		return nil, fmt.Errorf("encode policy %q: %w", p.Name, err)
	}
	if len(b) > MaxSize {
		return nil, fmt.Errorf("encode policy %q: %d octets, the limit is %d; split its filter lists", p.Name, len(b), MaxSize)
	}
	return b, nil
}

// Unmarshal decodes and validates a policy. Its error wraps ErrUnknown, ErrMalformed or spd.ErrPolicy.
func Unmarshal(b []byte) (spd.Policy, error) {
	if len(b) > MaxSize {
		return spd.Policy{}, fmt.Errorf("decode policy: %w: %d octets, the limit is %d", ErrMalformed, len(b), MaxSize)
	}
	var m policyv1.Policy
	if err := proto.Unmarshal(b, &m); err != nil {
		return spd.Policy{}, fmt.Errorf("decode policy: %w: %w", ErrMalformed, err)
	}
	return FromProto(&m)
}

// FromProto converts and validates a message. Its errors are those of Unmarshal.
func FromProto(m *policyv1.Policy) (spd.Policy, error) {
	if err := refuseUnknown(m.ProtoReflect(), "policy"); err != nil {
		return spd.Policy{}, fmt.Errorf("decode policy %q: %w", m.GetName(), err)
	}
	var d decoder
	p := d.policy(m)
	if d.err != nil {
		return spd.Policy{}, fmt.Errorf("decode policy %q: %w", m.GetName(), d.err)
	}
	if err := p.Validate(); err != nil {
		return spd.Policy{}, fmt.Errorf("decode policy: %w", err)
	}
	return p, nil
}

// refuseUnknown looks for fields without a definition, at any depth.
func refuseUnknown(m protoreflect.Message, path string) error {
	if len(m.GetUnknown()) > 0 {
		return fmt.Errorf("%s has fields %w", path, ErrUnknown)
	}
	var err error
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if f.Message() == nil {
			return true
		}
		name := path + "." + string(f.Name())
		if !f.IsList() {
			err = refuseUnknown(v.Message(), name)
			return err == nil
		}
		for i := range v.List().Len() {
			if err = refuseUnknown(v.List().Get(i).Message(), fmt.Sprintf("%s[%d]", name, i)); err != nil {
				return false
			}
		}
		return true
	})
	return err
}
