// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"
	"unicode"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const maxLeaves = 65536

// A Batch is what one checkpoint adds to the log.
type Batch struct {
	note     []byte
	first    int64
	frontier []tlog.Hash
	leaves   []tlog.Hash
	problem  error // why it cannot be used
	text     string
	size     int64
	root     tlog.Hash
}

// An Entry is one line of a log file.
type Entry struct {
	statement []byte
	private   []byte
	index     int64 // that it claims
	begin     int64 // size of the tree before the batch of the checkpoint below it
	end       int64 // size of the tree after that
}

// base64Of reads base64 in its one canonical form.
func base64Of(text string) ([]byte, error) {
	data, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil || base64.StdEncoding.EncodeToString(data) != text { // Go overlooks line breaks
		return nil, errors.New("not canonical base64")
	}
	return data, nil
}

func hashesOf(value Value) ([]tlog.Hash, error) {
	text, ok := value.(string)
	if !ok {
		return nil, errors.New("no hashes")
	}
	joined, err := base64Of(text)
	if err != nil || len(joined)%tlog.HashSize != 0 || len(joined) > maxLeaves*tlog.HashSize {
		return nil, errors.New("no hashes")
	}
	var hashes []tlog.Hash
	for chunk := range slices.Chunk(joined, tlog.HashSize) {
		hashes = append(hashes, tlog.Hash(chunk))
	}
	return hashes, nil
}

// parseBatch reads a C line. An error: it is none, and the log cannot be read on.
func parseBatch(line []byte) (*Batch, error) {
	fields, err := parseLoose(line)
	if err != nil {
		return nil, err
	}
	text, isText := fields["note"].(string)
	first, isNumber := number(fields["first"])
	frontier, err1 := hashesOf(fields["frontier"])
	leaves, err2 := hashesOf(fields["leaves"])
	segments, isObject := fields["segments"].(Object)
	if err := errors.Join(err1, err2); err != nil || !isText || !isNumber || !isObject {
		return nil, errors.New("not a C line")
	}
	for _, position := range segments {
		pair, ok := position.(List)
		if !ok || len(pair) != 2 {
			return nil, errors.New("not a position")
		}
		for _, part := range pair {
			integer, ok := part.(Integer)
			if !ok || integer.Sign() < 0 || integer.BitLen() > 63 {
				return nil, errors.New("not a position")
			}
		}
	}
	batch := &Batch{note: []byte(text), first: first, frontier: frontier, leaves: leaves}
	batch.problem = batch.readNote()
	return batch, nil
}

// readNote reads the checkpoint in the note; whose signature it has is looked at later.
func (b *Batch) readNote() error {
	if bytes.ContainsFunc(b.note, func(char rune) bool { return char < 0x20 && char != '\n' }) {
		return errors.New("control character")
	}
	if len([]rune(string(b.note))) > 1_000_000 {
		return errors.New("too long")
	}
	at := bytes.LastIndex(b.note, []byte("\n\n"))
	if at < 0 || !bytes.HasSuffix(b.note, []byte("\n")) || at+2 >= len(b.note) {
		return errors.New("no signatures")
	}
	b.text = string(b.note[:at+1])
	lines := strings.Split(strings.TrimSuffix(string(b.note[at+2:]), "\n"), "\n")
	if len(lines) > 100 {
		return errors.New("too many signatures")
	}
	for _, line := range lines {
		name, encoded, found := strings.Cut(strings.TrimPrefix(line, "— "), " ")
		signature, err := base64Of(encoded)
		if !strings.HasPrefix(line, "— ") || !found || err != nil || len(signature) < 5 || !isName(name) {
			return errors.New("malformed signature")
		}
	}
	return b.readCheckpoint()
}

