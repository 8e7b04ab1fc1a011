// SPDX-License-Identifier: Apache-2.0
// The module auditspan_seal._native: three steps of every record that cost most, in C. See native.py beside it.

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030A0000
#include <Python.h>

#include "documents.h"

#define MOST_LINES 4096
#define MOST_MARKS 8
#define LONGEST (1024 * 1024)  // bytes of a line that is still usual

// -- spans ------------------------------------------------------------------------------------------------------
// Take entries (place, statement, private) from `begin` on, as long as they are usual; each stays referenced in `held`.
static Py_ssize_t take(PyObject *entries, Py_ssize_t begin, Py_ssize_t most, Line *lines, PyObject **held) {
    Py_ssize_t size = PyList_Size(entries), count = 0;
    for (Py_ssize_t at = begin; at < size && count < most; at++, count++) {
        PyObject *entry = PyList_GetItem(entries, at);
        if (entry == NULL) return -1;
        if (!PyTuple_Check(entry) || PyTuple_Size(entry) != 3) break;
        PyObject *place = PyTuple_GetItem(entry, 0), *statement = PyTuple_GetItem(entry, 1);
        PyObject *private = PyTuple_GetItem(entry, 2);
        if (!PyLong_Check(place) || !PyBytes_Check(statement) || !PyBytes_Check(private)) break;
        Line *line = &lines[count];
        line->index = PyLong_AsUnsignedLongLong(place);
        if (PyErr_Occurred()) { PyErr_Clear(); break; }
        line->statement = (const unsigned char *)PyBytes_AsString(statement);
        line->statement_size = (size_t)PyBytes_Size(statement);
        line->private = (const unsigned char *)PyBytes_AsString(private);
        line->private_size = (size_t)PyBytes_Size(private);
        if (line->statement_size > LONGEST || line->private_size > LONGEST) break;
        Py_INCREF(entry);  // a tuple never changes: what it refers to is there as long as it is
        held[count] = entry;
    }
    return count;
}

PyDoc_STRVAR(spans_doc,
"spans(entries, begin, most, origin)\n--\n\n"
"Return the spans of entries, up to the first that is not usual or of another resource or scope.\n\n"
"Args:\n"
"    entries: a list; of it those that are tuples of place, statement and private part.\n"
"    begin: where to begin in it.\n"
"    most: entries to take at most.\n"
"    origin: the attribute that names the log, as it is written.\n\n"
"Returns:\n"
"    the resource and the scope as the statements have them, the spans joined by commas, and where it ended.");

static PyObject *spans(PyObject *module, PyObject *args) {
    PyObject *entries, *result = NULL;
    Py_ssize_t begin, most, written_origin;
    const char *origin;
    (void)module;
    if (!PyArg_ParseTuple(args, "O!nny#", &PyList_Type, &entries, &begin, &most, &origin, &written_origin)) return NULL;
    if (begin < 0) begin = 0;
    if (most < 1 || most > MOST_LINES) most = MOST_LINES;
    Line *lines = malloc(sizeof(Line) * (size_t)most);
    PyObject **held = malloc(sizeof(PyObject *) * (size_t)most);
    Py_ssize_t count = lines && held ? take(entries, begin, most, lines, held) : -1;
    if (count < 0) {
        free(lines); free(held);
        return PyErr_Occurred() ? NULL : PyErr_NoMemory();
    }
    Out out = {0}, scratch = {0};
    Slice first_resource = {"", 0}, first_scope = {"", 0}, attribute = {origin, (size_t)written_origin};
    Py_ssize_t done = 0;
    PyThreadState *state = PyEval_SaveThread();
    for (; done < count; done++) {
        Slice resource, scope;
        size_t before = out.size;
        if (done) PUT(&out, ",");
        if (!put_span(&out, &scratch, &lines[done], attribute, &resource, &scope)
            || (done && !(is_slice(resource, first_resource) && is_slice(scope, first_scope)))) {
            if (!out.failed && !scratch.failed) out.size = before;
            break;
        }
        if (!done) { first_resource = resource; first_scope = scope; }
    }
    PyEval_RestoreThread(state);
    if (out.failed || scratch.failed) {
        PyErr_NoMemory();
    } else {
        result = Py_BuildValue("(y#y#y#n)", first_resource.text, (Py_ssize_t)first_resource.size, first_scope.text,
                               (Py_ssize_t)first_scope.size, out.start ? out.start : "", (Py_ssize_t)out.size,
                               begin + done);
    }
    while (count > 0) Py_DECREF(held[--count]);
    free(lines); free(held); free(out.start); free(scratch.start);
    return result;
}

