// SPDX-License-Identifier: Apache-2.0

// Command statehash computes state hashes of JSON texts, written from docs/state-hash.md alone.
//
// Each line of its input is a JSON string whose content is a JSON text; each line of its output is an object with
// "canonical" and "hash", or with "error".
package main

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"os"
	"sort"
	"strconv"
	"strings"
	"unicode/utf8"
)

// reader reads a JSON text (RFC 8259) and writes the canonical form of what it reads. encoding/json is no help here:
// it replaces lone surrogates and drops keys that are there twice.
type reader struct {
	text string
	at   int
}

var errEnd = errors.New("the text ends too early")

func canonical(text string) (string, error) {
	r := &reader{text: text}
	form, err := r.value()
	if err != nil {
		return "", err
	}
	r.space()
	if r.at != len(r.text) {
		return "", fmt.Errorf("there is more after the value, at byte %d", r.at)
	}
	return form, nil
}

func (r *reader) space() {
	for r.at < len(r.text) && strings.IndexByte(" \t\r\n", r.text[r.at]) >= 0 {
		r.at++
	}
}

// next skips spaces and returns the byte that follows, 0 at the end.
func (r *reader) next() byte {
	r.space()
	if r.at == len(r.text) {
		return 0
	}
	return r.text[r.at]
}

func (r *reader) value() (string, error) {
	switch c := r.next(); {
	case c == '{':
		return r.object()
	case c == '[':
		return r.array()
	case c == '"':
		return r.str()
	case c == '-' || '0' <= c && c <= '9':
		return r.number()
	}
	for _, word := range []string{"null", "true", "false"} {
		if strings.HasPrefix(r.text[r.at:], word) {
			r.at += len(word)
			return word, nil
		}
	}
	return "", fmt.Errorf("no value at byte %d", r.at)
}

func (r *reader) array() (string, error) {
	r.at++
	var items []string
	for r.next() != ']' {
		if len(items) > 0 {
			if r.next() != ',' {
				return "", fmt.Errorf("no comma at byte %d", r.at)
			}
			r.at++
		}
		item, err := r.value()
		if err != nil {
			return "", err
		}
		items = append(items, item)
	}
	r.at++
	return "[" + strings.Join(items, ",") + "]", nil
}

func (r *reader) object() (string, error) {
	r.at++
	var entries []string
	keys := map[string]bool{}
	for r.next() != '}' {
		if len(entries) > 0 {
			if r.next() != ',' {
				return "", fmt.Errorf("no comma at byte %d", r.at)
			}
			r.at++
		}
		if r.next() != '"' {
			return "", fmt.Errorf("no key at byte %d", r.at)
		}
		key, err := r.str()
		if err != nil {
			return "", err
		}
		if keys[key] {
			return "", errors.New("an object has the same key twice")
		}
		keys[key] = true
		if r.next() != ':' {
			return "", fmt.Errorf("no colon at byte %d", r.at)
		}
		r.at++
		value, err := r.value()
		if err != nil {
			return "", err
		}
		entries = append(entries, key+":"+value)
	}
	r.at++
	sort.Strings(entries) // Go compares strings by their bytes
	return "{" + strings.Join(entries, ",") + "}", nil
}

func (r *reader) str() (string, error) {
	r.at++
	var points []rune
	for {
		if r.at >= len(r.text) {
			return "", errEnd
		}
		c := r.text[r.at]
		if c == '"' {
			r.at++
			return quote(points), nil
		}
		if c == '\\' {
			point, err := r.escape()
			if err != nil {
				return "", err
			}
			// A high surrogate before a low one is one code point.
			if last := len(points) - 1; last >= 0 && isHigh(points[last]) && isLow(point) {
				points[last] = 0x10000 + (points[last]-0xD800)<<10 + (point - 0xDC00)
			} else {
				points = append(points, point)
			}
			continue
		}
		point, size := utf8.DecodeRuneInString(r.text[r.at:])
		if c < 0x20 || point == utf8.RuneError && size == 1 {
			return "", fmt.Errorf("no character of a string at byte %d", r.at)
		}
		points = append(points, point)
		r.at += size
	}
}