func (b *Batch) readCheckpoint() error {
	lines := strings.Split(b.text, "\n")
	if len(lines) < 4 || slices.Contains(lines[3:len(lines)-1], "") || lines[0] == "" {
		return errors.New("no checkpoint")
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil || strconv.FormatInt(size, 10) != lines[1] || size < 0 {
		return errors.New("no tree size")
	}
	root, err := base64Of(lines[2])
	if err != nil || len(root) != tlog.HashSize {
		return errors.New("no root hash")
	}
	b.size, b.root = size, tlog.Hash(root)
	return nil
}

func (b *Batch) origin() string { return strings.SplitN(b.text, "\n", 2)[0] }

// signedBy tells whether there are signatures by a key, and whether all of them verify. The work is Go's own; what
// this adds is that a bad one spoils the note even where a good one is there, too.
func (b *Batch) signedBy(key Key) (found, valid bool) {
	verifier, err := note.NewVerifier(key.text)
	if err != nil {
		return false, false
	}
	opened, err := note.Open(b.note, note.VerifierList(verifier))
	var invalid *note.InvalidSignatureError
	if errors.As(err, &invalid) {
		return true, false
	}
	if err != nil {
		return false, false
	}
	if len(opened.Sigs) == 0 {
		return false, false
	}
	// note.Open looks at one signature of each key only.
	for _, line := range strings.Split(string(b.note[len(b.text)+1:]), "\n") {
		name, encoded, _ := strings.Cut(strings.TrimPrefix(line, "— "), " ")
		signature, err := base64Of(encoded)
		if err == nil && name == key.name && len(signature) > 4 && bytes.Equal(signature[:4], key.id()) &&
			!ed25519.Verify(key.public, []byte(b.text), signature[4:]) {
			return true, false
		}
	}
	return true, true
}

// A Key is a vkey.
type Key struct {
	text   string
	name   string
	public ed25519.PublicKey
}

func isName(name string) bool {
	return name != "" && !strings.ContainsFunc(name, func(char rune) bool { return char == '+' || unicode.IsSpace(char) })
}

func (k Key) id() []byte {
	sum := sha256.Sum256([]byte(k.name + "\n\x01" + string(k.public)))
	return sum[:4]
}

func parseKey(text string) (Key, error) {
	text = strings.Trim(text, " \t\r\n")
	parts := strings.SplitN(text, "+", 3)
	if len(parts) != 3 || !isName(parts[0]) || len(text) > 10_000 {
		return Key{}, errors.New("no vkey")
	}
	raw, err := base64Of(parts[2])
	if err != nil || len(raw) != 33 || raw[0] != 1 {
		return Key{}, errors.New("no Ed25519 key")
	}
	key := Key{text: text, name: parts[0], public: raw[1:]}
	if fmt.Sprintf("%x", key.id()) != parts[1] {
		return Key{}, errors.New("the key ID does not fit")
	}
	return key, nil
}

// A Tree is a frontier: the roots of the perfect subtrees, largest first.
type Tree struct {
	size   int64
	hashes []tlog.Hash
}

func (t *Tree) append(leaf tlog.Hash) {
	node := leaf
	for size := t.size; size&1 == 1; size >>= 1 {
		last := len(t.hashes) - 1
		node = tlog.NodeHash(t.hashes[last], node)
		t.hashes = t.hashes[:last]
	}
	t.hashes = append(t.hashes, node)
	t.size++
}

func (t *Tree) root() tlog.Hash {
	if len(t.hashes) == 0 {
		return tlog.Hash(sha256.Sum256(nil))
	}
	root := t.hashes[len(t.hashes)-1]
	for at := len(t.hashes) - 2; at >= 0; at-- {
		root = tlog.NodeHash(t.hashes[at], root)
	}
	return root
}

func (t *Tree) copy() *Tree { return &Tree{t.size, slices.Clone(t.hashes)} }

// treeOf returns the tree after a batch, built from its frontier and leaf hashes.
func (b *Batch) treeOf() (*Tree, error) {
	ones := 0
	for size := b.first; size > 0; size >>= 1 {
		ones += int(size & 1)
	}
	if ones != len(b.frontier) {
		return nil, errors.New("the frontier does not fit")
	}
	tree := &Tree{b.first, slices.Clone(b.frontier)}
	for _, leaf := range b.leaves {
		tree.append(leaf)
	}
	return tree, nil
}

// A Log is a log directory, as it is on disk.
type Log struct {
	origin  string
	batches []*Batch
	entries []Entry
	torn    bool // something after the last checkpoint of a file
	damaged bool // a C line that is none
}

func readLog(folder string) (*Log, error) {
	origin, err := os.ReadFile(filepath.Join(folder, "origin"))
	if err != nil {
		return nil, err
	}
	found := &Log{origin: strings.TrimRight(string(origin), "\n")}
	names, err := filepath.Glob(filepath.Join(folder, "log", "*.log"))
	if err != nil {
		return nil, err
	}
	sort.Strings(names)
	for _, name := range names {
		content, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		if found.read(content); found.damaged {
			break
		}
	}
	return found, nil
}

func (l *Log) read(content []byte) {
	var pending []Entry
	for {
		line, rest, whole := bytes.Cut(content, []byte("\n"))
		if !whole {
			l.torn = l.torn || len(content) > 0 || len(pending) > 0
			return
		}
		content = rest
		checkpoint, isCheckpoint := bytes.CutPrefix(line, []byte("C "))
		if !isCheckpoint {
			if entry, ok := bytes.CutPrefix(line, []byte("E ")); ok {
				statement, private, _ := bytes.Cut(entry, []byte("\t"))
				pending = append(pending, Entry{statement: statement, private: private})
			} else {
				pending = append(pending, Entry{statement: line})
			}
			continue
		}
		batch, err := parseBatch(checkpoint)
		if err != nil || len(checkpoint)+2 > maxJSON {
			l.damaged = true
			return
		}
		for at := range pending {
			pending[at].index = batch.first + int64(at)
			pending[at].begin = batch.first
			pending[at].end = batch.first + int64(len(batch.leaves))
		}
		l.batches = append(l.batches, batch)
		l.entries = append(l.entries, pending...)
		pending = nil
	}
}
