// SPDX-License-Identifier: Apache-2.0

// Verifier checks log directories of auditspan. It is written from docs/formats.md alone, shares nothing with the one
// in Python, and must come to the same verdict. One JSON object per line in, one out:
//
//	{"path": "/a/log/directory", "vkey": "pinned key, or empty"} -> {"verdict": "FAILED", "codes": ["entry_missing"], …}
//	{"statement": "base64"} -> {"ok": true, "leaf": "leaf hash, hexadecimal"}
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
)

func main() {
	answers := bufio.NewWriter(os.Stdout)
	decoder, encoder := json.NewDecoder(bufio.NewReader(os.Stdin)), json.NewEncoder(answers)
	decoder.DisallowUnknownFields()
	for decoder.More() {
		var question struct{ Path, VKey, Statement *string }
		if err := decoder.Decode(&question); err != nil {
			fail(err)
		}
		answer, err := answerTo(question.Path, question.VKey, question.Statement)
		if err != nil {
			fail(err)
		}
		if err := encoder.Encode(answer); err != nil {
			fail(err)
		}
	}
	if err := answers.Flush(); err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(2)
}

// answerTo verifies a log directory, or (for the test vectors) tells whether base64 of a statement is canonical.
func answerTo(path, vkey, statement *string) (any, error) {
	if statement != nil {
		data, err := base64Of(*statement)
		if err != nil {
			return nil, err
		}
		return struct {
			OK   bool   `json:"ok"`
			Leaf string `json:"leaf"`
		}{isStatement(data), leafOf(data)}, nil
	}
	var pinned *Key
	if vkey != nil && *vkey != "" {
		key, err := parseKey(*vkey)
		if err != nil {
			return nil, err
		}
		pinned = &key
	}
	log, err := readLog(*path)
	if err != nil {
		return nil, err
	}
	return Verify(log, pinned), nil
}
