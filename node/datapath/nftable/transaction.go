package nftable

import (
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"

	"github.com/bailiwick-net/bailiwick/node/datapath/userspace/steering"
)

// transaction collects messages that the kernel carries out all together or not at all.
type transaction struct {
	table string
	b     []byte
	last  int // where the last message begins
	err   error
}

// What golang.org/x/sys/unix lacks of linux/netfilter/nf_tables.h.
const (
	setConcatenation = 0x80 // NFT_SET_CONCAT
	setDescConcat    = 2    // NFTA_SET_DESC_CONCAT
	setFieldLength   = 1    // NFTA_SET_FIELD_LEN
	setExpression    = 17   // NFTA_SET_EXPR
	setElementKeyEnd = 10   // NFTA_SET_ELEM_KEY_END
	tableOwnerPort   = 7    // NFTA_TABLE_OWNER
	tableOwner       = 0x2  // NFT_TABLE_F_OWNER
	tablePersist     = 0x4  // NFT_TABLE_F_PERSIST
)

const (
	headerLength   = 20 // struct nlmsghdr and struct nfgenmsg
	maxElements    = 128
	attributeBound = 4
)

// batchEdge appends the begin or the end of a transaction, which are for a subsystem and not for a table.
func batchEdge(b []byte, kind uint16) []byte {
	b = binary.NativeEndian.AppendUint32(b, headerLength)
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = binary.NativeEndian.AppendUint16(b, unix.NLM_F_REQUEST)
	b = append(b, make([]byte, 8)...)
	b = append(b, unix.AF_UNSPEC, unix.NFNETLINK_V0)
	return binary.BigEndian.AppendUint16(b, unix.NFNL_SUBSYS_NFTABLES)
}

func newTransaction(table string) *transaction {
	return &transaction{table: table, b: batchEdge(nil, unix.NFNL_MSG_BATCH_BEGIN)}
}

// begin opens a message, end closes it.
func (x *transaction) begin(kind, flags uint16) {
	x.last = len(x.b)
	x.b = binary.NativeEndian.AppendUint32(x.b, 0)
	x.b = binary.NativeEndian.AppendUint16(x.b, unix.NFNL_SUBSYS_NFTABLES<<8|kind)
	x.b = binary.NativeEndian.AppendUint16(x.b, unix.NLM_F_REQUEST|flags)
	x.b = append(x.b, make([]byte, 8)...)
	x.b = append(x.b, unix.NFPROTO_INET, unix.NFNETLINK_V0, 0, 0)
}

func (x *transaction) end() { binary.NativeEndian.PutUint32(x.b[x.last:], uint32(len(x.b)-x.last)) }

func (x *transaction) octets(kind uint16, data []byte) {
	x.b = binary.NativeEndian.AppendUint16(x.b, uint16(attributeBound+len(data)))
	x.b = binary.NativeEndian.AppendUint16(x.b, kind)
	x.b = append(x.b, data...)
	x.pad()
}

func (x *transaction) text(kind uint16, s string) {
	x.b = binary.NativeEndian.AppendUint16(x.b, uint16(attributeBound+len(s)+1))
	x.b = binary.NativeEndian.AppendUint16(x.b, kind)
	x.b = append(append(x.b, s...), 0)
	x.pad()
}

func (x *transaction) number(kind uint16, n uint32) {
	x.octets(kind, binary.BigEndian.AppendUint32(make([]byte, 0, 4), n))
}

func (x *transaction) pad() {
	for len(x.b)%4 != 0 {
		x.b = append(x.b, 0)
	}
}

// nest wraps the attributes that f adds.
func (x *transaction) nest(kind uint16, f func()) {
	at := len(x.b)
	x.b = binary.NativeEndian.AppendUint16(x.b, 0)
	x.b = binary.NativeEndian.AppendUint16(x.b, kind|unix.NLA_F_NESTED)
	f()
	length := len(x.b) - at
	if length > 0xffff && x.err == nil {
		x.err = fmt.Errorf("an attribute of %d octets does not fit an nftables message", length)
	}
	binary.NativeEndian.PutUint16(x.b[at:], uint16(length))
}

func (x *transaction) addTable(name string, flags uint32) {
	x.begin(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE)
	x.text(unix.NFTA_TABLE_NAME, name)
	if flags != 0 {
		x.number(unix.NFTA_TABLE_FLAGS, flags)
	}
	x.end()
}

func (x *transaction) deleteTable(name string) {
	x.begin(unix.NFT_MSG_DELTABLE, 0)
	x.text(unix.NFTA_TABLE_NAME, name)
	x.end()
}

