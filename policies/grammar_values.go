package policies

import (
	"fmt"
	"slices"
	"strings"

	"github.com/bailiwick-net/bailiwick/policies/proposal"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// fragment is a piece of a JSON Schema.
type fragment map[string]any

// valueType describes what a field holds.
type valueType struct {
	text   string   // for people
	schema fragment // what an editor checks; it never refuses what the decoder accepts
	of     *object  // of a mapping, and of a list of mappings
	refers Kind     // kind of the documents that a text names; empty where it names none
}

func text(doc string, limits fragment) valueType {
	limits["type"] = "string"
	return valueType{text: doc, schema: limits}
}

// digits is a number that may stand in quotes.
func digits(doc string, low, high int) valueType {
	return valueType{text: doc, schema: fragment{"anyOf": []fragment{
		{"type": "integer", "minimum": low, "maximum": high}, {"type": "string", "pattern": "^[0-9]+$"},
	}}}
}

func numberBetween(low, high int) valueType {
	return digits(fmt.Sprintf("number, %d-%d", low, high), low, high)
}

// oneOf is one of a few words.
func oneOf[T fmt.Stringer](values ...T) valueType {
	words := make([]string, len(values))
	for i, v := range values {
		words[i] = v.String()
	}
	return valueType{text: "`" + strings.Join(words, "`, `") + "`", schema: fragment{"type": "string", "enum": words}}
}

func mappingOf(o *object) valueType {
	return valueType{text: fmt.Sprintf("[%s](#%s)", o.name, strings.ToLower(o.name)), schema: reference(o), of: o}
}

func reference(o *object) fragment { return fragment{"$ref": "#/definitions/" + o.name} }

// listOf is a list of values, or of mappings where it is given an object.
func listOf[E valueType | *object](element E) valueType {
	switch e := any(element).(type) {
	case *object:
		v := mappingOf(e)
		return valueType{text: "list of " + v.text, schema: fragment{"type": "array", "items": v.schema}, of: e}
	case valueType:
		return valueType{text: "list: " + e.text, schema: fragment{"type": "array", "items": e.schema}}
	}
	return valueType{} // the constraint knows no third type
}

// listOf1 is a list that is not empty.
func listOf1(element valueType) valueType {
	v := listOf(element)
	v.schema["minItems"] = 1
	return v
}

// referenceTo is the name of another document, or of a secret.
func referenceTo(kind Kind) valueType {
	v := typeName
	v.refers, v.text = kind, fmt.Sprintf("name of a %s", kind)
	return v
}

var (
	typeName        = text("name", fragment{"minLength": 1, "maxLength": maxNameLength, "pattern": `^\S(.*\S)?$`})
	typeDescription = text("text", fragment{"maxLength": maxDescriptionLength})
	typeFlag        = valueType{text: "`true`, `false`", schema: fragment{"type": "boolean"}}
	typeDuration    = text("duration, as `90s`, `15m`, `8h`", fragment{"pattern": `^\+?([0-9]*\.?[0-9]*(ns|us|µs|μs|ms|s|m|h))+$`})
	typeDN          = text("DN (RFC 4514)", fragment{"minLength": 1})
	typeEndpoint    = text("address", fragment{"pattern": `^[0-9A-Fa-f.:]+$`})
	typeID          = text("`fqdn:`, `email:`, `ip:` or `dn:`, and the identity", fragment{"pattern": "^(fqdn|email|ip|dn):"})
	typePort        = digits("port, 1-65535", 1, 65535)
	typeESPOffer    = text("[offer](#offers) for a Child SA", fragment{"pattern": `^[Ee][Ss][Pp]\[[!-~]+$`})
	typeIKEOffer    = text("[offer](#offers) for an IKE SA", fragment{"pattern": "^[!-~]+$"})
	typeAddress     = text("[address](#addresses)", fragment{"anyOf": []fragment{{"enum": symbolNames()}, {"pattern": `^[0-9A-Fa-f.:/-]+$`}, {"pattern": "^" + spd.NamePrefix + "."}}})
	typeLevel       = oneOf(proposal.LevelLow, proposal.LevelMedium, proposal.LevelHigh)
	typePorts       = valueType{text: "`any`, port or range `a-b`", schema: fragment{"anyOf": []fragment{
		{"type": "integer", "minimum": 1, "maximum": 65535}, {"type": "string", "pattern": "^(any|[0-9]+(-[0-9]+)?)$"},
	}}}
	typeProtocol = valueType{text: "`any`, name or number", schema: fragment{"anyOf": []fragment{
		{"enum": append([]string{"any"}, protocolNames()...)},
		{"type": "integer", "minimum": 1, "maximum": 255}, {"type": "string", "pattern": "^[0-9]+$"},
	}}}
	typeTraffic = valueType{text: "`any`, protocol, `tcp/445`, `udp/1000-2000`", schema: fragment{"anyOf": []fragment{
		{"type": "integer", "minimum": 1, "maximum": 255}, {"type": "string", "pattern": "^[0-9a-z-]+(/.+)?$"},
	}}}
	outcomesType = func() valueType {
		one := oneOf(OutcomeClear, OutcomeIPsec, OutcomeBlocked)
		return valueType{text: one.text + " or a list of them", schema: fragment{"anyOf": []fragment{one.schema, listOf1(one).schema}}}
	}()
	fallbackType = func() valueType {
		mode := fallbackObject.fields[slices.IndexFunc(fallbackObject.fields, func(f fieldRow) bool { return f.name == "mode" })].kind
		return valueType{text: mode.text + " or " + mappingOf(&fallbackObject).text, of: &fallbackObject,
			schema: fragment{"anyOf": []fragment{mode.schema, reference(&fallbackObject)}}}
	}()
)

// usualOffers are those of a default response that names none.
var usualOffers = func() string {
	var names []string
	for _, o := range proposal.DefaultESP() {
		names = append(names, o.String())
	}
	return quotedWords(names)
}()

func symbolNames() []string {
	out := make([]string, len(symbols))
	for i, k := range symbols {
		out[i] = k.String()
	}
	return out
}

func protocolNames() []string {
	out := make([]string, len(protocols))
	for i, p := range protocols {
		out[i] = p.name
	}
	return out
}
