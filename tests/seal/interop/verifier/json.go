// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"math/big"
	"strconv"
	"strings"
	"unicode/utf8"
)

// docs/formats.md, Limits
const (
	maxJSON   = 1 << 24 // bytes
	maxDepth  = 254
	maxDigits = 640
)

// A Value is JSON: nil, bool, string, Integer, Double, List or Object.
type Value any

type (
	Integer struct{ big.Int }
	Double  string // as it is spelt
	List    []Value
	Object  map[string]Value
)

var errJSON = errors.New("not JSON, or not as the document says")

// A parser reads JSON. If it is strict, it takes nothing but the canonical form of statements (docs/formats.md §1).
type parser struct {
	data   []byte
	at     int
	strict bool
	plus   bool // an exponent with "+" was seen
	minus  bool // a positive exponent without one was seen
}

// parseCanonical reads JSON in its canonical form.
func parseCanonical(data []byte) (Object, error) { return parse(data, true) }

// parseLoose reads any JSON object; of a key that is there twice, the last one counts.
func parseLoose(data []byte) (Object, error) { return parse(data, false) }

func parse(data []byte, strict bool) (Object, error) {
	if len(data) > maxJSON || !utf8.Valid(data) {
		return nil, errJSON
	}
	p := &parser{data: data, strict: strict}
	value, err := p.value(1)
	if err != nil {
		return nil, err
	}
	p.space()
	object, ok := value.(Object)
	if p.at != len(data) || !ok || p.plus && p.minus {
		return nil, errJSON
	}
	return object, nil
}

func (p *parser) space() {
	for !p.strict && p.at < len(p.data) && bytes.IndexByte([]byte(" \t\r\n"), p.data[p.at]) >= 0 {
		p.at++
	}
}

func (p *parser) take(text string) bool {
	p.space()
	if !bytes.HasPrefix(p.data[p.at:], []byte(text)) {
		return false
	}
	p.at += len(text)
	return true
}

func (p *parser) value(depth int) (Value, error) {
	p.space()
	if p.at >= len(p.data) {
		return nil, errJSON
	}
	switch p.data[p.at] {
	case '{':
		return p.object(depth)
	case '[':
		return p.list(depth)
	case '"':
		return p.text()
	case 't':
		if p.take("true") {
			return true, nil
		}
	case 'f':
		if p.take("false") {
			return false, nil
		}
	case 'n':
		if p.take("null") {
			return nil, nil
		}
	default:
		return p.number()
	}
	return nil, errJSON
}

func (p *parser) object(depth int) (Value, error) {
	if depth > maxDepth {
		return nil, errJSON
	}
	p.at++
	object, last := Object{}, ""
	if p.take("}") {
		return object, nil
	}
	for {
		p.space()
		if p.at >= len(p.data) || p.data[p.at] != '"' {
			return nil, errJSON
		}
		key, err := p.text()
		if err != nil || !p.take(":") {
			return nil, errJSON
		}
		if p.strict && len(object) > 0 && key <= last { // Go compares strings by their bytes
			return nil, errJSON
		}
		if object[key], err = p.value(depth + 1); err != nil {
			return nil, err
		}
		last = key
		if p.take("}") {
			return object, nil
		}
		if !p.take(",") {
			return nil, errJSON
		}
	}
}

func (p *parser) list(depth int) (Value, error) {
	if depth > maxDepth {
		return nil, errJSON
	}
	p.at++
	list := List{}
	if p.take("]") {
		return list, nil
	}
	for {
		item, err := p.value(depth + 1)
		if err != nil {
			return nil, err
		}
		list = append(list, item)
		if p.take("]") {
			return list, nil
		}
		if !p.take(",") {
			return nil, errJSON
		}
	}
}

var shortEscapes = map[byte]rune{'"': '"', '\\': '\\', '/': '/', 'b': '\b', 't': '\t', 'n': '\n', 'f': '\f', 'r': '\r'}

func (p *parser) text() (string, error) {
	var out strings.Builder
	begin := p.at
	p.at++
	for p.at < len(p.data) {
		char := p.data[p.at]
		switch {
		case char == '"':
			p.at++
			if p.strict && !bytes.Equal(spell(out.String()), p.data[begin:p.at]) {
				return "", errJSON
			}
			return out.String(), nil
		case char < 0x20:
			return "", errJSON
		case char != '\\':
			out.WriteByte(char)
			p.at++
		case p.at+1 < len(p.data) && p.data[p.at+1] == 'u':
			char, err := p.escape()
			if err != nil {
				return "", err
			}
			out.WriteRune(char)
		default:
			if p.at+1 >= len(p.data) {
				return "", errJSON
			}
			short, known := shortEscapes[p.data[p.at+1]]
			if !known {
				return "", errJSON
			}
			out.WriteRune(short)
			p.at += 2
		}
	}
	return "", errJSON
}

func (p *parser) escape() (rune, error) {
	high, err := p.unit()
	if err != nil || high >= 0xdc00 && high <= 0xdfff {
		return 0, errJSON
	}
	if high < 0xd800 || high > 0xdbff {
		return high, nil
	}
	low, err := p.unit()
	if err != nil || low < 0xdc00 || low > 0xdfff {
		return 0, errJSON
	}
	return 0x10000 + (high-0xd800)<<10 + (low - 0xdc00), nil
}

