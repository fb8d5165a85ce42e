package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/e2e/lab/swtpm"
	"github.com/bailiwick-net/bailiwick/node/statefile"
	"github.com/bailiwick-net/bailiwick/node/tpm"
	"github.com/bailiwick-net/bailiwick/pki/enroll"
)

func startTPM(t *testing.T) (*swtpm.TPM, *tpm.Device) {
	t.Helper()
	chip := swtpm.ForTest(t)
	return chip, tpm.New(chip.Device)
}

// holdsPrivateKey looks through the directory for the private key: for its number, at every octet of every file, and where that
// is PEM, of every block in it that did not come from the CA.
func holdsPrivateKey(t *testing.T, dir string, public *ecdsa.PublicKey) bool {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) == 0 {
		t.Fatal("there are no files to look through")
	}
	for _, entry := range entries {
		content, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		if err != nil {
			t.Fatal(err)
		}
		var texts [][]byte
		for block, rest := pem.Decode(content); block != nil; block, rest = pem.Decode(rest) {
			if block.Type != typeCert && block.Type != typeBundle {
				texts = append(texts, block.Bytes)
			}
		}
		if texts == nil {
			texts = [][]byte{content}
		}
		size := (public.Params().BitSize + 7) / 8
		for _, text := range texts {
			for i := range max(len(text)-size+1, 0) {
				private, err := ecdsa.ParseRawPrivateKey(public.Curve, text[i:i+size])
				if err == nil && private.PublicKey.Equal(public) {
					return true
				}
			}
		}
	}
	return false
}

func publicKey(c Credentials) *ecdsa.PublicKey { return c.Key.Public().(*ecdsa.PublicKey) }

func wantPlace(t *testing.T, s Store, c Credentials, inside bool) {
	t.Helper()
	loaded, err := s.Load()
	if err != nil {
		t.Fatal(err)
	}
	if !publicKey(loaded).Equal(publicKey(c)) {
		t.Error("another key was loaded than the one in use")
	}
	if inTPM(c.Key) != inside || inTPM(loaded.Key) != inside {
		t.Errorf("the key is %s, and %s when it is loaded; want in the TPM: %v", Where(c.Key), Where(loaded.Key), inside)
	}
	if held := holdsPrivateKey(t, s.Dir(), publicKey(c)); held == inside {
		t.Errorf("the private key is on the disk: %v, want %v", held, !inside)
	}
}

