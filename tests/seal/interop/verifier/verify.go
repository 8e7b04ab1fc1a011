// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"math/big"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/tlog"
)

// A Report is the verdict with the reason codes of docs/formats.md §11, each once, sorted.
type Report struct {
	Verdict string   `json:"verdict"`
	Codes   []string `json:"codes"`
	Size    int64    `json:"size"`
	Records int      `json:"records"`
	Erased  int      `json:"erased"`
}

var verdicts = map[string]string{
	"prefix_missing": "INCOMPLETE", "entry_uncovered": "INCOMPLETE", "torn_tail": "INCOMPLETE",
	"recorded_not_sequenced": "INCOMPLETE", "gap_entry": "INCOMPLETE", "erased_value_present": "INCOMPLETE",
	"log_silent": "INCOMPLETE", "no_checkpoint": "UNVERIFIABLE", "no_key": "UNVERIFIABLE", "nothing_found": "UNVERIFIABLE",
}

func (r *Report) find(code string) {
	if !slices.Contains(r.Codes, code) {
		r.Codes = append(r.Codes, code)
	}
}

func (r *Report) judge() *Report {
	sort.Strings(r.Codes)
	r.Verdict = "PASSED"
	for _, verdict := range []string{"INCOMPLETE", "UNVERIFIABLE", "FAILED"} {
		for _, code := range r.Codes {
			if verdicts[code] == verdict || verdict == "FAILED" && verdicts[code] == "" {
				r.Verdict = verdict
			}
		}
	}
	return r
}

type span struct{ begin, end int64 }

type erased struct {
	index int64
	name  string
}

// A verification holds what is known of one log.
type verification struct {
	*Report
	log      *Log
	tree     *Tree
	roots    map[int64]tlog.Hash
	places   map[tlog.Hash]int64 // leaf hash -> index that is signed for
	chained  []*Batch
	unproven []span
	found    map[int64]Entry
	fields   map[int64]Object // of the entries that are canonical statements
	altered  map[int64]bool   // indexes that an altered statement claims
	bridged  map[int64]bool   // indexes whose own checkpoint is missing
	erased   map[erased]int64 // -> index of the erasure entry
}

// Verify checks a log, with a pinned key or with the one that it names itself.
func Verify(log *Log, pinned *Key) *Report {
	v := &verification{
		Report: &Report{Codes: []string{}}, log: log, tree: &Tree{},
		roots: map[int64]tlog.Hash{}, places: map[tlog.Hash]int64{}, found: map[int64]Entry{},
		fields: map[int64]Object{}, altered: map[int64]bool{}, bridged: map[int64]bool{}, erased: map[erased]int64{},
	}
	v.roots[0] = v.tree.root()
	if log.torn {
		v.find("torn_tail")
	}
	if log.damaged {
		v.find("log_damaged")
	}
	if len(log.batches) == 0 && len(log.entries) == 0 {
		v.find("nothing_found")
		return v.judge()
	}
	v.chain()
	v.place()
	v.keys(pinned)
	v.entries()
	v.Size = v.tree.size
	return v.judge()
}

// chain puts the checkpoints into one tree.
func (v *verification) chain() {
	var readable []*Batch
	end := int64(0)
	for _, batch := range v.log.batches {
		tree, err := batch.treeOf()
		if batch.problem != nil || err != nil || batch.origin() != v.log.origin ||
			batch.size != tree.size || batch.root != tree.root() {
			v.find("checkpoint_invalid")
			continue
		}
		if batch.size < end {
			v.find("log_damaged") // not in the order in which it was written
		}
		end = max(end, batch.size)
		readable = append(readable, batch)
	}
	sort.SliceStable(readable, func(i, j int) bool {
		one, two := readable[i], readable[j]
		return one.first < two.first || one.first == two.first && one.size < two.size
	})
	for _, batch := range readable {
		switch {
		case batch.first < v.tree.size:
			if root, known := v.roots[batch.size]; !known || root != batch.root {
				v.find("checkpoint_conflict")
			} else {
				v.find("log_damaged") // it stands there twice
			}
			continue
		case batch.first > v.tree.size:
			v.bridge(batch)
		case !slices.Equal(batch.frontier, v.tree.hashes):
			v.find("checkpoint_conflict")
			continue
		}
		for at, leaf := range batch.leaves {
			v.places[leaf] = batch.first + int64(at)
		}
		v.tree, _ = batch.treeOf()
		v.roots[batch.size] = batch.root
		v.chained = append(v.chained, batch)
	}
	if len(v.chained) == 0 {
		v.find("no_checkpoint")
	}
}

