package policies

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
)

var update = flag.Bool("update", false, "write the generated documents")

// TestDocuments keeps what is made from the tables: go test ./policies -run Documents -update writes it.
func TestDocuments(t *testing.T) {
	for file, want := range map[string][]byte{"schema.json": Schema(), "REFERENCE.md": Reference()} {
		if *update {
			if err := os.WriteFile(file, want, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		got, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is not what the tables say; run go test ./policies -run Documents -update", file)
		}
	}
}

// place is a field of the tables and a document in which only its value is wrong.
type place struct{ path, text string }

// places writes, for each field of an object, the mapping with every required field, and the field with a value that is
// of no type at all: a mapping that no object knows.
func places(o *object, indent string, seen []*object) []place {
	if slices.Contains(seen, o) {
		return nil
	}
	var out []place
	for _, f := range o.fields {
		others := required(o, f.name, indent)
		out = append(out, place{f.name, others + indent + f.name + ": {nonsense: [{}]}\n"})
		if f.kind.of == nil {
			continue
		}
		for _, p := range places(f.kind.of, indent+"    ", append(seen, o)) {
			text := p.text
			if _, list := f.kind.schema["items"]; list {
				text = indent + "  -\n" + text
			}
			out = append(out, place{f.name + "." + p.path, others + indent + f.name + ":\n" + text})
		}
	}
	return out
}

func required(o *object, except, indent string) string {
	values := map[string]string{
		"name": "n", "filterList": "l", "filterAction": "a", "remote": "192.0.2.1", "method": "certificate", "active": "true", "source": "me",
		"destination": "any", "action": "permit", "mode": "wait", "policy": "p", "container": "DC=a", "order": "1", "filters": "[]",
		"assertions": "[]", "subnets": "[192.0.2.0/24]", "from": "{machine: m}", "to": "{machine: m}", "is": "clear",
	}
	var b strings.Builder
	for _, name := range o.requiredNames() {
		if name != except {
			value, ok := values[name]
			if !ok {
				panic("no example of the required field " + name)
			}
			fmt.Fprintf(&b, "%s%s: %s\n", indent, name, value)
		}
	}
	return b.String()
}

// The decoder reads every field that the tables know, and the schema looks at each: nonsense in it is refused for it.
func TestDecoderReadsEveryField(t *testing.T) {
	schema := parseSchema(t)
	count := 0
	for _, k := range Kinds() {
		head := fmt.Sprintf("apiVersion: %s\nkind: %s\n", APIVersion, k)
		if _, err := Decode("f", []byte(head+required(objects[k], "", ""))); err != nil {
			t.Fatalf("%s: with every required field: %v", k, err)
		}
		for _, p := range places(objects[k], "", nil) {
			count++
			text := head + p.text
			leaf := p.path[strings.LastIndex(p.path, ".")+1:]
			_, err := Decode("f", []byte(text))
			if err == nil || strings.Contains(err.Error(), "unknown field \""+leaf) || !strings.Contains(err.Error(), leaf) && !strings.Contains(err.Error(), "nonsense") {
				t.Errorf("%s: field %s holds nonsense, and the decoder says %v\n%s", k, p.path, err, text)
			}
			if err := schema.check(yamlValue(t, text)); err == nil {
				t.Errorf("%s: field %s holds nonsense, and the schema accepts it\n%s", k, p.path, text)
			}
		}
	}
	if count < 80 {
		t.Errorf("only %d fields were tried", count)
	}
}

// SchemaAccepts reports why the schema refuses a document that the decoder accepts; tests outside the package use it.
func SchemaAccepts(t testing.TB, text []byte) error {
	schema := parseSchema(t)
	for i, d := range bytes.Split(text, []byte("\n---\n")) {
		value := yamlValue(t, string(d))
		if value == nil {
			continue
		}
		if err := schema.check(value); err != nil {
			return fmt.Errorf("document %d: %w", i+1, err)
		}
	}
	return nil
}

func yamlValue(t testing.TB, text string) any {
	t.Helper()
	var value any
	if err := yaml.Unmarshal([]byte(text), &value); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	encoded, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	var out any
	if err := json.Unmarshal(encoded, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// schemaUnderTest evaluates the words of JSON Schema that Schema uses, and knows no others.
type schemaUnderTest struct{ root map[string]any }

func parseSchema(t testing.TB) schemaUnderTest {
	t.Helper()
	var s schemaUnderTest
	if err := json.Unmarshal(Schema(), &s.root); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s schemaUnderTest) check(value any) error { return s.apply(s.root, value, "document") }

func (s schemaUnderTest) apply(schema any, v any, at string) error {
	if all, ok := schema.(bool); ok {
		if !all {
			return fmt.Errorf("%s: nothing is allowed", at)
		}
		return nil
	}
	m := schema.(map[string]any)
	for word, want := range m {
		var err error
		switch word {
		case "$schema", "$id", "title", "description", "definitions", "then":
		case "$ref":
			definition, ok := s.root["definitions"].(map[string]any)[strings.TrimPrefix(want.(string), "#/definitions/")]
			if !ok {
				return fmt.Errorf("%s: no definition %s", at, want)
			}
			err = s.apply(definition, v, at)
		case "if":
			if s.apply(want, v, at) == nil {
				err = s.apply(m["then"], v, at)
			}
		case "allOf":
			for _, one := range want.([]any) {
				if err == nil {
					err = s.apply(one, v, at)
				}
			}
		case "anyOf":
			err = fmt.Errorf("%s: %v is none of the choices", at, v)
			for _, one := range want.([]any) {
				if s.apply(one, v, at) == nil {
					err = nil
				}
			}
		case "const":
			if v != want {
				err = fmt.Errorf("%s: %v is not %v", at, v, want)
			}
		case "enum":
			if !slices.ContainsFunc(want.([]any), func(one any) bool { return one == v }) {
				err = fmt.Errorf("%s: %v is not one of %v", at, v, want)
			}
		case "type":
			err = typed(want.(string), v, at)
		default:
			err = s.limit(m, word, want, v, at)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func typed(want string, v any, at string) error {
	got := ""
	switch n := v.(type) {
	case string:
		got = "string"
	case bool:
		got = "boolean"
	case float64:
		if n == float64(int64(n)) {
			got = "integer"
		}
	case []any:
		got = "array"
	case map[string]any:
		got = "object"
	}
	if got != want {
		return fmt.Errorf("%s: %v is no %s", at, v, want)
	}
	return nil
}

// limit evaluates the words that hold for one type and let values of other types pass.
func (s schemaUnderTest) limit(m map[string]any, word string, want, v any, at string) error {
	ok := true
	switch value := v.(type) {
	case string:
		switch word {
		case "pattern":
			ok = regexp.MustCompile(want.(string)).MatchString(value)
		case "minLength":
			ok = utf8.RuneCountInString(value) >= int(want.(float64))
		case "maxLength":
			ok = utf8.RuneCountInString(value) <= int(want.(float64))
		}
	case float64:
		switch word {
		case "minimum":
			ok = value >= want.(float64)
		case "maximum":
			ok = value <= want.(float64)
		}
	case []any:
		switch word {
		case "minItems":
			ok = len(value) >= int(want.(float64))
		case "items":
			for i, one := range value {
				if err := s.apply(want, one, fmt.Sprintf("%s[%d]", at, i)); err != nil {
					return err
				}
			}
		}
	case map[string]any:
		switch word {
		case "required":
			for _, name := range want.([]any) {
				if _, has := value[name.(string)]; !has {
					return fmt.Errorf("%s: no %s", at, name)
				}
			}
		case "properties":
			for name, schema := range want.(map[string]any) {
				if one, has := value[name]; has {
					if err := s.apply(schema, one, at+"."+name); err != nil {
						return err
					}
				}
			}
		case "additionalProperties":
			properties, _ := m["properties"].(map[string]any)
			for name := range value {
				if _, known := properties[name]; !known && want == false {
					return fmt.Errorf("%s: unknown field %s", at, name)
				}
			}
		}
	}
	if !slices.Contains([]string{"pattern", "minLength", "maxLength", "minimum", "maximum", "minItems", "items", "required", "properties", "additionalProperties"}, word) {
		return fmt.Errorf("the test does not know the word %s", word)
	}
	if !ok {
		return fmt.Errorf("%s: %v is against %s %v", at, v, word, want)
	}
	return nil
}