func join(t *testing.T, s Store, o *office) Credentials {
	t.Helper()
	c, err := Join(t.Context(), time.Now(), s, o, enroll.Token{}, "sql1.bank.example", nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func renewed(t *testing.T, s Store, o *office, old Credentials) Credentials {
	t.Helper()
	c, err := Renew(t.Context(), time.Now(), s, o, old)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestKeyMoves goes with a machine through every change of where its key is to be, with the TPM there and gone.
func TestKeyMoves(t *testing.T) {
	chip, device := startTPM(t)
	o, files := newOffice(t), open(t)
	tpmOnly, auto := files.With(Keys{Place: InTPM, TPM: device}), files.With(Keys{Place: Auto, TPM: device})
	first := join(t, files, o)
	wantPlace(t, files, first, false)

	// It is to move, and there is no TPM: it keeps its key and its place in the fleet, and says so.
	chip.Kill()
	if problem := auto.Keys().Problem(first.Key); problem != nil {
		t.Errorf("without a TPM, auto tells %v", problem)
	}
	if problem := tpmOnly.Keys().Problem(first.Key); problem == nil || !strings.Contains(problem.Error(), "next certificate") {
		t.Errorf("before it moves, the problem is %v", problem)
	}
	stayed := renewed(t, tpmOnly, o, first)
	if !publicKey(stayed).Equal(publicKey(first)) {
		t.Error("a machine whose key cannot move made another one")
	}
	wantPlace(t, tpmOnly, stayed, false)
	if problem := tpmOnly.Keys().Problem(stayed.Key); problem == nil || !strings.Contains(problem.Error(), "attach it") {
		t.Errorf("after it could not move, the problem is %v", problem)
	}
	if remade := renewed(t, auto, o, stayed); inTPM(remade.Key) {
		t.Error("auto made a key in a TPM that is gone")
	}

	if err := chip.Start(); err != nil {
		t.Fatal(err)
	}
	moved := renewed(t, auto, o, stayed)
	wantPlace(t, auto, moved, true)
	if problem := auto.Keys().Problem(moved.Key); problem != nil {
		t.Errorf("after it moved, the problem is %v", problem)
	}
	again := renewed(t, auto, o, moved)
	if publicKey(again).Equal(publicKey(moved)) {
		t.Error("a renewal in the TPM made no fresh key")
	}
	wantPlace(t, auto, again, true)

	// The TPM is gone: auto is no leave to do without.
	chip.Kill()
	if _, err := Renew(t.Context(), time.Now(), auto, o, again); !errors.Is(err, tpm.ErrUnavailable) {
		t.Errorf("renew without the TPM: %v, want ErrUnavailable", err)
	}
	wantPlace(t, auto, again, true)
	if problem := auto.Keys().Problem(again.Key); !errors.Is(problem, tpm.ErrUnavailable) {
		t.Errorf("without the TPM the problem is %v", problem)
	}
	// A file is taken by name alone; the certificate that ended is renewed for the key that it has.
	if err := chip.Start(); err != nil {
		t.Fatal(err)
	}
	// Whether what is issued today counts at that time is not the question here.
	_, _ = Renew(t.Context(), again.Leaf().NotAfter, auto, o, again)
	if asked := o.keys[len(o.keys)-2:]; asked[0] != asked[1] {
		t.Error("after the end of its certificate the machine asked for one for another key")
	}
	wantPlace(t, files, renewed(t, files, o, again), false)
}

func TestJoinWithTheTPM(t *testing.T) {
	chip, device := startTPM(t)
	o, store := newOffice(t), open(t).With(Keys{Place: InTPM, TPM: device, Curve: elliptic.P384()})
	o.fail = errors.New("connection reset")
	for range 2 {
		if _, err := Join(t.Context(), time.Now(), store, o, enroll.Token{}, "sql1.bank.example", nil); !errors.Is(err, o.fail) {
			t.Fatalf("join: %v", err)
		}
	}
	if o.keys[0] != o.keys[1] {
		t.Error("the repeated join asked for another key")
	}
	chip.Kill()
	if _, err := Join(t.Context(), time.Now(), store, o, enroll.Token{}, "sql1.bank.example", nil); !errors.Is(err, tpm.ErrUnavailable) {
		t.Errorf("join without the TPM: %v, want ErrUnavailable", err)
	}
	if err := chip.Start(); err != nil {
		t.Fatal(err)
	}
	o.fail = nil
	joined := join(t, store, o)
	if o.keys[2] != o.keys[0] || publicKey(joined).Curve != elliptic.P384() {
		t.Errorf("joined with another key than that of the first attempt, or on %s", publicKey(joined).Params().Name)
	}
	wantPlace(t, store, joined, true)

	// Another TPM in the same machine, or the disk in another machine: enrol again, with the new TPM.
	if err := chip.Replace(); err != nil {
		t.Fatal(err)
	}
	if _, err := Renew(t.Context(), joined.Leaf().NotAfter.Add(time.Second), store, o, joined); !errors.Is(err, tpm.ErrOtherTPM) {
		t.Errorf("renew with another TPM: %v, want ErrOtherTPM", err)
	}
	if problem := store.Keys().Problem(joined.Key); problem == nil || !strings.Contains(problem.Error(), "enrol again") {
		t.Errorf("with another TPM the problem is %v", problem)
	}
	if err := store.Leave(); err != nil {
		t.Fatal(err)
	}
	wantPlace(t, store, join(t, store, o), true)
}

// TestPendingKeyInTheWrongPlace does not let an old attempt decide where the key is.
func TestPendingKeyInTheWrongPlace(t *testing.T) {
	_, device := startTPM(t)
	o, files := newOffice(t), open(t)
	o.fail = errors.New("connection reset")
	if _, err := Join(t.Context(), time.Now(), files, o, enroll.Token{}, "sql1.bank.example", nil); !errors.Is(err, o.fail) {
		t.Fatalf("join: %v", err)
	}
	store := files.With(Keys{Place: InTPM, TPM: device})
	pending := filepath.Join(store.Dir(), pendingFile)
	if _, err := store.pendingKey(); err == nil || !strings.Contains(err.Error(), pending) {
		t.Fatalf("pending key: %v; want an error with %s", err, pending)
	}
	for what, content := range map[string]string{"no key": "nothing", "another block": string(pem.EncodeToMemory(&pem.Block{Type: typeCert}))} {
		if err := statefile.Write(pending, []byte(content)); err != nil {
			t.Fatal(err)
		}
		if _, err := store.pendingKey(); err == nil || !strings.Contains(err.Error(), "remove the file") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := os.Remove(pending); err != nil {
		t.Fatal(err)
	}
	if key, err := store.pendingKey(); err != nil || !inTPM(key) {
		t.Errorf("pending key: %v, %v; want one in the TPM", Where(key), err)
	}
}

// TestStoredKeysMustBeWhole damages what is stored of a key in a TPM.
func TestStoredKeysMustBeWhole(t *testing.T) {
	_, device := startTPM(t)
	o, store := newOffice(t), open(t).With(Keys{Place: InTPM, TPM: device})
	join(t, store, o)
	content, err := statefile.Read(store.path(), maxFile)
	if err != nil {
		t.Fatal(err)
	}
	var blocks []*pem.Block
	for block, rest := pem.Decode(content); block != nil; block, rest = pem.Decode(rest) {
		blocks = append(blocks, block)
	}
	if blocks[0].Type != tpm.PEMKey || blocks[1].Type != tpm.PEMStorage {
		t.Fatalf("the blocks are %q and %q", blocks[0].Type, blocks[1].Type)
	}
	plain, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	file, err := encodeKey(plain)
	if err != nil {
		t.Fatal(err)
	}
	cut := *blocks[0]
	cut.Bytes = cut.Bytes[:len(cut.Bytes)-1]
	for what, damaged := range map[string][]*pem.Block{
		"no key":             blocks[2:],
		"no storage key":     slices.Delete(slices.Clone(blocks), 1, 2),
		"the storage key":    blocks[1:],
		"two keys":           append(slices.Clone(blocks), blocks[0]),
		"one more in a file": append(slices.Clone(blocks), file...),
		"a key cut off":      append([]*pem.Block{&cut}, blocks[1:]...),
	} {
		var out []byte
		for _, block := range damaged {
			out = append(out, pem.EncodeToMemory(block)...)
		}
		if err := statefile.Write(store.path(), out); err != nil {
			t.Fatal(err)
		}
		if _, err := store.Load(); err == nil || !strings.Contains(err.Error(), "join again") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestPendingKeyInTheTPM waits for an approval with the same key, which is not on the disk.
func TestPendingKeyInTheTPM(t *testing.T) {
	_, device := startTPM(t)
	store := open(t).With(Keys{Place: InTPM, TPM: device})
	first, err := store.pendingKey()
	if err != nil {
		t.Fatal(err)
	}
	public := first.Public().(*ecdsa.PublicKey)
	key, err := store.pendingKey()
	if err != nil || !inTPM(key) || !public.Equal(key.Public()) {
		t.Fatalf("the key of the request is %s, another one, or cannot be read: %v", Where(key), err)
	}
	if holdsPrivateKey(t, store.Dir(), public) {
		t.Error("the private key of a request is on the disk")
	}
}