// bridge gets over a missing checkpoint, if entries that claim its indexes lead to the frontier of the next one.
func (v *verification) bridge(batch *Batch) {
	claims := map[int64]tlog.Hash{}
	for _, entry := range v.log.entries {
		if _, known := claims[entry.index]; !known {
			claims[entry.index] = tlog.RecordHash(entry.statement)
		}
	}
	tree, proven := v.tree.copy(), false
	var leaves []tlog.Hash
	for index := v.tree.size; index < batch.first; index++ {
		leaf, known := claims[index]
		if !known {
			break
		}
		leaves = append(leaves, leaf)
		tree.append(leaf)
	}
	proven = tree.size == batch.first && slices.Equal(tree.hashes, batch.frontier)
	if proven {
		for at, leaf := range leaves {
			v.places[leaf] = v.tree.size + int64(at)
			v.bridged[v.tree.size+int64(at)] = true
		}
	} else {
		v.unproven = append(v.unproven, span{v.tree.size, batch.first})
	}
	if v.tree.size == 0 && !proven {
		v.find("prefix_missing")
	} else {
		v.find("checkpoint_missing")
	}
}

// place finds the index of each entry by its leaf hash.
func (v *verification) place() {
	last := int64(-1)
	for _, entry := range v.log.entries {
		index, known := v.places[tlog.RecordHash(entry.statement)]
		if known {
			if index < last || index >= entry.end || index < entry.begin && !v.bridged[index] {
				v.find("log_damaged") // not in the order that was signed
			}
			last = max(last, index)
			if _, twice := v.found[index]; twice {
				v.find("duplicate_document")
				continue
			}
			v.found[index] = entry
			continue
		}
		if entry.index >= v.tree.size && entry.end > v.tree.size {
			v.find("entry_uncovered") // its checkpoint could not be used
			continue
		}
		// Also where nothing proves what was there: retention removes files as a whole.
		v.altered[entry.index] = true
		v.find("statement_altered")
	}
}

// keys follows the chain of keys, and checks the signatures of all checkpoints.
func (v *verification) keys(pinned *Key) {
	var chain []Key
	if pinned != nil && pinned.name != v.log.origin {
		v.find("no_key")
		v.find("no_checkpoint")
		return
	}
	if entry, ok := v.found[0]; ok {
		if fields, err := statementOf(entry.statement); err == nil && fields["type"] == "genesis" {
			text, _ := fields["key"].(string)
			if key, err := parseKey(text); err == nil {
				chain = append(chain, key)
			}
		}
	}
	if len(chain) == 0 && pinned != nil {
		chain = append(chain, *pinned)
	}
	if len(chain) == 0 {
		if len(v.chained) > 0 {
			v.find("no_key")
		}
		return
	}
	if pinned != nil && !v.vouches(*pinned, chain[0]) {
		chain = []Key{*pinned} // somebody else's log, or a key from before what is there
	}
	for _, batch := range v.chained {
		due := []Key{chain[len(chain)-1]}
		for index := batch.first; index < batch.size; index++ {
			if next, isRotation := v.rotation(index, chain); isRotation {
				if next == nil {
					v.find("key_change_invalid")
					continue
				}
				chain, due = append(chain, *next), append(due, *next)
			}
		}
		some, all := false, true
		for _, key := range due {
			found, valid := batch.signedBy(key)
			if found && !valid {
				v.find("checkpoint_invalid")
				some, all = true, true
				break
			}
			some, all = some || found, all && found
		}
		if !some {
			v.find("wrong_key")
		} else if !all {
			v.find("key_change_invalid")
		}
	}
}

// vouches tells whether the pinned key is one of the chain that begins with the key of genesis.
func (v *verification) vouches(pinned, first Key) bool {
	chain := []Key{first}
	for index := int64(0); index < v.tree.size; index++ {
		if next, isRotation := v.rotation(index, chain); isRotation && next != nil {
			chain = append(chain, *next)
		}
	}
	return slices.ContainsFunc(chain, func(key Key) bool { return bytes.Equal(key.public, pinned.public) })
}