func (x *transaction) addChain(c steering.Chain) {
	x.begin(unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE)
	x.text(unix.NFTA_CHAIN_TABLE, x.table)
	x.text(unix.NFTA_CHAIN_NAME, c.Name)
	if hook, kind := hookOf(c.Hook); kind != "" {
		x.nest(unix.NFTA_CHAIN_HOOK, func() {
			x.number(unix.NFTA_HOOK_HOOKNUM, hook)
			x.number(unix.NFTA_HOOK_PRIORITY, uint32(c.Order.Priority()))
		})
		x.number(unix.NFTA_CHAIN_POLICY, uint32(nftables.ChainPolicyAccept))
		x.text(unix.NFTA_CHAIN_TYPE, kind)
	}
	x.end()
}

// hookOf returns the number of a hook and the type of its chains; a type of "" means none.
func hookOf(h steering.Hook) (number uint32, kind string) {
	switch h {
	case steering.HookPrerouting:
		return unix.NF_INET_PRE_ROUTING, "filter"
	case steering.HookInput:
		return unix.NF_INET_LOCAL_IN, "filter"
	case steering.HookForward:
		return unix.NF_INET_FORWARD, "filter"
	case steering.HookOutput: // a changed mark finds another route
		return unix.NF_INET_LOCAL_OUT, "route"
	case steering.HookPostrouting:
		return unix.NF_INET_POST_ROUTING, "filter"
	case steering.HookNone: // has no place in the stack
	}
	return 0, ""
}

func (x *transaction) flushChain(name string) {
	x.begin(unix.NFT_MSG_DELRULE, 0)
	x.text(unix.NFTA_RULE_TABLE, x.table)
	x.text(unix.NFTA_RULE_CHAIN, name)
	x.end()
}

func (x *transaction) deleteChain(name string) {
	x.begin(unix.NFT_MSG_DELCHAIN, 0)
	x.text(unix.NFTA_CHAIN_TABLE, x.table)
	x.text(unix.NFTA_CHAIN_NAME, name)
	x.end()
}

func (x *transaction) addRule(chain string, expressions []expr.Any, comment string) {
	x.begin(unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_APPEND)
	x.text(unix.NFTA_RULE_TABLE, x.table)
	x.text(unix.NFTA_RULE_CHAIN, chain)
	x.nest(unix.NFTA_RULE_EXPRESSIONS, func() {
		for _, e := range expressions {
			b, err := expr.Marshal(unix.NFPROTO_INET, e)
			if err != nil && x.err == nil {
				x.err = fmt.Errorf("encode a rule of nftables chain %s: %w", chain, err)
			}
			x.octets(unix.NFTA_LIST_ELEM|unix.NLA_F_NESTED, b)
		}
	})
	if comment != "" {
		x.octets(unix.NFTA_RULE_USERDATA, userdata.AppendString(nil, userdata.TypeComment, comment))
	}
	x.end()
}

// keyOf returns the type number of nft(8) for a key, and the lengths of its parts.
func keyOf(types ...nftables.SetDatatype) (magic uint32, lengths []uint32) {
	for _, t := range types {
		magic = magic<<nftables.SetConcatTypeBits | t.GetNFTMagic()
		lengths = append(lengths, (t.Bytes+3)/4*4)
	}
	return magic, lengths
}

func setTypes(s steering.Set) []nftables.SetDatatype {
	address := nftables.TypeIPAddr
	if s.IPv6 {
		address = nftables.TypeIP6Addr
	}
	var types []nftables.SetDatatype
	for _, f := range s.Key {
		switch f {
		case steering.Local, steering.Remote:
			types = append(types, address)
		case steering.Protocol:
			types = append(types, nftables.TypeInetProto)
		case steering.LocalPort, steering.RemotePort:
			types = append(types, nftables.TypeInetService)
		}
	}
	return types
}

func (x *transaction) addSet(s steering.Set) {
	magic, lengths := keyOf(setTypes(s)...)
	flags, length := uint32(setConcatenation), uint32(0)
	if s.Timeout {
		flags |= unix.NFT_SET_TIMEOUT
	}
	if s.Interval {
		flags |= unix.NFT_SET_INTERVAL
	}
	for _, n := range lengths {
		length += n
	}
	x.newSet(s.Name, flags, magic, length, func() {
		x.nest(unix.NFTA_SET_DESC, func() {
			x.nest(setDescConcat, func() {
				for _, n := range lengths {
					x.nest(unix.NFTA_LIST_ELEM, func() { x.number(setFieldLength, n) })
				}
			})
		})
	})
}

func (x *transaction) newSet(name string, flags, magic, length uint32, more func()) {
	x.begin(unix.NFT_MSG_NEWSET, unix.NLM_F_CREATE)
	x.text(unix.NFTA_SET_TABLE, x.table)
	x.text(unix.NFTA_SET_NAME, name)
	x.number(unix.NFTA_SET_FLAGS, flags)
	x.number(unix.NFTA_SET_KEY_TYPE, magic)
	x.number(unix.NFTA_SET_KEY_LEN, length)
	x.number(unix.NFTA_SET_ID, uint32(x.last)) // unique in the transaction is enough
	more()
	x.end()
}

