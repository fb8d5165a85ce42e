package admin

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/bailiwick-net/bailiwick/controller/store"
	"github.com/bailiwick-net/bailiwick/policies"
	adminv1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/admin/v1"
)

// intent is a change of documents as it was asked for.
type intent struct {
	put     []written
	without []store.DocumentKey
}

// decodeIntent reads documents to write and names of documents to delete.
func decodeIntent(sources []*adminv1.Source, names []*adminv1.DocumentName) (intent, error) {
	put, err := decodeSources(sources)
	if err != nil {
		return intent{}, err
	}
	in := intent{put: put}
	for _, n := range names {
		kind, err := parseKind(n.GetKind())
		if err != nil {
			return intent{}, err
		}
		key := store.DocumentKey{Kind: string(kind), Name: n.GetName()}
		if slices.ContainsFunc(put, func(w written) bool { return keyOf(w.doc) == key }) {
			return intent{}, status.Errorf(codes.InvalidArgument, "%s %q is to be written and deleted at once", kind, n.GetName())
		}
		if !slices.Contains(in.without, key) {
			in.without = append(in.without, key)
		}
	}
	if len(in.put)+len(in.without) == 0 {
		return intent{}, status.Error(codes.InvalidArgument, "there is no document in what was given")
	}
	return in, nil
}

// intentOf is a change that the controller made out of a command.
func intentOf(e edit) intent {
	in := intent{without: e.without}
	for _, d := range e.put {
		in.put = append(in.put, written{d, policies.AppendYAML(nil, d)})
	}
	return in
}

func (in intent) documents() []policies.Document {
	docs := make([]policies.Document, len(in.put))
	for i, w := range in.put {
		docs[i] = w.doc
	}
	return docs
}

// over returns all documents as they would be. What is deleted must be there, and nothing that stays may name it: whoever
// deletes begins with what uses the others, links and tests, then policies, then lists and actions (MS-GPIPSEC 3.1.5.7),
// or names all of them at once.
func (in intent) over(c catalogue) (policies.Documents, error) {
	next := c.with(in.documents(), in.without...)
	for _, key := range in.without {
		doc, ok := c.docs[key]
		if !ok {
			return policies.Documents{}, status.Errorf(codes.NotFound, "there is no %s %q", key.Kind, key.Name)
		}
		alone := c.with(in.documents(), slices.DeleteFunc(slices.Clone(in.without), func(k store.DocumentKey) bool { return k == key })...)
		if users := newlyDangling(alone, next); len(users) > 0 {
			return policies.Documents{}, status.Errorf(codes.FailedPrecondition, "%s is used by %s; change that first", object(doc), strings.Join(users, ", "))
		}
	}
	return next, nil
}

// newlyDangling lists the documents that name something that is not there, and named nothing such before.
func newlyDangling(before, after policies.Documents) []string {
	var users []string
	was := map[string]bool{}
	for _, f := range policies.Validate(before) {
		was[f.Object+f.Message] = f.Code == policies.CodeDangling
	}
	for _, f := range policies.Validate(after) {
		if f.Code == policies.CodeDangling && !was[f.Object+f.Message] && !slices.Contains(users, f.Object) {
			users = append(users, f.Object)
		}
	}
	return users
}

// change is what has to be written, and what happens to each document.
func (in intent) change(c catalogue) (store.DocumentChange, []*adminv1.Change) {
	var change store.DocumentChange
	var out []*adminv1.Change
	for _, w := range in.put {
		key := keyOf(w.doc)
		action := adminv1.Change_ACTION_CREATED
		if old, exists := c.stored.Get(key); exists {
			action = adminv1.Change_ACTION_UPDATED
			if bytes.Equal(old.Content, w.text) {
				action = adminv1.Change_ACTION_UNCHANGED
			}
		}
		out = append(out, &adminv1.Change{Kind: key.Kind, Name: key.Name, Action: action})
		if action != adminv1.Change_ACTION_UNCHANGED {
			change.Put = append(change.Put, store.Document{DocumentKey: key, Content: w.text})
		}
	}
	for _, key := range in.without {
		out = append(out, &adminv1.Change{Kind: key.Kind, Name: key.Name, Action: adminv1.Change_ACTION_DELETED})
		change.Delete = append(change.Delete, key)
	}
	return change, out
}

// String sums the change up for the log.
func (in intent) String() string {
	return fmt.Sprintf("%d documents to write, %d to delete", len(in.put), len(in.without))
}
