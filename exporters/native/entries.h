// SPDX-License-Identifier: Apache-2.0
// Lines of a log file that are plain spans, for the verifier: what verify/entries.py says of them, and of no others.

#ifndef AUDITSPAN_ENTRIES_H
#define AUDITSPAN_ENTRIES_H

#include "attributes.h"
#include "documents.h"

typedef struct {
    Slice statement, segment, own, names[MAX_PRIVATE];
    uint64_t number, time;
    int personal;  // how many personal values there are
} Plain;

static uint64_t decimal(Slice digits) {
    uint64_t number = 0;
    for (size_t i = 0; i < digits.size; i++) number = number * 10 + (uint64_t)(digits.text[i] - '0');
    return number;
}

static Slice within(Slice quoted) { return (Slice){quoted.text + 1, quoted.size - 2}; }

static int value_of_base64(char c) {
    return c >= 'A' && c <= 'Z' ? c - 'A' : c >= 'a' && c <= 'z' ? c - 'a' + 26 : c >= '0' && c <= '9' ? c - '0' + 52
        : c == '+' ? 62 : c == '/' ? 63 : -1;
}

// 16 bytes in the one way in which they are written.
static int salt_of(Slice quoted, unsigned char salt[SALT]) {
    Slice text = within(quoted);
    uint32_t bits = 0;
    int count = 0, have = 0;
    if (text.size != 24 || memcmp(text.text + 22, "==", 2) != 0) return 0;
    for (int i = 0; i < 22; i++) {
        int value = value_of_base64(text.text[i]);
        if (value < 0) return 0;
        bits = bits << 6 | (uint32_t)value;
        have += 6;
        if (have >= 8) { have -= 8; salt[count++] = (unsigned char)(bits >> have); bits &= (1u << have) - 1; }
    }
    return count == SALT && bits == 0;
}

// Whether a text opens a commitment (docs/formats.md, commitments).
static int opens(Slice sealed, const Opening *opening, Out *scratch) {
    static const char domain[] = "auditspan/commitment/v1\n";
    unsigned char salt[SALT], found[32];
    Slice name = within(opening->name);
    if (opening->kind != '"' || !salt_of(opening->salt, salt)) return 0;
    scratch->size = 0;
    put(scratch, domain, sizeof domain - 1);
    put(scratch, (const char *)salt, SALT);
    put(scratch, name.text, name.size);
    put(scratch, "", 1);
    put(scratch, opening->value.text, opening->value.size);
    if (scratch->failed) return 0;
    sha256((const unsigned char *)scratch->start, scratch->size, found);
    scratch->size = 0;
    put_base64(scratch, found, 32);
    return !scratch->failed && is_slice((Slice){scratch->start, scratch->size}, within(sealed));
}

// Whether a line is the statement of a span in its one canonical form, with all personal values that it commits to.
static int is_plain(Slice line, Slice origin, Plain *plain, Out *scratch) {
    const char *tab = memchr(line.text, '\t', line.size);
    Opening openings[MAX_PRIVATE];
    Slice name, sealed, part, last = {NULL, 0};
    Rest rest;
    int count = 0;
    plain->statement = (Slice){line.text, tab ? (size_t)(tab - line.text) : line.size};
    plain->personal = 0;
    if (tab != NULL) {
        Line private = {NULL, (const unsigned char *)tab + 1, 0, line.size - plain->statement.size - 1, 0};
        count = openings_of(&private, openings);
        if (count < 1) return 0;
    }
    const unsigned char *begin = (const unsigned char *)line.text;
    In in = {begin, begin + plain->statement.size, 1};
    if (!is_utf8(in.at, in.end) || !NEXT_IS(&in, "{\"attributes\":{")) return 0;
    while (!NEXT_IS(&in, "}")) {
        if (last.text != NULL && !NEXT_IS(&in, ",")) return 0;
        if (!string_of(&in, &name) || has_escape(name) || !NEXT_IS(&in, ":")) return 0;
        if (last.text != NULL && !is_before(last, name)) return 0;
        last = name;
        if (next_byte(&in) != '{') {
            if (!value_of(&in, 62, &part)) return 0;
            continue;
        }
        int at = 0;
        if (!NEXT_IS(&in, "{\"commitment\":") || !string_of(&in, &sealed) || !digest(sealed) || !NEXT_IS(&in, "}")) return 0;
        while (at < count && !is_slice(openings[at].name, name)) at++;
        if (at == count || !opens(sealed, &openings[at], scratch)) return 0;
        plain->names[plain->personal++] = within(name);
    }
    if (plain->personal != count || !read_rest(&in, &rest)) return 0;
    Slice end = within(rest.end);
    plain->number = *rest.number.text == '-' ? 0 : decimal(rest.number);
    plain->time = decimal(end);
    plain->segment = rest.segment;
    plain->own = within(rest.own);
    return plain->number > 0 && end.size <= 19 && plain->time < (1ULL << 63) && !has_escape(rest.segment)
        && is_slice(rest.origin, origin);
}

