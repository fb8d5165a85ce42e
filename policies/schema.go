package policies

import (
	"bytes"
	"encoding/json"
	"slices"
)

// Schema returns the JSON Schema (draft 7, which editors of YAML know) of one document. It accepts every document that
// Decode accepts, and refuses what it can without understanding texts: unknown and missing fields, values of a wrong
// kind. It is made from the tables that Decode uses, and ends in a newline.
func Schema() []byte {
	definitions := fragment{}
	for _, o := range allObjects() {
		definitions[o.name] = o.definition()
	}
	kinds := make([]string, len(Kinds()))
	cases := make([]fragment, len(Kinds()))
	for i, k := range Kinds() {
		kinds[i] = string(k)
		cases[i] = fragment{
			"if":   fragment{"properties": fragment{"kind": fragment{"const": k}}, "required": []string{"kind"}},
			"then": reference(objects[k]),
		}
	}
	schema := fragment{
		"$schema": "http://json-schema.org/draft-07/schema#", "$id": "https://" + APIVersion + "/schema.json",
		"title": "Bailiwick policy document", "type": "object", "required": []string{"apiVersion", "kind"},
		"properties": fragment{
			"apiVersion": fragment{"const": APIVersion, "description": "The version of the language."},
			"kind":       fragment{"enum": kinds, "description": "What the document describes."},
		},
		"allOf": cases, "definitions": definitions,
	}
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(schema); err != nil {
		panic("the schema is part of the program: " + err.Error())
	}
	return out.Bytes()
}

func (o *object) definition() fragment {
	properties := fragment{}
	if isDocument(o) {
		properties["apiVersion"], properties["kind"] = true, true
	}
	for _, f := range o.fields {
		property := fragment{"description": f.plainDoc()}
		if _, ref := f.kind.schema["$ref"]; ref { // what stands beside $ref is ignored (draft 7, 8.3)
			property["allOf"] = []fragment{f.kind.schema}
		} else {
			for k, v := range f.kind.schema {
				property[k] = v
			}
		}
		properties[f.name] = property
	}
	out := fragment{"type": "object", "description": plain(o.doc), "properties": properties, "additionalProperties": false}
	if names := o.requiredNames(); len(names) > 0 {
		out["required"] = names
	}
	return out
}

func isDocument(o *object) bool { return objects[Kind(o.name)] == o }

// allObjects lists every object once, each document followed by what is in it.
func allObjects() []*object {
	var out []*object
	var visit func(o *object)
	visit = func(o *object) {
		if slices.Contains(out, o) {
			return
		}
		out = append(out, o)
		for _, f := range o.fields {
			if f.kind.of != nil {
				visit(f.kind.of)
			}
		}
	}
	for _, k := range Kinds() {
		visit(objects[k])
	}
	return out
}