// -- lines ------------------------------------------------------------------------------------------------------
PyDoc_STRVAR(usual_doc,
"usual(lines, segment, number, origin, marks)\n--\n\n"
"Count the lines from the first on that are spans in canonical form and at their place.\n\n"
"Args:\n"
"    lines: a list of lines of a segment: each a statement and, after a TAB, its private part.\n"
"    segment: the segment, as a statement says it.\n"
"    number: the running number of the first line.\n"
"    origin: the log, as a statement says it.\n"
"    marks: types of events as they are written: a line of one of them is not counted, and none after it.\n\n"
"Returns:\n"
"    how many, and the IDs of their spans, 16 digits each.");

// Whether a line has an event type that is one of some, wherever it stands.
static int is_of(Slice line, const Slice *mark, size_t marks) {
    static const char name[] = "\"audit.event.type\":";
    const char *at = line.text, *end = line.text + line.size;
    for (; (at = memchr(at, '"', (size_t)(end - at))) != NULL; at++) {
        if ((size_t)(end - at) < sizeof name - 1) return 0;
        if (memcmp(at, name, sizeof name - 1) != 0) continue;
        const char *value = at + sizeof name - 1;
        for (size_t i = 0; i < marks; i++) {
            if ((size_t)(end - value) >= mark[i].size && memcmp(value, mark[i].text, mark[i].size) == 0) return 1;
        }
    }
    return 0;
}

static PyObject *usual(PyObject *module, PyObject *args) {
    PyObject *given, *marks;
    const char *segment, *origin;
    Py_ssize_t segment_size, origin_size;
    unsigned long long number;
    (void)module;
    if (!PyArg_ParseTuple(args, "O!y#Ky#O!", &PyList_Type, &given, &segment, &segment_size, &number, &origin, &origin_size,
                          &PyTuple_Type, &marks)) return NULL;
    Slice mark[MOST_MARKS];
    Py_ssize_t marked = PyTuple_Size(marks);
    for (Py_ssize_t at = 0; at < marked; at++) {
        PyObject *bytes = PyTuple_GetItem(marks, at);
        if (at == MOST_MARKS || !PyBytes_Check(bytes)) { PyErr_SetString(PyExc_TypeError, "a few bytes are expected"); return NULL; }
        mark[at].text = PyBytes_AsString(bytes);
        mark[at].size = (size_t)PyBytes_Size(bytes);
    }
    PyObject *lines = PyList_AsTuple(given);  // it keeps them while the interpreter's lock is given up
    if (lines == NULL) return NULL;
    Py_ssize_t count = PyTuple_Size(lines), done = 0;
    Slice *texts = malloc(sizeof(Slice) * (size_t)(count ? count : 1));
    if (texts == NULL) { Py_DECREF(lines); return PyErr_NoMemory(); }
    for (Py_ssize_t at = 0; at < count; at++) {
        PyObject *line = PyTuple_GetItem(lines, at);
        if (!PyBytes_Check(line)) { count = at; break; }
        texts[at].text = PyBytes_AsString(line);
        texts[at].size = (size_t)PyBytes_Size(line);
    }
    Slice place = {segment, (size_t)segment_size}, log = {origin, (size_t)origin_size}, own;
    Out ids = {0};
    PyThreadState *state = PyEval_SaveThread();
    for (; done < count && texts[done].size <= LONGEST; done++) {
        Slice line = texts[done];
        const char *tab = memchr(line.text, '\t', line.size), *end = tab ? tab : line.text + line.size;
        if (is_of(line, mark, (size_t)marked)) break;
        if (!is_at((const unsigned char *)line.text, (const unsigned char *)end, place, number + (uint64_t)done, log, &own)) break;
        put(&ids, own.text + 1, 16);
    }
    PyEval_RestoreThread(state);
    PyObject *result = ids.failed ? PyErr_NoMemory()
                                  : Py_BuildValue("(ny#)", done, ids.start ? ids.start : "", (Py_ssize_t)ids.size);
    Py_DECREF(lines);
    free(texts); free(ids.start);
    return result;
}

