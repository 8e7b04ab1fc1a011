// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/mod/sumdb/note"
)

// Cosignatures as https://c2sp.org/tlog-cosignature says, for the note package: it does the notes, this the one kind of
// signature that it does not know (type 0x04).

const typeCosignature = 0x04

// A cosigner is a note.Verifier, and with a private key a note.Signer.
type cosigner struct {
	name    string
	public  ed25519.PublicKey
	private ed25519.PrivateKey
	time    uint64 // of what it signs
}

func (c *cosigner) Name() string { return c.name }

func (c *cosigner) KeyHash() uint32 {
	id := sha256.Sum256(append([]byte(c.name+"\n\x04"), c.public...))
	return binary.BigEndian.Uint32(id[:4])
}

func (c *cosigner) message(text []byte, time uint64) []byte {
	return fmt.Appendf(nil, "cosignature/v1\ntime %d\n%s", time, text)
}

func (c *cosigner) Verify(text, signature []byte) bool {
	if len(signature) != 8+ed25519.SignatureSize {
		return false
	}
	return ed25519.Verify(c.public, c.message(text, binary.BigEndian.Uint64(signature)), signature[8:])
}

func (c *cosigner) Sign(text []byte) ([]byte, error) {
	signature := binary.BigEndian.AppendUint64(nil, c.time)
	return append(signature, ed25519.Sign(c.private, c.message(text, c.time))...), nil
}

func (c *cosigner) vkey() string {
	key := append([]byte{typeCosignature}, c.public...)
	return fmt.Sprintf("%s+%08x+%s", c.name, c.KeyHash(), base64.StdEncoding.EncodeToString(key))
}

func parseCosigner(vkey string) (*cosigner, error) {
	parts := strings.SplitN(vkey, "+", 3)
	if len(parts) != 3 {
		return nil, errors.New("malformed key of a witness")
	}
	key, err := base64.StdEncoding.DecodeString(parts[2])
	if err != nil || len(key) != 1+ed25519.PublicKeySize || key[0] != typeCosignature {
		return nil, errors.New("not the key of a witness")
	}
	c := &cosigner{name: parts[0], public: key[1:]}
	if c.vkey() != vkey {
		return nil, errors.New("the key ID does not fit")
	}
	return c, nil
}

// checkCosigned opens a note that must be signed by VKey and cosigned by Witness.
func checkCosigned(q Question) (Answer, error) {
	log, err := note.NewVerifier(q.VKey)
	if err != nil {
		return Answer{}, err
	}
	witness, err := parseCosigner(q.Witness)
	if err != nil {
		return Answer{}, err
	}
	opened, err := note.Open(q.Note, note.VerifierList(log, witness))
	if err != nil {
		return Answer{}, err
	}
	if len(opened.Sigs) != 2 {
		return Answer{}, fmt.Errorf("%d of 2 signatures are there", len(opened.Sigs))
	}
	return Answer{Text: opened.Text}, nil
}

// cosign adds a cosignature by a new key of Name, at Time, to a note signed by VKey.
func cosign(q Question) (Answer, error) {
	log, err := note.NewVerifier(q.VKey)
	if err != nil {
		return Answer{}, err
	}
	opened, err := note.Open(q.Note, note.VerifierList(log))
	if err != nil {
		return Answer{}, err
	}
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return Answer{}, err
	}
	c := &cosigner{q.Name, public, private, q.Time}
	cosigned, err := note.Sign(opened, c)
	return Answer{VKey: c.vkey(), Note: cosigned}, err
}