PyDoc_STRVAR(plain_doc,
"plain(lines, begin, origin)\n--\n\n"
"Return what the verifier is to know of lines from one on, up to the first that is not the statement of a span in\n"
"canonical form with all personal values that it commits to.\n\n"
"Args:\n"
"    lines: a list of statements, each with its private part behind a TAB.\n"
"    begin: where to begin in it.\n"
"    origin: the log, as a statement says it.\n\n"
"Returns:\n"
"    lists of what a leaf hash is made of, segments, numbers and times, and a list of place, names of the personal\n"
"    values and span ID of those that have any.");

static PyObject *text_of(Slice slice) { return PyUnicode_FromStringAndSize(slice.text, (Py_ssize_t)slice.size); }

// Add an object to a list, and let go of it.
static int add(PyObject *list, PyObject *object) {
    int done = object != NULL && PyList_Append(list, object) == 0;
    Py_XDECREF(object);
    return done;
}

static PyObject *names_of(const Plain *plain) {
    PyObject *names = PyTuple_New(plain->personal);
    for (int i = 0; names != NULL && i < plain->personal; i++) {
        PyObject *name = text_of(plain->names[i]);
        if (name == NULL) Py_CLEAR(names);
        else PyTuple_SetItem(names, i, name);
    }
    return names;
}

static PyObject *plain(PyObject *module, PyObject *args) {
    PyObject *lines, *lists[5], *segment = NULL;
    const char *log;
    Py_ssize_t begin, log_size;
    (void)module;
    if (!PyArg_ParseTuple(args, "O!ny#", &PyList_Type, &lines, &begin, &log, &log_size)) return NULL;
    Slice origin = {log, (size_t)log_size}, last = {NULL, 0};
    Out scratch = {0};
    int good = 1;
    for (int i = 0; i < 5; i++) if ((lists[i] = PyList_New(0)) == NULL) good = 0;
    for (Py_ssize_t at = begin < 0 ? 0 : begin; good && at < PyList_Size(lines); at++) {
        PyObject *line = PyList_GetItem(lines, at), *input;
        Plain one;
        if (!PyBytes_Check(line) || PyBytes_Size(line) > LONGEST) break;
        if (!is_plain((Slice){PyBytes_AsString(line), (size_t)PyBytes_Size(line)}, origin, &one, &scratch)) break;
        if (last.text == NULL || !is_slice(last, one.segment)) {  // the lines that `last` is in are kept by the caller
            Py_XDECREF(segment);
            segment = text_of(within(last = one.segment));
        }
        if ((input = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)one.statement.size + 1)) != NULL) {
            char *to = PyBytes_AsString(input);
            *to = 0;  // RFC 6962, 2.1: what is hashed for a leaf
            memcpy(to + 1, one.statement.text, one.statement.size);
        }
        Py_XINCREF(segment);
        good = add(lists[0], input) & add(lists[1], segment) & add(lists[2], PyLong_FromUnsignedLongLong(one.number))
            & add(lists[3], PyLong_FromUnsignedLongLong(one.time));
        if (good && one.personal) {
            good = add(lists[4], Py_BuildValue("(nNN)", at - begin, names_of(&one), text_of(one.own)));
        }
    }
    Py_XDECREF(segment);
    free(scratch.start);
    PyObject *result = good ? PyTuple_New(5) : NULL;
    for (int i = 0; i < 5; i++) {
        if (result != NULL) PyTuple_SetItem(result, i, lists[i]);
        else Py_XDECREF(lists[i]);
    }
    return result;
}

#endif