// -- attributes -------------------------------------------------------------------------------------------------
#define MOST_ATTRIBUTES 128
#define SAFE_INTEGER (1LL << 53)

typedef struct { const char *name; Py_ssize_t size; PyObject *value, *sealed; } Attribute;  // borrowed; sealed is owned

static int is_uuid(const char *text, Py_ssize_t size) {
    if (size != 36) return 0;
    for (int i = 0; i < 36; i++) {
        char c = text[i];
        if (i == 8 || i == 13 || i == 18 || i == 23) { if (c != '-') return 0; }
        else if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'))) return 0;
    }
    return 1;
}

// Whether a text is known, or found, to have no secret in it. 1: yes, 0: no, or it cannot be told; -1: an exception.
static int is_clean(PyObject *text, PyObject *texts, PyObject *look) {
    Py_ssize_t size;
    int known = PySet_Contains(texts, text);
    if (known) return known;
    const char *utf8 = PyUnicode_AsUTF8AndSize(text, &size);
    if (utf8 == NULL) { PyErr_Clear(); return 0; }
    if (is_uuid(utf8, size)) return 1;
    PyObject *found = PyObject_CallFunctionObjArgs(look, text, NULL);
    if (found == NULL) return -1;
    Py_DECREF(found);
    return found == text;
}

static int put_text(Out *out, PyObject *text) {
    Py_ssize_t size;
    const char *utf8 = PyUnicode_AsUTF8AndSize(text, &size);
    if (utf8 == NULL) { PyErr_Clear(); return 0; }
    put_string(out, (const unsigned char *)utf8, (size_t)size);
    return 1;
}

// Write a value whose texts are clean; 1: done, 0: not usual, -1: an exception.
static int put_usual(Out *out, PyObject *value, PyObject *texts, PyObject *look) {
    if (PyUnicode_CheckExact(value)) {
        int clean = is_clean(value, texts, look);
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
            int done = put_usual(out, item, texts, look);
            if (done != 1) return done;
        }
        PUT(out, "]");
        return 1;
    }
    return 0;
}

static int compare(const Attribute *one, const Attribute *other) {
    Py_ssize_t shorter = one->size < other->size ? one->size : other->size;
    int order = memcmp(one->name, other->name, (size_t)shorter);
    return order ? order : one->size < other->size ? -1 : one->size > other->size;
}

// -- a finished span ----------------------------------------------------------------------------------------------
// What `parts` is called with, in this order.
enum { SPAN, SEGMENT, TEXTS, NAMES, LOOK, PERSONAL, SALT, HASH, WRITTEN_NAMES, FIXED, KINDS, CODES, STATE, ORIGIN, VERSION,
       ARGUMENTS };

PyDoc_STRVAR(parts_doc,
"parts(span, segment, texts, names, look, personal, salt, hash, written, fixed, kinds, codes, state, origin, version)\n"
"--\n\n"
"Return what stands before and after the running number in the line of a span; None: it is not usual.\n\n"
"Args:\n"
"    span: a ReadableSpan of the SDK, and of no class that is made of it.\n"
"    segment: name of the segment.\n"
"    texts: a set of texts that are known to have no secret in them.\n"
"    names: a set of tuples of names of attributes that are known to announce no secret.\n"
"    look: called with any other text; it returns the same object if there is no secret in it.\n"
"    personal: a set of the names whose values are only committed to.\n"
"    salt: called without arguments; it returns 16 bytes that nobody else has, and the same in base64.\n"
"    hash: called with bytes; it returns what has a method `digest` (hashlib.sha256).\n"
"    written: a dictionary of names of spans, and how they are written.\n"
"    fixed: a dictionary of identities of resource and scope and the segment, together, and of tuples of resource,\n"
"        scope, and how the three are written.\n"
"    kinds, codes: tuples of pairs of what a span may have, and how it is written.\n"
"    state: a trace state, and how it is written.\n"
"    origin, version: bytes that are written as they are.");

