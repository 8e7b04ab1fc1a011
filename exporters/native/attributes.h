// SPDX-License-Identifier: Apache-2.0
// The attributes of a span as a statement has them. The type Recorder, whose fields are here, is in recorder.h.

#ifndef AUDITSPAN_ATTRIBUTES_H
#define AUDITSPAN_ATTRIBUTES_H

#include <unistd.h>
#if defined(__APPLE__)
#include <sys/random.h>
#endif

#include "place.h"
#include "sha256.h"

#define MOST_ATTRIBUTES 128
#define MOST_LAYOUTS 16
#define MOST_SHAPES 256
#define LONGEST_SHAPE 14
#define SALT 16
#define SAFE_INTEGER (1LL << 53)

// What is the same for all spans whose attributes have the same names in the same order.
typedef struct {
    int users, count;
    PyObject *names[MOST_ATTRIBUTES];        // in the order of the span
    unsigned char order[MOST_ATTRIBUTES];    // which of them is written at which place
    unsigned char personal[MOST_ATTRIBUTES]; // whether the value is only committed to
    Slice written[MOST_ATTRIBUTES];          // a name as it is written, with the colon
    Out text;
} Layout;

typedef struct {
    PyObject_HEAD
    PyTypeObject *type;         // of the spans that it knows
    PyObject *record_id;        // the attribute that an audit span has
    PyObject *kinds, *codes;    // tuples of pairs: what a span may have, and how it is written
    PyObject *names, *fixed;    // dictionaries: a name → how it is written; identities of resource and scope, and segment → …
    PyObject *origin, *version; // written as they are
    PyObject *state;            // a trace state, and how it is written
    PyObject *usual;            // what the guard need not be asked (guard.py): texts, names, look, personal, alike
    Place *place;
    Py_ssize_t count;
    Layout *layouts[MOST_LAYOUTS];
    unsigned next_layout;
    struct { unsigned char size; char text[LONGEST_SHAPE]; } shapes[MOST_SHAPES];
    unsigned char salts[8 * SALT];
    int salts_left;
    pid_t salts_of;             // the process that drew them; a child has the same ones
    Out spare[3];               // buffers that nobody uses
} Recorder;

// -- texts ------------------------------------------------------------------------------------------------------
static int is_uuid(const char *text, Py_ssize_t size) {
    if (size != 36) return 0;
    for (int i = 0; i < 36; i++) {
        char c = text[i];
        if (i == 8 || i == 13 || i == 18 || i == 23) { if (c != '-') return 0; }
        else if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'))) return 0;
    }
    return 1;
}

// The place of a text's shape, which is the text with 0 for every digit; `shape` is filled. NULL: it has none.
static void *shape_of(Recorder *self, PyObject *text, const char *utf8, Py_ssize_t size, char shape[LONGEST_SHAPE]) {
    uint32_t hash = 2166136261u;
    if (size > LONGEST_SHAPE || size < 1 || PyUnicode_GetLength(text) != size) return NULL;
    for (Py_ssize_t i = 0; i < size; i++) {
        shape[i] = utf8[i] >= '0' && utf8[i] <= '9' ? '0' : utf8[i];
        hash = (hash ^ (unsigned char)shape[i]) * 16777619u;
    }
    return &self->shapes[(hash ^ hash >> 16) % MOST_SHAPES];
}

// Whether a text is known, or found, to have no secret in it. 1: yes, 0: no, or it cannot be told; -1: an exception.
static int is_clean(Recorder *self, PyObject *usual, PyObject *text) {
    Py_ssize_t size;
    char shape[LONGEST_SHAPE];
    const char *utf8 = PyUnicode_AsUTF8AndSize(text, &size);
    if (utf8 == NULL) { PyErr_Clear(); return 0; }
    if (is_uuid(utf8, size)) return 1;
    unsigned char *place = shape_of(self, text, utf8, size, shape);
    if (place != NULL && place[0] == size && memcmp(place + 1, shape, (size_t)size) == 0) return 1;
    int clean = PySet_Contains(PyTuple_GetItem(usual, 0), text);
    if (clean < 0) return -1;
    if (!clean) {
        PyObject *found = PyObject_CallFunctionObjArgs(PyTuple_GetItem(usual, 2), text, NULL);
        if (found == NULL) return -1;
        Py_DECREF(found);
        clean = found == text;
    }
    if (clean && place != NULL) {
        PyObject *alike = PyObject_CallFunctionObjArgs(PyTuple_GetItem(usual, 4), text, NULL);
        if (alike == NULL) return -1;
        Py_DECREF(alike);
        if (alike == Py_True && self->usual == usual) {
            place[0] = (unsigned char)size;
            memcpy(place + 1, shape, (size_t)size);
        }
    }
    return clean;
}

static int put_text(Out *out, PyObject *text) {
    Py_ssize_t size;
    const char *utf8 = PyUnicode_AsUTF8AndSize(text, &size);
    if (utf8 == NULL) { PyErr_Clear(); return 0; }
    put_string(out, (const unsigned char *)utf8, (size_t)size);
    return 1;
}