// rotation returns the new key of a rotation entry; nil if it does not count.
func (v *verification) rotation(index int64, chain []Key) (*Key, bool) {
	entry, ok := v.found[index]
	if !ok || !bytes.Contains(entry.statement, []byte(`"type":"rotation"`)) {
		return nil, false
	}
	fields, err := statementOf(entry.statement)
	if err != nil || fields["type"] != "rotation" {
		return nil, false
	}
	texts := map[string]string{}
	for _, name := range []string{"origin", "old", "new"} {
		texts[name], _ = fields[name].(string)
	}
	stated, isNumber := number(fields["index"])
	older, err1 := parseKey(texts["old"])
	newer, err2 := parseKey(texts["new"])
	certificates, isObject := fields["certificates"].(Object)
	current := chain[len(chain)-1]
	if err1 != nil || err2 != nil || !isNumber || !isObject || stated != index || texts["origin"] != v.log.origin ||
		older.name != v.log.origin || newer.name != v.log.origin || !bytes.Equal(older.public, current.public) ||
		slices.ContainsFunc(chain, func(key Key) bool { return bytes.Equal(key.public, newer.public) }) {
		return nil, true
	}
	notAfter := "-"
	if value, there := fields["not_after"]; there {
		if notAfter, _ = value.(string); !isDecimal(notAfter) {
			return nil, true
		}
	}
	text := strings.Join([]string{
		"auditspan/key-rotation/v1", v.log.origin, strconv.FormatInt(index, 10), texts["old"], texts["new"], notAfter, "",
	}, "\n")
	for name, key := range map[string]Key{"old": older, "new": newer} {
		encoded, _ := certificates[name].(string)
		signature, err := base64Of(encoded)
		if err != nil || !ed25519.Verify(key.public, []byte(text), signature) {
			return nil, true
		}
	}
	return &newer, true
}

// entries checks what each entry says.
func (v *verification) entries() {
	control := false
	missing := len(v.unproven) > 0
	for _, index := range v.places {
		if _, there := v.found[index]; !there {
			missing = true
			if !v.altered[index] {
				v.find("entry_missing")
			}
		}
	}
	for index, entry := range v.found {
		if fields, err := statementOf(entry.statement); err == nil {
			v.fields[index] = fields
			control = control || index == 0 && fields["type"] == "genesis" && fields["control"] == true
		}
	}
	for index, fields := range v.fields {
		if fields["type"] == "erasure" {
			segment, _ := fields["segment"].(string)
			if control && !strings.HasPrefix(segment, "control-") {
				v.find("entry_not_allowed")
				continue
			}
			v.erase(index, fields)
		}
	}
	numbers := map[string]map[int64]bool{}
	for index, entry := range v.found {
		if fields, ok := v.fields[index]; !ok || !v.entry(index, entry, fields, numbers) {
			v.find("statement_altered")
		}
	}
	for _, seen := range numbers {
		highest, count := int64(0), int64(0)
		for number := range seen {
			highest, count = max(highest, number), count+min(number, 1)
		}
		if !missing && highest != count {
			v.find("record_missing")
		}
	}
}

// erase takes note of what an erasure entry says; it is no licence for the future.
func (v *verification) erase(at int64, fields Object) {
	list, _ := fields["erased"].(List)
	for _, item := range list {
		if pair, ok := item.(List); ok && len(pair) == 2 {
			index, isNumber := number(pair[0])
			name, isText := pair[1].(string)
			if isNumber && isText && index < at {
				if _, known := v.erased[erased{index, name}]; !known {
					v.erased[erased{index, name}] = at
				}
			}
		}
	}
}

// entry checks one entry; false: it is not what it says to be.
func (v *verification) entry(index int64, entry Entry, fields Object, numbers map[string]map[int64]bool) bool {
	kind := fields["type"]
	if kind == "span" || kind == "erasure" || kind == "gap" {
		segment, isText := fields["segment"].(string)
		number, isNumber := number(fields["number"])
		if !isText || !isNumber {
			return false
		}
		if number > 0 || kind != "gap" {
			if numbers[segment] == nil {
				numbers[segment] = map[int64]bool{}
			}
			if numbers[segment][number] {
				v.find("duplicate_document")
			}
			numbers[segment][number] = true
		}
	}
	if kind == "gap" {
		v.find("gap_entry")
	}
	if kind == "span" {
		v.Records++
		if !v.personal(index, entry, fields) {
			return false
		}
	}
	return fields["origin"] == v.log.origin
}