func (p *parser) unit() (rune, error) {
	if p.at+6 > len(p.data) || p.data[p.at] != '\\' || p.data[p.at+1] != 'u' {
		return 0, errJSON
	}
	unit, err := strconv.ParseUint(string(p.data[p.at+2:p.at+6]), 16, 16)
	p.at += 6
	return rune(unit), err
}

// spell writes a string in its canonical form.
func spell(text string) []byte {
	const digits = "0123456789abcdef"
	out := []byte{'"'}
	for at := 0; at < len(text); at++ {
		switch char := text[at]; {
		case char == '"' || char == '\\':
			out = append(out, '\\', char)
		case char >= 0x20:
			out = append(out, char)
		case char == '\b':
			out = append(out, `\b`...)
		case char == '\t':
			out = append(out, `\t`...)
		case char == '\n':
			out = append(out, `\n`...)
		case char == '\f':
			out = append(out, `\f`...)
		case char == '\r':
			out = append(out, `\r`...)
		default:
			out = append(out, '\\', 'u', '0', '0', digits[char>>4], digits[char&15])
		}
	}
	return append(out, '"')
}

func (p *parser) number() (Value, error) {
	begin := p.at
	for p.at < len(p.data) && bytes.IndexByte([]byte("+-.0123456789eE"), p.data[p.at]) >= 0 {
		p.at++
	}
	spelt := string(p.data[begin:p.at])
	digits := strings.TrimPrefix(spelt, "-")
	if !isNumber(digits) {
		return nil, errJSON
	}
	if !strings.ContainsAny(spelt, ".eE") {
		integer := Integer{}
		if len(digits) > 20 { // far beyond all that is allowed bare
			if p.strict {
				return nil, errJSON
			}
			return Double(spelt), nil
		}
		integer.SetString(spelt, 10)
		if p.strict && (spelt == "-0" || !integer.isSafe()) {
			return nil, errJSON
		}
		return integer, nil
	}
	number, err := strconv.ParseFloat(spelt, 64)
	if err != nil { // infinite
		return nil, errJSON
	}
	if p.strict {
		switch canonical := spellDouble(number); {
		case spelt == canonical && !strings.Contains(canonical, "e+"):
		case spelt == canonical:
			p.plus = true
		case spelt == strings.Replace(canonical, "e+", "e", 1):
			p.minus = true
		default:
			return nil, errJSON
		}
	}
	return Double(spelt), nil
}

// isNumber tells whether digits are a number of JSON without its sign.
func isNumber(text string) bool {
	whole := len(text) - len(strings.TrimLeft(text, "0123456789"))
	if whole == 0 || whole > 1 && text[0] == '0' {
		return false
	}
	rest := text[whole:]
	if fraction, ok := strings.CutPrefix(rest, "."); ok {
		rest = strings.TrimLeft(fraction, "0123456789")
		if rest == fraction {
			return false
		}
	}
	if rest == "" {
		return true
	}
	if rest[0] != 'e' && rest[0] != 'E' {
		return false
	}
	rest = rest[1:]
	if rest != "" && (rest[0] == '+' || rest[0] == '-') {
		rest = rest[1:]
	}
	return rest != "" && strings.TrimLeft(rest, "0123456789") == ""
}

// spellDouble writes a double in its canonical form, positive exponents with "+".
func spellDouble(number float64) string {
	if number == 0 {
		if strconv.FormatFloat(number, 'g', -1, 64) == "-0" {
			return "-0.0"
		}
		return "0.0"
	}
	spelt := strconv.FormatFloat(number, 'e', -1, 64) // d.ddde±xx, the shortest digits
	mantissa, exponent, _ := strings.Cut(spelt, "e")
	power, _ := strconv.Atoi(exponent)
	if k := power + 1; k >= -4 && k <= 16 {
		plain := strconv.FormatFloat(number, 'f', -1, 64)
		if !strings.Contains(plain, ".") {
			plain += ".0"
		}
		return plain
	}
	sign := ""
	if power > 0 {
		sign = "+"
	}
	return mantissa + "e" + sign + strconv.Itoa(power)
}

func (i *Integer) isSafe() bool {
	bound := new(big.Int).Lsh(big.NewInt(1), 53)
	return i.CmpAbs(bound) <= 0
}

// number returns an integer between 0 and 2^62.
func number(value Value) (int64, bool) {
	integer, ok := value.(Integer)
	if !ok || integer.Sign() < 0 || integer.BitLen() > 63 || integer.Int64() > 1<<62 {
		return 0, false
	}
	return integer.Int64(), true
}

// encode writes JSON in its canonical form.
func encode(value Value) []byte {
	var out bytes.Buffer
	switch value := value.(type) {
	case nil:
		out.WriteString("null")
	case bool:
		out.WriteString(strconv.FormatBool(value))
	case string:
		out.Write(spell(value))
	case Integer:
		out.WriteString(value.String())
	case Double:
		out.WriteString(string(value))
	case List:
		for at, item := range value {
			out.WriteByte("[,"[min(at, 1)])
			out.Write(encode(item))
		}
		if len(value) == 0 {
			out.WriteByte('[')
		}
		out.WriteByte(']')
	case Object:
		out.WriteByte('{')
		for at, key := range sortedKeys(value) {
			if at > 0 {
				out.WriteByte(',')
			}
			out.Write(spell(key))
			out.WriteByte(':')
			out.Write(encode(value[key]))
		}
		out.WriteByte('}')
	}
	return out.Bytes()
}