func isHigh(point rune) bool { return 0xD800 <= point && point <= 0xDBFF }
func isLow(point rune) bool  { return 0xDC00 <= point && point <= 0xDFFF }

func (r *reader) escape() (rune, error) {
	if r.at+1 >= len(r.text) {
		return 0, errEnd
	}
	c := r.text[r.at+1]
	r.at += 2
	if c == 'u' {
		if r.at+4 > len(r.text) {
			return 0, errEnd
		}
		point, err := strconv.ParseUint(r.text[r.at:r.at+4], 16, 32)
		r.at += 4
		return rune(point), err
	}
	if at := strings.IndexByte(`"\/bfnrt`, c); at >= 0 {
		return rune("\"\\/\b\f\n\r\t"[at]), nil
	}
	return 0, fmt.Errorf("no such escape at byte %d", r.at)
}

func quote(points []rune) string {
	var out strings.Builder
	out.WriteByte('"')
	for _, point := range points {
		switch {
		case point == '"' || point == '\\':
			out.WriteByte('\\')
			out.WriteRune(point)
		case point < 0x20 && strings.IndexByte("\b\t\n\f\r", byte(point)) >= 0:
			out.WriteByte('\\')
			out.WriteByte("btnfr"[strings.IndexByte("\b\t\n\f\r", byte(point))])
		case point < 0x20 || isHigh(point) || isLow(point):
			fmt.Fprintf(&out, `\u%04x`, point)
		default:
			out.WriteRune(point)
		}
	}
	out.WriteByte('"')
	return out.String()
}

// digits reads digits and returns them; there must be one.
func (r *reader) digits() (string, error) {
	start := r.at
	for r.at < len(r.text) && '0' <= r.text[r.at] && r.text[r.at] <= '9' {
		r.at++
	}
	if r.at == start {
		return "", fmt.Errorf("no digit at byte %d", r.at)
	}
	return r.text[start:r.at], nil
}

// take reads one of some bytes if it is there.
func (r *reader) take(any string) string {
	if r.at < len(r.text) && strings.IndexByte(any, r.text[r.at]) >= 0 {
		r.at++
		return r.text[r.at-1 : r.at]
	}
	return ""
}

func (r *reader) number() (string, error) {
	sign := r.take("-")
	whole, err := r.digits()
	if err != nil {
		return "", err
	}
	if len(whole) > 1 && whole[0] == '0' {
		return "", fmt.Errorf("a number begins with 0 at byte %d", r.at)
	}
	part := ""
	if r.take(".") != "" {
		if part, err = r.digits(); err != nil {
			return "", err
		}
	}
	exponent := new(big.Int)
	if r.take("eE") != "" {
		minus := r.take("+-") == "-"
		spelled, err := r.digits()
		if err != nil {
			return "", err
		}
		exponent.SetString(spelled, 10)
		if minus {
			exponent.Neg(exponent)
		}
	}
	all := whole + part
	short := strings.TrimRight(all, "0")
	exponent.Add(exponent, big.NewInt(int64(len(all)-len(short)-len(part))))
	short = strings.TrimLeft(short, "0")
	if short == "" {
		return "0e0", nil
	}
	return sign + short + "e" + exponent.String(), nil
}

func main() {
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 1<<26)
	out := bufio.NewWriter(os.Stdout)
	encoder := json.NewEncoder(out)
	for in.Scan() {
		var text string
		answer := map[string]string{}
		err := json.Unmarshal(in.Bytes(), &text)
		if err == nil {
			var form string
			if form, err = canonical(text); err == nil {
				sum := sha256.Sum256([]byte(form))
				answer["canonical"], answer["hash"] = form, "sha256:"+hex.EncodeToString(sum[:])
			}
		}
		if err != nil {
			answer["error"] = err.Error()
		}
		if err := encoder.Encode(answer); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	if err := errors.Join(in.Err(), out.Flush()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