// personal checks the personal values of an entry (docs/formats.md §5); false: an attribute is of no known form.
func (v *verification) personal(index int64, entry Entry, fields Object) bool {
	attributes, ok := fields["attributes"].(Object)
	if !ok {
		return true
	}
	private, readable := privateOf(entry.private)
	if !readable {
		v.find("field_mismatch")
	}
	for name, value := range attributes {
		form, isObject := value.(Object)
		if !isObject {
			continue
		}
		if !isForm(form) {
			return false
		}
		commitment, isCommitment := form["commitment"].(string)
		if !isCommitment {
			continue
		}
		opening, there := private[name]
		_, gone := v.erased[erased{index, name}]
		switch {
		case gone && there:
			v.find("erased_value_present")
		case gone:
			v.Erased++
		case !there:
			v.find("value_removed")
		case !opening.opens(commitment, name):
			v.find("field_mismatch")
		}
	}
	for name := range private {
		if _, isObject := attributes[name].(Object); !isObject {
			v.find("field_mismatch")
		}
	}
	return true
}

type opening struct {
	salt  string
	value Value
}

func (o opening) opens(commitment, name string) bool {
	salt, err := base64Of(o.salt)
	if err != nil || len(salt) != 16 {
		return false
	}
	var content bytes.Buffer
	content.WriteString("auditspan/commitment/v1\n")
	content.Write(salt)
	content.WriteString(name)
	content.WriteByte(0)
	content.Write(encode(o.value))
	sum := sha256.Sum256(content.Bytes())
	return base64.StdEncoding.EncodeToString(sum[:]) == commitment
}

func privateOf(content []byte) (map[string]opening, bool) {
	content = bytes.Trim(content, " ")
	if len(content) == 0 {
		return nil, true
	}
	fields, err := parseLoose(content)
	if err != nil {
		return nil, false
	}
	found := map[string]opening{}
	for name, item := range fields {
		pair, ok := item.(List)
		if !ok || len(pair) != 2 {
			return nil, false
		}
		salt, ok := pair[0].(string)
		if !ok {
			return nil, false
		}
		found[name] = opening{salt, pair[1]}
	}
	return found, true
}

// statementOf reads a statement of a version that is known.
func statementOf(data []byte) (Object, error) {
	fields, err := parseCanonical(data)
	if err != nil {
		return nil, err
	}
	version, isNumber := number(fields["v"])
	if _, isText := fields["type"].(string); !isText || !isNumber || version != 1 && version != 2 {
		return nil, errJSON
	}
	return fields, nil
}

func isStatement(data []byte) bool {
	fields, err := statementOf(data)
	if err != nil {
		return false
	}
	attributes, _ := fields["attributes"].(Object)
	for _, value := range attributes {
		if !isAttribute(value) {
			return false
		}
	}
	return true
}

func leafOf(data []byte) string {
	leaf := tlog.RecordHash(data)
	return hex.EncodeToString(leaf[:])
}

func isAttribute(value Value) bool {
	switch value := value.(type) {
	case List:
		return !slices.ContainsFunc(value, func(item Value) bool { return !isAttribute(item) })
	case Object:
		return isForm(value)
	}
	return true
}

var decimal = regexp.MustCompile(`^-?[1-9][0-9]*$`)

// isForm tells whether an object is one of the typed forms of attribute values.
func isForm(form Object) bool {
	if len(form) != 1 {
		return false
	}
	for kind, value := range form {
		if inner, isObject := value.(Object); isObject && kind == "map" {
			for _, item := range inner {
				if !isAttribute(item) {
					return false
				}
			}
			return true
		}
		text, isText := value.(string)
		if !isText {
			return false
		}
		data, err := base64Of(text)
		switch kind {
		case "int":
			integer, ok := new(big.Int).SetString(text, 10)
			return ok && len(strings.TrimPrefix(text, "-")) <= maxDigits && decimal.MatchString(text) &&
				integer.CmpAbs(new(big.Int).Lsh(big.NewInt(1), 53)) > 0
		case "double":
			return text == "NaN" || text == "Infinity" || text == "-Infinity"
		case "bytes":
			return err == nil
		case "commitment":
			return err == nil && len(data) == 32
		}
	}
	return false
}

func isDecimal(text string) bool {
	number, err := strconv.ParseInt(text, 10, 64)
	return err == nil && number >= 0 && strconv.FormatInt(number, 10) == text
}

func sortedKeys(object Object) []string {
	keys := make([]string, 0, len(object))
	for key := range object {
		keys = append(keys, key)
	}
	sort.Strings(keys)
	return keys
}