static void put_base64(Out *out, const unsigned char *bytes, size_t size) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < size; i += 3) {
        size_t left = size - i;
        uint32_t three = (uint32_t)bytes[i] << 16 | (left > 1 ? (uint32_t)bytes[i + 1] << 8 : 0) | (left > 2 ? bytes[i + 2] : 0);
        char four[4] = {digits[three >> 18], digits[three >> 12 & 63], left > 1 ? digits[three >> 6 & 63] : '=',
                        left > 2 ? digits[three & 63] : '='};
        put(out, four, 4);
    }
}

// -- attributes -------------------------------------------------------------------------------------------------
static void let_go(Layout *layout) {
    if (layout == NULL || --layout->users > 0) return;
    for (int i = 0; i < layout->count; i++) Py_DECREF(layout->names[i]);
    free(layout->text.start);
    free(layout);
}

static int goes_before(Slice one, Slice other) {
    int order = memcmp(one.text, other.text, one.size < other.size ? one.size : other.size);
    return order < 0 || (order == 0 && one.size < other.size);
}

// Make the layout of some names; NULL: they are not usual, or an exception.
static Layout *new_layout(PyObject *usual, PyObject *const *names, int count) {
    Slice sorted[MOST_ATTRIBUTES];
    size_t ends[MOST_ATTRIBUTES];
    PyObject *tuple = PyTuple_New(count);
    if (tuple == NULL) return NULL;
    for (int i = 0; i < count; i++) { Py_INCREF(names[i]); PyTuple_SetItem(tuple, i, names[i]); }
    int clean = PySet_Contains(PyTuple_GetItem(usual, 1), tuple);
    Py_DECREF(tuple);
    Layout *layout = clean == 1 ? calloc(1, sizeof *layout) : NULL;
    if (layout == NULL) return clean == 1 ? (Layout *)PyErr_NoMemory() : NULL;
    layout->users = 1;
    for (int i = 0; i < count; i++, layout->count = i) {
        Py_ssize_t size;
        const char *utf8 = PyUnicode_AsUTF8AndSize(names[i], &size);
        int personal = utf8 == NULL ? -1 : PySet_Contains(PyTuple_GetItem(usual, 3), names[i]);
        if (personal < 0) {
            if (utf8 == NULL) PyErr_Clear();
            let_go(layout);
            return NULL;
        }
        Py_INCREF(layout->names[i] = names[i]);
        layout->personal[i] = (unsigned char)personal;
        Slice name = {utf8, (size_t)size};
        int place = i;
        for (; place > 0 && goes_before(name, sorted[place - 1]); place--) {
            sorted[place] = sorted[place - 1];
            layout->order[place] = layout->order[place - 1];
        }
        sorted[place] = name;
        layout->order[place] = (unsigned char)i;
        put_string(&layout->text, (const unsigned char *)utf8, (size_t)size);
        PUT(&layout->text, ":");
        ends[i] = layout->text.size;
    }
    if (layout->text.failed) { let_go(layout); PyErr_NoMemory(); return NULL; }
    for (int i = 0; i < count; i++) {
        size_t begin = i ? ends[i - 1] : 0;
        layout->written[i] = (Slice){layout->text.start + begin, ends[i] - begin};
    }
    return layout;
}

// The layout of some names, to be let go of; NULL: they are not usual, or an exception.
static Layout *layout_of(Recorder *self, PyObject *usual, PyObject *const *names, int count) {
    for (int i = 0; i < MOST_LAYOUTS; i++) {
        Layout *layout = self->layouts[i];
        if (layout != NULL && layout->count == count && memcmp(layout->names, names, (size_t)count * sizeof *names) == 0) {
            layout->users++;
            return layout;
        }
    }
    Layout *layout = new_layout(usual, names, count);
    if (layout != NULL && self->usual == usual) {
        unsigned place = self->next_layout++ % MOST_LAYOUTS;
        Layout *old = self->layouts[place];
        self->layouts[place] = layout;
        layout->users++;
        let_go(old);
    }
    return layout;
}

// Write a value whose texts are clean; 1: done, 0: not usual, -1: an exception.
static int put_usual(Out *out, Recorder *self, PyObject *usual, PyObject *value) {
    if (PyUnicode_CheckExact(value)) {
        int clean = is_clean(self, usual, value);
        return clean == 1 ? put_text(out, value) : clean;
    }
    if (value == Py_None) { PUT(out, "null"); return 1; }
    if (value == Py_True) { PUT(out, "true"); return 1; }
    if (value == Py_False) { PUT(out, "false"); return 1; }
    if (PyLong_CheckExact(value)) {
        int overflow;
        long long number = PyLong_AsLongLongAndOverflow(value, &overflow);
        if (overflow || number >= SAFE_INTEGER || number <= -SAFE_INTEGER) return 0;
        if (number < 0) PUT(out, "-");
        put_number(out, (uint64_t)(number < 0 ? -number : number));
        return 1;
    }
    if (PyTuple_CheckExact(value)) {  // what the SDK makes of a list
        Py_ssize_t size = PyTuple_Size(value);
        PUT(out, "[");
        for (Py_ssize_t i = 0; i < size; i++) {
            PyObject *item = PyTuple_GetItem(value, i);
            if (!PyUnicode_CheckExact(item) || PyUnicode_GetLength(item) == 0 || PyUnicode_ReadChar(item, 0) == '-') return 0;
            if (i) PUT(out, ",");
            int done = put_usual(out, self, usual, item);
            if (done != 1) return done;
        }
        PUT(out, "]");
        return 1;
    }
    return 0;
}