// Names of attributes of the SDK's objects; made once.
static struct { PyObject *attributes, *context, *dict, *dropped, *end, *events, *kind, *links, *name, *parent, *queue,
    *resource, *scope, *start, *status, *code, *description, *digest; } known;

static int know(void) {
    static const struct { PyObject **at; const char *text; } all[] = {
        {&known.attributes, "_attributes"}, {&known.context, "_context"}, {&known.dict, "_dict"},
        {&known.dropped, "dropped"}, {&known.end, "_end_time"}, {&known.events, "_events"}, {&known.kind, "_kind"},
        {&known.links, "_links"}, {&known.name, "_name"}, {&known.parent, "_parent"}, {&known.queue, "_dq"},
        {&known.resource, "_resource"}, {&known.scope, "_instrumentation_scope"}, {&known.start, "_start_time"},
        {&known.status, "_status"}, {&known.code, "_status_code"}, {&known.description, "_description"},
        {&known.digest, "digest"},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        if (*all[i].at == NULL && (*all[i].at = PyUnicode_InternFromString(all[i].text)) == NULL) return 0;
    }
    return 1;
}

static int whole(PyObject *object, uint64_t *number) {
    if (object == NULL || !PyLong_Check(object)) return 0;
    *number = PyLong_AsUnsignedLongLong(object);
    if (!PyErr_Occurred()) return 1;
    PyErr_Clear();
    return 0;
}

static int whole_attribute(PyObject *object, PyObject *name, uint64_t *number) {
    PyObject *found = PyObject_GetAttr(object, name);
    int usual = whole(found, number);
    if (found == NULL) PyErr_Clear();
    Py_XDECREF(found);
    return usual;
}

// Whether a list of events or links is empty, and how many were dropped from it.
static int none_left(PyObject *span, PyObject *name, uint64_t *dropped) {
    PyObject *list = PyObject_GetAttr(span, name), *queue = NULL;
    int usual = 0;
    *dropped = 0;
    if (list != NULL && PyTuple_CheckExact(list)) {
        usual = PyTuple_Size(list) == 0;
    } else if (list != NULL && (queue = PyObject_GetAttr(list, known.queue)) != NULL) {
        usual = PyObject_Size(queue) == 0 && whole_attribute(list, known.dropped, dropped);
    }
    if (PyErr_Occurred()) PyErr_Clear();
    Py_XDECREF(queue); Py_XDECREF(list);
    return usual;
}

// How an object is written that is one of some; NULL: it is not. Borrowed.
static PyObject *written_as(PyObject *pairs, PyObject *object) {
    for (Py_ssize_t i = 0; PyTuple_Check(pairs) && i < PyTuple_Size(pairs); i++) {
        PyObject *pair = PyTuple_GetItem(pairs, i);
        if (PyTuple_Check(pair) && PyTuple_Size(pair) == 2 && PyTuple_GetItem(pair, 0) == object) {
            PyObject *written = PyTuple_GetItem(pair, 1);
            return PyBytes_Check(written) ? written : NULL;
        }
    }
    return NULL;
}

static int put_bytes(Out *out, PyObject *bytes) {
    if (bytes == NULL || !PyBytes_Check(bytes)) return 0;
    put(out, PyBytes_AsString(bytes), (size_t)PyBytes_Size(bytes));
    return 1;
}

// Resource, scope and segment.
static int put_fixed(Out *out, PyObject *fixed, PyObject *resource, PyObject *scope, PyObject *segment) {
    PyObject *key = Py_BuildValue("(NNO)", PyLong_FromVoidPtr(resource), PyLong_FromVoidPtr(scope), segment);
    PyObject *found = key != NULL && PyDict_Check(fixed) ? PyDict_GetItemWithError(fixed, key) : NULL;
    Py_XDECREF(key);
    if (PyErr_Occurred()) PyErr_Clear();
    return found != NULL && PyTuple_Check(found) && PyTuple_Size(found) == 3 && PyTuple_GetItem(found, 0) == resource
        && PyTuple_GetItem(found, 1) == scope && put_bytes(out, PyTuple_GetItem(found, 2));
}

