package store

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// A DocumentKey names a policy document.
type DocumentKey struct {
	Kind string
	Name string
}

// String returns "Kind/name".
func (k DocumentKey) String() string { return k.Kind + "/" + k.Name }

// A Document is what an administrator wrote, octet for octet.
type Document struct {
	DocumentKey
	// Content is the YAML document, comments and spelling included.
	Content []byte
	// Revision is the store's revision of the last change; 0 for a document not stored yet.
	Revision int64
	// Changed and By tell when and by whom it was last written.
	Changed time.Time
	By      string
}

// Documents are all documents at one revision. The zero value is the empty store before the first change.
type Documents struct {
	// Revision grows with every change of any document, and only then.
	Revision int64
	List     []Document
}

// Get finds a document.
func (d Documents) Get(key DocumentKey) (Document, bool) {
	for _, doc := range d.List {
		if doc.DocumentKey == key {
			return doc, true
		}
	}
	return Document{}, false
}

// A DocumentChange is written whole or not at all.
type DocumentChange struct {
	Put    []Document
	Delete []DocumentKey
	// By is who changes, At when.
	By string
	At time.Time
}

// storedDocument is the value of a document's key. The content is a string, to be readable with etcdctl.
type storedDocument struct {
	Content string    `json:"content"`
	Changed time.Time `json:"changed"`
	By      string    `json:"by,omitempty"`
}

const documentsFolder = "documents"

func (s *Store) documentKey(k DocumentKey) string {
	return s.key(documentsFolder, url.PathEscape(k.Kind), url.PathEscape(k.Name))
}

// documentsHead is written by every change of a document: its revision is that of all of them.
func (s *Store) documentsHead() string { return s.key("documents-head") }

// Documents reads all documents, ordered by kind and name.
func (s *Store) Documents(ctx context.Context) (Documents, error) {
	// One transaction, so that the revision and the documents belong together.
	resp, err := s.client.Txn(ctx).Then(
		clientv3.OpGet(s.documentsHead()),
		clientv3.OpGet(s.key(documentsFolder, ""), clientv3.WithPrefix()),
	).Commit()
	if err != nil {
		return Documents{}, fmt.Errorf("reading the policy documents: %w", err)
	}
	var docs Documents
	for _, kv := range resp.Responses[0].GetResponseRange().Kvs {
		docs.Revision = kv.ModRevision
	}
	for _, kv := range resp.Responses[1].GetResponseRange().Kvs {
		key, err := s.parseDocumentKey(string(kv.Key))
		if err != nil {
			return Documents{}, err
		}
		var v storedDocument
		if err := json.Unmarshal(kv.Value, &v); err != nil {
			return Documents{}, fmt.Errorf("policy document %s: %w: %w", key, ErrCorrupt, err)
		}
		docs.List = append(docs.List, Document{
			DocumentKey: key, Content: []byte(v.Content), Revision: kv.ModRevision, Changed: v.Changed, By: v.By,
		})
	}
	return docs, nil
}

func (s *Store) parseDocumentKey(key string) (DocumentKey, error) {
	kind, name, ok := strings.Cut(strings.TrimPrefix(key, s.key(documentsFolder, "")), "/")
	if !ok {
		return DocumentKey{}, fmt.Errorf("key %q names no policy document: %w", key, ErrCorrupt)
	}
	k, err := url.PathUnescape(kind)
	if err != nil {
		return DocumentKey{}, fmt.Errorf("key %q names no policy document: %w: %w", key, ErrCorrupt, err)
	}
	n, err := url.PathUnescape(name)
	if err != nil {
		return DocumentKey{}, fmt.Errorf("key %q names no policy document: %w: %w", key, ErrCorrupt, err)
	}
	return DocumentKey{k, n}, nil
}

// ChangeDocuments writes the change if the documents are still at the revision base, else the error wraps ErrConflict.
// It returns the new revision. Documents in Put whose content equals the stored one should be left out by the caller.
func (s *Store) ChangeDocuments(ctx context.Context, base int64, change DocumentChange) (int64, error) {
	compare := []clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(s.documentsHead()), "=", base)}
	var ops []clientv3.Op
	for _, d := range change.Put {
		if d.Kind == "" || d.Name == "" || bytes.IndexByte(d.Content, 0) >= 0 {
			return 0, fmt.Errorf("policy document %q has no kind or no name, or is not text: %w", d.DocumentKey, ErrCorrupt)
		}
		value, err := encode("policy document "+d.String(), storedDocument{string(d.Content), change.At.UTC(), change.By})
		if err != nil {
			return 0, err
		}
		ops = append(ops, clientv3.OpPut(s.documentKey(d.DocumentKey), value))
	}
	for _, k := range change.Delete {
		compare = append(compare, clientv3.Compare(clientv3.CreateRevision(s.documentKey(k)), ">", 0))
		ops = append(ops, clientv3.OpDelete(s.documentKey(k)))
	}
	if len(ops) == 0 {
		return base, nil
	}
	ops = append(ops, clientv3.OpPut(s.documentsHead(), strconv.FormatInt(base, 10)))
	return s.commit(ctx, "writing policy documents", compare, ops)
}

// WatchDocuments hints that the documents may have changed; see the package comment.
func (s *Store) WatchDocuments(ctx context.Context) <-chan struct{} {
	return s.watch(ctx, s.documentsHead())
}