// 16 bytes of the operating system that nobody else has, in no process.
static int draw_salt(Recorder *self, unsigned char salt[SALT]) {
    if (self->salts_left == 0 || self->salts_of != getpid()) {
        if (getentropy(self->salts, sizeof self->salts) != 0) return 0;
        self->salts_left = sizeof self->salts / SALT;
        self->salts_of = getpid();
    }
    unsigned char *taken = self->salts + --self->salts_left * SALT;
    memcpy(salt, taken, SALT);
    memset(taken, 0, SALT);
    return 1;
}

// Commit to a personal text (docs/formats.md, commitments), and write what opens it.
static int commit_to(Out *scratch, Out *private, Recorder *self, PyObject *name, Slice written, PyObject *value, unsigned char digest[32]) {
    static const char domain[] = "auditspan/commitment/v1\n";
    unsigned char salt[SALT];
    Py_ssize_t size;
    const char *utf8 = PyUnicode_AsUTF8AndSize(name, &size);
    if (utf8 == NULL || !draw_salt(self, salt)) return 0;
    scratch->size = 0;
    put(scratch, domain, sizeof domain - 1);
    put(scratch, (const char *)salt, SALT);
    put(scratch, utf8, (size_t)size);
    put(scratch, "", 1);
    size_t before = scratch->size;
    if (!put_text(scratch, value) || scratch->failed) return 0;
    sha256((const unsigned char *)scratch->start, scratch->size, digest);
    if (private->size) PUT(private, ",");
    put(private, written.text, written.size);
    PUT(private, "[\"");
    put_base64(private, salt, SALT);
    PUT(private, "\",");
    put(private, scratch->start + before, scratch->size - before);
    PUT(private, "]");
    return 1;
}

// Write the attributes, sorted. 1: done, 0: not usual, -1: an exception.
static int write_attributes(Out *out, Out *private, Recorder *self, PyObject *given) {
    PyObject *names[MOST_ATTRIBUTES], *values[MOST_ATTRIBUTES], *name, *value, *usual = self->usual;
    unsigned char digests[8][32], digest_of[MOST_ATTRIBUTES];
    int count = 0, sealed = 0, done = 1;
    Py_ssize_t at = 0;
    if (PyDict_Size(given) > MOST_ATTRIBUTES) return 0;
    while (PyDict_Next(given, &at, &name, &value)) {
        if (count == MOST_ATTRIBUTES || !PyUnicode_CheckExact(name)) { done = 0; break; }
        names[count] = name;
        values[count++] = value;
    }
    // All are held: the dictionary may change, and what the guard says be replaced, when Python's code runs below.
    Py_INCREF(usual);
    for (int i = 0; i < count; i++) { Py_INCREF(names[i]); Py_INCREF(values[i]); }
    Layout *layout = done == 1 ? layout_of(self, usual, names, count) : NULL;
    if (layout == NULL) done = PyErr_Occurred() ? -1 : 0;
    for (int i = 0; done == 1 && i < count; i++) {
        digest_of[i] = 0;
        if (!layout->personal[i] || values[i] == Py_None) continue;
        done = PyUnicode_CheckExact(values[i]) && sealed < 8 ? is_clean(self, usual, values[i]) : 0;
        if (done == 1) {
            Out scratch = {0};
            done = commit_to(&scratch, private, self, names[i], layout->written[i], values[i], digests[sealed]);
            free(scratch.start);
            digest_of[i] = (unsigned char)++sealed;
        }
    }
    PUT(out, "{");
    for (int place = 0; done == 1 && place < count; place++) {
        int i = layout->order[place];
        if (place) PUT(out, ",");
        put(out, layout->written[i].text, layout->written[i].size);
        if (digest_of[i]) {
            PUT(out, "{\"commitment\":\"");
            put_base64(out, digests[digest_of[i] - 1], 32);
            PUT(out, "\"}");
        } else {
            done = put_usual(out, self, usual, values[i]);
        }
    }
    PUT(out, "}");
    let_go(layout);
    for (int i = 0; i < count; i++) { Py_DECREF(names[i]); Py_DECREF(values[i]); }
    Py_DECREF(usual);
    return done;
}

#endif
