// SPDX-License-Identifier: Apache-2.0
// The module auditspan_seal._native: what costs most of every record, in C. See native.py beside it.

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030A0000
#include <Python.h>

#define LONGEST (1024 * 1024)  // bytes of a line that is still usual

#include "documents.h"
#include "entries.h"
#include "recorder.h"

#define VERSION 2  // of what Python's code expects: see native.py
#define MOST_LINES 4096
#define MOST_MARKS 8

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

static PyMethodDef methods[] = {
    {"plain", plain, METH_VARARGS, plain_doc},
    {"spans", spans, METH_VARARGS, spans_doc},
    {"usual", usual, METH_VARARGS, usual_doc},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "auditspan_seal._native", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__native(void);
PyMODINIT_FUNC PyInit__native(void) {
    PyObject *module = know() ? PyModule_Create(&definition) : NULL;
    PyObject *place = module ? PyType_FromSpec(&place_spec) : NULL, *recorder = place ? PyType_FromSpec(&recorder_spec) : NULL;
    place_type = (PyTypeObject *)place;
    if (recorder != NULL && PyModule_AddIntConstant(module, "VERSION", VERSION) == 0
        && PyModule_AddType(module, (PyTypeObject *)place) == 0
        && PyModule_AddType(module, (PyTypeObject *)recorder) == 0) return module;
    Py_XDECREF(module); Py_XDECREF(place); Py_XDECREF(recorder);
    return NULL;
}