static int put_status(Out *out, PyObject *span, PyObject *codes) {
    PyObject *status = PyObject_GetAttr(span, known.status);
    PyObject *code = status ? PyObject_GetAttr(status, known.code) : NULL;
    PyObject *description = code ? PyObject_GetAttr(status, known.description) : NULL;
    int usual = description == Py_None && put_bytes(out, written_as(codes, code));
    if (PyErr_Occurred()) PyErr_Clear();
    Py_XDECREF(status); Py_XDECREF(code); Py_XDECREF(description);
    return usual;
}

static int write_attributes(Out *out, Out *private, PyObject *given, PyObject *const *args);

// Write both halves. 1: done, 0: not usual, -1: an exception.
static int write_parts(Out *before, Out *after, Out *private, PyObject *const *args) {
    PyObject *span = args[SPAN], *context = NULL, *parent = NULL, *attributes = NULL, *given = NULL, *object = NULL;
    PyObject *resource = NULL, *scope = NULL, *shift = NULL, *top = NULL;
    uint64_t start, end, own, flags, high, above = 0, dropped, dropped_events, dropped_links;
    int usual = 0;
    if ((context = PyObject_GetAttr(span, known.context)) == NULL || (parent = PyObject_GetAttr(span, known.parent)) == NULL
        || (attributes = PyObject_GetAttr(span, known.attributes)) == NULL
        || (given = PyObject_GetAttr(attributes, known.dict)) == NULL
        || (resource = PyObject_GetAttr(span, known.resource)) == NULL
        || (scope = PyObject_GetAttr(span, known.scope)) == NULL) goto end;
    if (!PyDict_CheckExact(given) || !PyTuple_Check(context) || PyTuple_Size(context) < 5) goto end;
    if (!whole_attribute(attributes, known.dropped, &dropped) || !none_left(span, known.events, &dropped_events)
        || !none_left(span, known.links, &dropped_links)) goto end;
    if (!whole_attribute(span, known.start, &start) || !whole_attribute(span, known.end, &end)) goto end;
    if (!whole(PyTuple_GetItem(context, 1), &own) || !whole(PyTuple_GetItem(context, 3), &flags)) goto end;
    if ((shift = PyLong_FromLong(64)) == NULL || (top = PyNumber_Rshift(PyTuple_GetItem(context, 0), shift)) == NULL
        || !whole(top, &high)) goto end;  // beyond 128 bits, or below 0, it is no trace ID
    uint64_t low = PyLong_AsUnsignedLongLongMask(PyTuple_GetItem(context, 0));
    PyObject *state = args[STATE];
    if (!PyTuple_Check(state) || PyTuple_Size(state) != 2 || PyTuple_GetItem(state, 0) != PyTuple_GetItem(context, 4)) goto end;
    if (parent != Py_None && (!PyTuple_Check(parent) || PyTuple_Size(parent) < 3 || !PyBool_Check(PyTuple_GetItem(parent, 2))
                              || !whole(PyTuple_GetItem(parent, 1), &above))) goto end;

    PUT(before, "{\"attributes\":");
    if ((usual = write_attributes(before, private, given, args)) != 1) goto end;
    usual = 0;
    PUT(before, ",\"dropped\":{\"attributes\":"); put_number(before, dropped);
    PUT(before, ",\"events\":"); put_number(before, dropped_events);
    PUT(before, ",\"links\":"); put_number(before, dropped_links);
    PUT(before, "},\"end\":\""); put_number(before, end);
    PUT(before, "\",\"events\":[],\"kind\":");
    if ((object = PyObject_GetAttr(span, known.kind)) == NULL || !put_bytes(before, written_as(args[KINDS], object))) goto end;
    Py_DECREF(object);
    PUT(before, ",\"links\":[],\"name\":");
    if ((object = PyObject_GetAttr(span, known.name)) == NULL || !PyUnicode_CheckExact(object)
        || !PyDict_Check(args[WRITTEN_NAMES]) || !put_bytes(before, PyDict_GetItemWithError(args[WRITTEN_NAMES], object))) goto end;
    PUT(before, ",\"number\":");
    PUT(after, ",\"origin\":");
    if (!put_bytes(after, args[ORIGIN])) goto end;
    if (parent != Py_None && PyTuple_GetItem(parent, 2) == Py_True) PUT(after, ",\"parent_is_remote\":true,\"parent_span_id\":\"");
    else PUT(after, ",\"parent_is_remote\":false,\"parent_span_id\":\"");
    if (parent != Py_None) put_hexadecimal(after, above);
    PUT(after, "\",");
    if (!put_fixed(after, args[FIXED], resource, scope, args[SEGMENT])) goto end;
    PUT(after, ",\"span_id\":\""); put_hexadecimal(after, own);
    PUT(after, "\",\"start\":\""); put_number(after, start);
    PUT(after, "\",\"status\":");
    if (!put_status(after, span, args[CODES])) goto end;
    PUT(after, ",\"trace_flags\":"); put_number(after, flags);
    PUT(after, ",\"trace_id\":\""); put_hexadecimal(after, high); put_hexadecimal(after, low);
    PUT(after, "\",\"trace_state\":");
    if (!put_bytes(after, PyTuple_GetItem(state, 1))) goto end;
    PUT(after, ",\"type\":\"span\"");
    if (!put_bytes(after, args[VERSION])) goto end;
    if (private->size) { PUT(after, "\t{"); put(after, private->start, private->size); PUT(after, "}"); }
    usual = 1;
end:
    if (usual != -1 && PyErr_Occurred()) { PyErr_Clear(); usual = 0; }  // an object of the SDK that is not as it is known
    Py_XDECREF(context); Py_XDECREF(parent); Py_XDECREF(attributes); Py_XDECREF(given); Py_XDECREF(object);
    Py_XDECREF(resource); Py_XDECREF(scope); Py_XDECREF(shift); Py_XDECREF(top);
    return usual;
}

