// SPDX-License-Identifier: Apache-2.0

// Interop answers questions about notes and trees with the packages of the Go checksum database, so that tests can
// compare auditspan with an implementation that shares nothing with it. One JSON object per line in, one out.
package main

import (
	"bufio"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// A Question has the fields that its Op needs, and no others.
type Question struct {
	Op        string      `json:"op"`
	Entries   [][]byte    `json:"entries"`    // data of the entries, base64
	Size      int64       `json:"size"`       // of the (larger) tree
	Root      tlog.Hash   `json:"root"`       // of the (larger) tree
	Index     int64       `json:"index"`      // of an entry
	Leaf      tlog.Hash   `json:"leaf"`       // its leaf hash
	First     int64       `json:"first"`      // size of the smaller tree
	FirstRoot tlog.Hash   `json:"first_root"` // root of the smaller tree
	Proof     []tlog.Hash `json:"proof"`
	Name      string      `json:"name"` // of a key to make
	VKey      string      `json:"vkey"`
	Witness   string      `json:"witness"` // vkey of one, type 0x04
	Time      uint64      `json:"time"`    // of a cosignature, seconds since the epoch
	Text      string      `json:"text"`    // of a note to sign
	Note      []byte      `json:"note"`    // base64, as it need not be UTF-8
}

// An Answer says whether all is well, why not, and what was asked for.
type Answer struct {
	OK          bool        `json:"ok"`
	Error       string      `json:"error,omitempty"`
	Root        *tlog.Hash  `json:"root,omitempty"`
	Inclusion   []tlog.Hash `json:"inclusion"`
	Consistency []tlog.Hash `json:"consistency"`
	VKey        string      `json:"vkey,omitempty"`
	Note        []byte      `json:"note,omitempty"`
	Text        string      `json:"text,omitempty"`
	Size        int64       `json:"size,omitempty"`
}

func main() {
	lines := bufio.NewReaderSize(os.Stdin, 1<<20)
	answers := bufio.NewWriter(os.Stdout)
	decoder := json.NewDecoder(lines)
	decoder.DisallowUnknownFields() // a misspelt field must not be taken for an empty one
	encoder := json.NewEncoder(answers)
	for decoder.More() {
		var question Question
		if err := decoder.Decode(&question); err != nil {
			// A broken question is a broken test: nothing after it can be trusted.
			fmt.Fprintln(os.Stderr, "malformed question:", err)
			os.Exit(2)
		}
		answer, err := ask(question)
		answer.OK = err == nil
		if err != nil {
			answer.Error = err.Error()
		}
		if err := encoder.Encode(answer); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	if err := answers.Flush(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func ask(q Question) (Answer, error) {
	switch q.Op {
	case "prove":
		return prove(q)
	case "check inclusion":
		return Answer{}, tlog.CheckRecord(q.Proof, q.Size, q.Root, q.Index, q.Leaf)
	case "check consistency":
		return Answer{}, tlog.CheckTree(q.Proof, q.Size, q.Root, q.First, q.FirstRoot)
	case "check note":
		return checkNote(q)
	case "sign":
		return sign(q)
	case "check cosigned":
		return checkCosigned(q)
	case "cosign":
		return cosign(q)
	}
	return Answer{}, fmt.Errorf("unknown op %q", q.Op)
}

// prove computes the root of the tree of all entries, and proofs for the entry Index and the smaller tree First.
// A proof that cannot be asked for (Index or First below 0) is left out.
func prove(q Question) (Answer, error) {
	hashes, err := store(q.Entries)
	if err != nil {
		return Answer{}, err
	}
	size := int64(len(q.Entries))
	root, err := tlog.TreeHash(size, hashes)
	if err != nil {
		return Answer{}, err
	}
	answer := Answer{Root: &root}
	if q.Index >= 0 {
		if answer.Inclusion, err = tlog.ProveRecord(size, q.Index, hashes); err != nil {
			return answer, err
		}
	}
	if q.First >= 0 {
		if answer.Consistency, err = tlog.ProveTree(size, q.First, hashes); err != nil {
			return answer, err
		}
	}
	return answer, nil
}

// store returns the nodes of the tree in the order of the Go checksum database.
func store(entries [][]byte) (tlog.HashReader, error) {
	var stored []tlog.Hash
	read := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		found := make([]tlog.Hash, len(indexes))
		for at, index := range indexes {
			found[at] = stored[index]
		}
		return found, nil
	})
	for number, entry := range entries {
		added, err := tlog.StoredHashes(int64(number), entry, read)
		if err != nil {
			return nil, err
		}
		stored = append(stored, added...)
	}
	return read, nil
}

// checkNote verifies a note, and reads it as a checkpoint of the Go checksum database if it says to be one.
func checkNote(q Question) (Answer, error) {
	verifier, err := note.NewVerifier(q.VKey)
	if err != nil {
		return Answer{}, err
	}
	opened, err := note.Open(q.Note, note.VerifierList(verifier))
	if err != nil {
		return Answer{}, err
	}
	answer := Answer{Text: opened.Text}
	if tree, err := tlog.ParseTree([]byte(opened.Text)); err == nil {
		answer.Size, answer.Root = tree.N, &tree.Hash
	}
	return answer, nil
}

// sign makes a new key, and a note with it: of Text, or if that is empty of the checkpoint of Size and Root.
func sign(q Question) (Answer, error) {
	text := q.Text
	if text == "" {
		text = string(tlog.FormatTree(tlog.Tree{N: q.Size, Hash: q.Root}))
	}
	skey, vkey, err := note.GenerateKey(rand.Reader, q.Name)
	if err != nil {
		return Answer{}, err
	}
	signer, err := note.NewSigner(skey)
	if err != nil {
		return Answer{}, err
	}
	signed, err := note.Sign(&note.Note{Text: text}, signer)
	return Answer{VKey: vkey, Note: signed}, err
}