func mapType(k steering.Key) nftables.SetDatatype {
	switch k.Of {
	case steering.L4Protocol:
		return nftables.TypeInetProto
	case steering.SourcePort, steering.DestinationPort:
		return nftables.TypeInetService
	case steering.ICMPType:
		if k.IPv6 {
			return nftables.TypeICMP6Type
		}
		return nftables.TypeICMPType
	default:
		if k.IPv6 {
			return nftables.TypeIP6Addr
		}
		return nftables.TypeIPAddr
	}
}

// addMap adds a verdict map and its elements.
func (x *transaction) addMap(m steering.Map) {
	flags := uint32(unix.NFT_SET_MAP)
	if m.Interval {
		flags |= unix.NFT_SET_INTERVAL
	}
	kind := mapType(m.Key)
	x.newSet(m.Name, flags, kind.GetNFTMagic(), uint32(m.Key.Octets()), func() {
		x.number(unix.NFTA_SET_DATA_TYPE, unix.NFT_DATA_VERDICT)
		x.number(unix.NFTA_SET_DATA_LEN, 0)
		if !m.Interval {
			x.nest(unix.NFTA_SET_DESC, func() { x.number(unix.NFTA_SET_DESC_SIZE, uint32(len(m.Elements))) })
		}
		if m.Counted {
			x.nest(setExpression, func() {
				x.text(unix.NFTA_EXPR_NAME, "counter")
				x.nest(unix.NFTA_EXPR_DATA, func() {})
			})
		}
	})
	var elements []element
	for i := range m.Elements {
		e := &m.Elements[i]
		elements = append(elements, element{key: e.From, verdict: e})
		if !m.Interval {
			continue
		}
		if next, ok := after(e.To); ok {
			elements = append(elements, element{key: next, ends: true})
		}
	}
	x.elements(unix.NFT_MSG_NEWSETELEM, m.Name, elements)
}

// after returns the next greater number in as many octets.
func after(b []byte) ([]byte, bool) {
	b = slices.Clone(b)
	for i := len(b) - 1; i >= 0; i-- {
		if b[i]++; b[i] != 0 {
			return b, true
		}
	}
	return nil, false
}

// element is one of a set or a map.
type element struct {
	key, keyEnd []byte
	ends        bool // not part of an interval that ended before
	timeout     time.Duration
	verdict     *steering.Element
}

// elements adds or deletes elements, a bounded number in each message; a deletion of none deletes all.
func (x *transaction) elements(message uint16, set string, all []element) {
	if len(all) == 0 && message == unix.NFT_MSG_DELSETELEM { // all of them
		x.begin(message, 0)
		x.text(unix.NFTA_SET_ELEM_LIST_TABLE, x.table)
		x.text(unix.NFTA_SET_ELEM_LIST_SET, set)
		x.end()
	}
	for part := range slices.Chunk(all, maxElements) {
		x.begin(message, unix.NLM_F_CREATE)
		x.text(unix.NFTA_SET_ELEM_LIST_TABLE, x.table)
		x.text(unix.NFTA_SET_ELEM_LIST_SET, set)
		x.nest(unix.NFTA_SET_ELEM_LIST_ELEMENTS, func() {
			for i := range part {
				x.nest(unix.NFTA_LIST_ELEM, func() { x.element(&part[i]) })
			}
		})
		x.end()
	}
}

func (x *transaction) element(e *element) {
	if e.ends {
		x.number(unix.NFTA_SET_ELEM_FLAGS, unix.NFT_SET_ELEM_INTERVAL_END)
	}
	x.nest(unix.NFTA_SET_ELEM_KEY, func() { x.octets(unix.NFTA_DATA_VALUE, e.key) })
	if e.keyEnd != nil {
		x.nest(setElementKeyEnd, func() { x.octets(unix.NFTA_DATA_VALUE, e.keyEnd) })
	}
	if e.timeout != 0 {
		x.octets(unix.NFTA_SET_ELEM_TIMEOUT, binary.BigEndian.AppendUint64(nil, uint64(max(e.timeout.Milliseconds(), 1))))
	}
	if e.verdict == nil {
		return
	}
	v := e.verdict.Verdict.Expression(e.verdict.Target)
	x.nest(unix.NFTA_SET_ELEM_DATA, func() {
		x.nest(unix.NFTA_DATA_VERDICT, func() {
			x.number(unix.NFTA_VERDICT_CODE, uint32(int32(v.Kind)))
			if v.Chain != "" {
				x.text(unix.NFTA_VERDICT_CHAIN, v.Chain)
			}
		})
	})
	if e.verdict.Comment != "" {
		x.octets(unix.NFTA_SET_ELEM_USERDATA, userdata.AppendString(nil, userdata.NFTNL_UDATA_SET_ELEM_COMMENT, e.verdict.Comment))
	}
}

func (x *transaction) deleteSet(name string) {
	x.begin(unix.NFT_MSG_DELSET, 0)
	x.text(unix.NFTA_SET_TABLE, x.table)
	x.text(unix.NFTA_SET_NAME, name)
	x.end()
}