static PyObject *parts(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    PyObject *result = NULL;
    Out before = {0}, after = {0}, private = {0};
    (void)module;
    if (count != ARGUMENTS) {
        PyErr_SetString(PyExc_TypeError, "parts() takes a span and what comes after it");
        return NULL;
    }
    int usual = write_parts(&before, &after, &private, args);
    if (usual == 1 && (before.failed || after.failed || private.failed)) PyErr_NoMemory();
    else if (usual == 1) result = Py_BuildValue("(y#y#)", before.start, (Py_ssize_t)before.size, after.start, (Py_ssize_t)after.size);
    else if (usual == 0) { Py_INCREF(Py_None); result = Py_None; }
    free(before.start); free(after.start); free(private.start);
    return result;
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

// Commit to a personal text (docs/formats.md, commitments), and write what opens it. Returns the digest, or NULL with an
// exception.
static PyObject *commit_to(Out *private, PyObject *salt_of, PyObject *hash, PyObject *name, PyObject *value) {
    static const char domain[] = "auditspan/commitment/v1\n";
    PyObject *pair = PyObject_CallFunctionObjArgs(salt_of, NULL), *found = NULL, *content = NULL, *hashed = NULL;
    Out text = {0};
    Py_ssize_t size;
    const char *utf8;
    if (pair == NULL) return NULL;
    if (!PyTuple_Check(pair) || PyTuple_Size(pair) != 2 || !PyBytes_Check(PyTuple_GetItem(pair, 0))
        || !PyUnicode_Check(PyTuple_GetItem(pair, 1))) {
        PyErr_SetString(PyExc_TypeError, "a salt in two forms is expected");
        goto end;
    }
    put(&text, domain, sizeof domain - 1);
    put_bytes(&text, PyTuple_GetItem(pair, 0));
    if ((utf8 = PyUnicode_AsUTF8AndSize(name, &size)) == NULL) goto end;
    put(&text, utf8, (size_t)size);
    put(&text, "", 1);
    size_t before = text.size;
    if (!put_text(&text, value)) { PyErr_SetString(PyExc_ValueError, "a text that is not Unicode"); goto end; }
    if (private->size) PUT(private, ",");
    if (!put_text(private, name)) { PyErr_SetString(PyExc_ValueError, "a name that is not Unicode"); goto end; }
    PUT(private, ":[");
    put_text(private, PyTuple_GetItem(pair, 1));
    PUT(private, ",");
    if (!text.failed) put(private, text.start + before, text.size - before);
    PUT(private, "]");
    if (text.failed || private->failed) { PyErr_NoMemory(); goto end; }
    if ((content = PyBytes_FromStringAndSize(text.start, (Py_ssize_t)text.size)) == NULL) goto end;
    if ((hashed = PyObject_CallFunctionObjArgs(hash, content, NULL)) == NULL) goto end;
    found = PyObject_CallMethodObjArgs(hashed, known.digest, NULL);
    if (found != NULL && !(PyBytes_Check(found) && PyBytes_Size(found) == 32)) {
        PyErr_SetString(PyExc_TypeError, "a digest of 32 bytes is expected");
        Py_CLEAR(found);
    }
end:
    Py_DECREF(pair); Py_XDECREF(content); Py_XDECREF(hashed);
    free(text.start);
    return found;
}

// Write the attributes, sorted. 1: done, 0: not usual, -1: an exception.
static int write_attributes(Out *out, Out *private, PyObject *given, PyObject *const *args) {
    PyObject *texts = args[TEXTS], *names = args[NAMES], *look = args[LOOK], *personal = args[PERSONAL];
    Attribute found[MOST_ATTRIBUTES];
    Py_ssize_t count = 0, at = 0;
    int usual = -1;
    if (PyDict_Size(given) > MOST_ATTRIBUTES) return 0;
    // A dictionary can change while Python's code runs below; lists of what was in it do not.
    PyObject *keys = PyDict_Keys(given), *values = PyDict_Values(given), *tuple = keys ? PyList_AsTuple(keys) : NULL;
    if (values == NULL || tuple == NULL) goto end;
    usual = PyTuple_Size(tuple) == PyList_Size(values) ? PySet_Contains(names, tuple) : 0;
    for (Py_ssize_t size = PyTuple_Size(tuple); usual == 1 && at < size; at++) {
        PyObject *name = PyTuple_GetItem(tuple, at), *value = PyList_GetItem(values, at);
        Attribute new = {NULL, 0, value, NULL};
        if (!PyUnicode_CheckExact(name) || (new.name = PyUnicode_AsUTF8AndSize(name, &new.size)) == NULL) {
            PyErr_Clear();
            usual = 0;
            break;
        }
        int hidden = PySet_Contains(personal, name);
        if (hidden < 0) { usual = -1; break; }
        if (hidden && value != Py_None) {
            int clean = PyUnicode_CheckExact(value) ? is_clean(value, texts, look) : 0;
            if (clean != 1) { usual = clean; break; }
            if ((new.sealed = commit_to(private, args[SALT], args[HASH], name, value)) == NULL) { usual = -1; break; }
        }
        Py_ssize_t place = count++;
        for (; place > 0 && compare(&new, &found[place - 1]) < 0; place--) found[place] = found[place - 1];
        found[place] = new;
    }
    PUT(out, "{");
    for (at = 0; usual == 1 && at < count; at++) {
        if (at) PUT(out, ",");
        put_string(out, (const unsigned char *)found[at].name, (size_t)found[at].size);
        PUT(out, ":");
        if (found[at].sealed != NULL) {
            PUT(out, "{\"commitment\":\"");
            put_base64(out, (const unsigned char *)PyBytes_AsString(found[at].sealed), 32);
            PUT(out, "\"}");
        } else {
            usual = put_usual(out, found[at].value, texts, look);
        }
    }
    PUT(out, "}");
end:
    for (at = 0; at < count; at++) Py_XDECREF(found[at].sealed);
    Py_XDECREF(keys); Py_XDECREF(tuple); Py_XDECREF(values);
    return usual;
}

static PyMethodDef methods[] = {
    {"parts", (PyCFunction)(void (*)(void))parts, METH_FASTCALL, parts_doc},
    {"spans", spans, METH_VARARGS, spans_doc},
    {"usual", usual, METH_VARARGS, usual_doc},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "auditspan_seal._native", NULL, 0, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__native(void);
PyMODINIT_FUNC PyInit__native(void) { return know() ? PyModuleDef_Init(&definition) : NULL; }
